"""The wheel where it may be installed: on each Python of this machine, and with its oldest dependencies.

    python -m tests.support.pythons              all of them
    python -m tests.support.pythons 3.13 oldest  some

Each gets a virtual environment in build/pythons, which is kept, with the wheel, what the runtime depends
on, and pytest; quick tests of the runtime run in a folder where the checkout is out of sight.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["OLDEST", "PROJECT", "UnreachableError", "build_wheel", "environments", "pinned", "run"]

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "build" / "pythons"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OLDEST = "oldest"
TOOLS = ("hypothesis", "pytest", "pytest-timeout")
#: Tests that need no exporter, no checkout and no long time.
TESTS = (
    "bundle/test_manifest",
    "cli/test_embed",
    "codes/test_codes",
    "codes/test_kinds",
    "encode/test_encoder",
    "encode/test_passages",
    "encode/test_static",
    "index/test_index",
    "ingest/test_ingest",
    "machine/test_facts",
    "search/test_answers",
    "search/test_fusion",
    "search/test_ranking",
    "search/test_scan",
    "sources/test_reading",
    "store/test_codefile",
    "store/test_files",
    "store/test_filters",
    "store/test_keyword_form",
    "store/test_keywords",
    "store/test_store",
    "test_documents",
    "test_metadata",
)
#: As they are, but minutes long: they kill commands and start them again.
LONG_TESTS = ("cli/test_cli", "cli/test_store")
TIMEOUT_S = 400
#: In what pip says when it is the network's fault, not the requirements'.
NETWORK = re.compile(
    "establish a new connection|ConnectTimeout|Read timed out|name resolution|Connection refused|"
    "Cannot connect to proxy|Network is unreachable"
)


class UnreachableError(Exception):
    """No network to install from."""


def environments() -> dict[str, Path]:
    """Interpreters by name: "3.12" and so on, without the one that runs this, and OLDEST."""
    found = {}
    supported = [
        line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)
    ]
    for version in supported:
        python = next((path for path in _candidates(version) if _is_python(path, version)), None)
        if python is not None:
            found[version] = python
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = {version: python for version, python in found.items() if version != own}
    # Old versions have wheels for old Pythons.
    return {**others, OLDEST: next(iter(found.values()))}


def _candidates(version: str) -> Iterator[Path]:
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        yield Path(sys.executable)
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def _is_python(path: Path, version: str) -> bool:
    """Whether it runs (pyenv's stand-ins may not) and has what the runtime needs of it."""
    code = "import sys, venv, ensurepip, sqlite3; print('%d.%d' % sys.version_info[:2])"
    run = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return run.returncode == 0 and run.stdout.strip() == version


def build_wheel(out: Path) -> Path:
    """The wheel, made from the source distribution, as it would be published."""
    _call([sys.executable, "-m", "build", "--outdir", out, ROOT])
    return next(out.glob("*.whl"))


def run(name: str, wheel: Path, *, whole: bool = True) -> str:
    """Install the wheel in the environment of that name and run the tests; the last line they say.

    Args:
        name: The environment.
        wheel: The wheel.
        whole: Also the long tests.

    Raises:
        UnreachableError: The environment has to be made, and there is no network.
        RuntimeError: It cannot be installed, another edge_mrl was tested, or a test failed.
    """
    python = _prepare(name, environments()[name])
    # Without its dependencies: which versions those are has been decided.
    _call([python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel])
    _call([python, "-m", "pip", "check"])
    with tempfile.TemporaryDirectory() as scratch:
        ignore = shutil.ignore_patterns("__pycache__", "arm", "export")
        shutil.copytree(ROOT / "tests", Path(scratch) / "tests", ignore=ignore)
        for file in ("pyproject.toml", "FORMAT.md"):
            shutil.copy(ROOT / file, scratch)
        where = _call([python, "-c", "import edge_mrl; print(edge_mrl.__file__)"], cwd=scratch)
        if not where.startswith(str(python.parent.parent)):
            raise RuntimeError(f"the tests would run {where.strip()}, expected the wheel")
        files = [f"tests/{file}.py" for file in (*TESTS, *(LONG_TESTS if whole else ()))]
        # What a run leaves behind is looked for by the run that started this one.
        tiers = "not nightly" if whole else "quick"
        options = ["-q", "-m", tiers, "-p", "no:cacheprovider", "-p", "no:leftovers"]
        options.append(f"--basetemp={scratch}/tmp")
        said = _call([python, "-m", "pytest", *options, *files], cwd=scratch)
    return f"{_versions(python)}: {said.splitlines()[-1]}"


def _prepare(name: str, interpreter: Path) -> Path:
    """Make the environment, or take the one made before with the same pins."""
    pins = _pins(name)
    digest = hashlib.sha256("\n".join([str(interpreter.resolve()), *pins]).encode()).hexdigest()
    folder = FOLDER / f"{name}-{digest[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _call([interpreter, "-m", "venv", folder])
        options = ["--retries=1", "--timeout=20", "--only-binary=:all:"]
        _call([python, "-m", "pip", "install", "-q", *options, *pins])
        (folder / "done").touch()
    return python


def _pins(name: str) -> list[str]:
    """The tools, and what the runtime depends on, in versions that were tested together."""
    tested = pinned("tested")
    chosen = pinned("lowest") if name == OLDEST else tested
    packages = [requirement.split(">=")[0] for requirement in PROJECT["dependencies"]]
    return [
        *(f"{tool}=={tested[tool]}" for tool in TOOLS),
        *(f"{package}=={chosen[package]}" for package in packages),
    ]


def pinned(name: str) -> dict[str, str]:
    """Versions by package of ``constraints/NAME.txt``: "tested", or "lowest" of the runtime's own."""
    lines = (ROOT / "constraints" / f"{name}.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def _versions(python: Path) -> str:
    packages = [requirement.split(">=")[0] for requirement in PROJECT["dependencies"]]
    code = (
        "import platform, sys; from importlib.metadata import version\n"
        "print('Python', platform.python_version(), *(f'{p} {version(p)}' for p in sys.argv[1:]))"
    )
    return _call([python, "-c", code, *packages]).strip()


def _call(command: Sequence[object], *, cwd: str | Path = "/") -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        if "pip" in command and NETWORK.search(said):
            raise UnreachableError(said.splitlines()[-1])
        line = " ".join(str(part) for part in command[:6])
        raise RuntimeError(f"{line} ended with {done.returncode}:\n{said}")
    return done.stdout


def main() -> int:
    """Run the tests in the environments asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = environments()
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args().names or list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        parser.error(f"no {', '.join(unknown)} here, only {', '.join(known)}")
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        wheel = build_wheel(Path(scratch))
        for said in pool.map(functools.partial(run, wheel=wheel), names):
            print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
