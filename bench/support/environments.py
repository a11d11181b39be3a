"""One virtual environment for each peer, with pinned versions, in build/bench-venvs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["OWN", "PEERS", "RUNTIME", "Environment", "installed_mb", "prepare", "source_digest"]

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENTS = ROOT / "build" / "bench-venvs"
#: The environment that runs this benchmark; it has edge-mrl.
OWN = "edge-mrl"
#: Only what a user's device has: edge-mrl's wheel, made from this source, and what it depends on.
RUNTIME = "edge-mrl-runtime"
NUMPY = "numpy==2.4.6"
ONNXRUNTIME = "onnxruntime==1.31.1"
TOKENIZERS = "tokenizers==0.22.2"
TORCH = "torch==2.13.0"
OPENVINO = (
    NUMPY,
    "sentence-transformers==6.2.0",
    "transformers==5.5.4",
    "optimum==2.3.0",
    "optimum-intel==2.2.0",
    "openvino==2026.4.1",
    "openvino-tokenizers==2026.4.1.0",
    "nncf==3.4.0",
    TOKENIZERS,
    TORCH,
)
PEERS: dict[str, tuple[str, ...]] = {
    "chromadb": (NUMPY, "chromadb==1.5.9"),
    "faiss": (NUMPY, "faiss-cpu==1.15.1"),
    "hnswlib": (NUMPY, "hnswlib==0.8.0"),  # built from source: needs a C++ compiler
    "lancedb": (NUMPY, "lancedb==0.40.0", "pyarrow==26.0.1"),
    "qdrant-edge": (NUMPY, "qdrant-edge-py==0.9.0"),
    "sqlite-vec": (NUMPY, "sqlite-vec==0.1.9", "apsw==3.54.1.0"),
    "usearch": (NUMPY, "usearch==2.26.6"),
    "zvec": (NUMPY, "zvec==0.8.0"),
    RUNTIME: (NUMPY, ONNXRUNTIME, TOKENIZERS),
    "fastembed": (NUMPY, "fastembed==0.9.1", ONNXRUNTIME, TOKENIZERS),
    # It asks for tokenizers 0.23, the others go with 0.22.
    "light-embed": (NUMPY, "light-embed==1.0.9", ONNXRUNTIME, "tokenizers==0.23.3"),
    "model2vec": (NUMPY, "model2vec==0.10.0", TOKENIZERS),
    # It makes the model that the lean one above runs.
    "model2vec-distill": (NUMPY, "model2vec[distill,quantization]==0.10.0", TORCH),
    "onnxruntime": (NUMPY, ONNXRUNTIME, TOKENIZERS),
    "sentence-transformers": (NUMPY, "sentence-transformers==6.2.0", "transformers==5.23.0", TORCH),
    # 5.7.0 is the last that optimum-onnx goes with: that needs transformers below 4.58, 6 needs 5.
    "sentence-transformers-onnx": (
        NUMPY,
        "sentence-transformers==5.7.0",
        "transformers==4.57.6",
        "optimum==2.1.0",
        "optimum-onnx==0.1.0",
        "onnx==1.23.2",
        ONNXRUNTIME,
        TOKENIZERS,
        TORCH,
    ),
    "sentence-transformers-openvino": OPENVINO,
    # It makes the int8 model that the one above runs.
    "openvino-quantize": (*OPENVINO, "datasets==5.0.1"),
}
#: Removed again. A registry's torchvision does not load beside torch's CPU build, which fails all of
#: transformers, and no text needs it.
UNWANTED = {
    "sentence-transformers-openvino": ("torchvision",),
    "openvino-quantize": ("torchvision",),
}
INSTALL_TIMEOUT_S = 900
#: What a virtual environment begins with; torch asks for setuptools, which no engine uses to run.
NOT_COUNTED = ("pip", "setuptools", "_distutils_hack", "distutils-precedence.pth", "pkg_resources")
#: What edge-mrl's wheel is made of.
SOURCE = ("pyproject.toml", "README.md", "LICENSE", "edge_mrl", "export", "server")
MESSAGE_CHARS = 400


@dataclass(frozen=True, slots=True)
class Environment:
    """Where an engine runs.

    Attributes:
        name: A key of PEERS, or OWN.
        python: Its interpreter.
        versions: Installed versions of what was asked for, by package.
        problem: Why it cannot be used; None if it can.
    """

    name: str
    python: Path
    versions: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


def prepare(name: str) -> Environment:
    """Make the environment, or take the one made before with the same pins."""
    if name == OWN:
        python = Path(sys.executable)
        return Environment(name, python, _versions(python, ("edge-mrl", "numpy")))
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    pins = PEERS[name]
    done = folder / "pins.txt"
    if not _is(done, "\n".join(pins)):
        done.unlink(missing_ok=True)  # first, in case that this is interrupted
        venv.create(folder, clear=True, with_pip=True)
        problem = _install(folder, pins)
        if problem is not None:
            return Environment(name, python, problem=problem)
        if name in UNWANTED:
            command = [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *UNWANTED[name]]
            subprocess.run(command, check=True)
        done.write_text("\n".join(pins), encoding="utf-8")
    packages = [pin.partition("==")[0].partition("[")[0] for pin in pins]
    if name == RUNTIME:
        problem = _install_own(folder)
        if problem is not None:
            return Environment(name, python, problem=problem)
        packages.append("edge-mrl")
    return Environment(name, python, _versions(python, packages))


def installed_mb(environment: Environment) -> float:
    """Megabytes of the files in site-packages, compiled ones included, without pip and setuptools."""
    site = next(environment.python.parent.parent.glob("lib/python*/site-packages"))
    counted = [path for path in site.iterdir() if not _begins_with(path.name, NOT_COUNTED)]
    files = (file for path in counted for file in (path, *path.rglob("*")) if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e6


def _begins_with(name: str, packages: Sequence[str]) -> bool:
    """Whether a file or folder is a package's, or holds its metadata."""
    return name in packages or name.partition("-")[0] in packages


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text("utf-8") == text


def _install_own(folder: Path) -> str | None:
    """Install edge-mrl as a wheel, unless this very source is installed; what went wrong, or None."""
    done, digest = folder / "source.txt", source_digest()
    if _is(done, digest):
        return None
    # Away from the checkout: what an earlier build left there would be in the wheel, too.
    with tempfile.TemporaryDirectory() as scratch:
        for name in SOURCE:
            if (ROOT / name).is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, Path(scratch) / name, ignore=ignore)
            else:
                shutil.copy(ROOT / name, scratch)
        problem = _install(folder, ("--no-deps", "--force-reinstall", scratch))
    if problem is not None:
        return problem.replace(scratch, ".")
    done.write_text(digest, encoding="utf-8")
    return None


def source_digest() -> str:
    """A hash of all that edge-mrl's wheel is made of."""
    digest = hashlib.sha256()
    for name in SOURCE:
        for path in sorted([ROOT / name, *(ROOT / name).rglob("*")]):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _install(folder: Path, what: tuple[str, ...]) -> str | None:
    """What pip complains of, or None. All its words go to install.log in the environment."""
    log = folder / "install.log"
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *what]
    try:
        with log.open("wb") as file:
            subprocess.run(command, check=True, stdout=file, stderr=file, timeout=INSTALL_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        said = " ".join(log.read_text("utf-8", errors="replace").partition("ERROR:")[2].split())
        return f"pip install {' '.join(what)} ended with {error.returncode}: {said[:MESSAGE_CHARS]}"
    except subprocess.TimeoutExpired:
        return f"pip install {' '.join(what)} took more than {INSTALL_TIMEOUT_S} s"
    return None


def _versions(python: Path, packages: list[str] | tuple[str, ...]) -> dict[str, str]:
    code = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    found = subprocess.run(
        [str(python), "-c", code, *packages], check=True, capture_output=True, text=True
    )
    return dict(zip(packages, found.stdout.split(), strict=True))
