"""The parts of the build, fetched once, each compared with its hash in pins.toml."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

__all__ = ["COMPILER", "LIBRARIES", "UnavailableError", "part", "parts"]

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
PINS = Path(__file__).with_name("pins.toml")


class UnavailableError(Exception):
    """This machine cannot have a part: no Java, no Maven, or no network."""


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
    target = _cache() / f"{artifact}-{version}-{pin['sha256'][:12]}.jar"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as folder:
            _check(_fetch(pin["artifact"], Path(folder)), pin["sha256"]).replace(target)
    return target


def _fetch(artifact: str, folder: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise UnavailableError("no mvn here: install Maven, which fetches the parts of the build")
    plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
    done = subprocess.run(
        [maven, "-q", "-B", plugin, f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"],
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )
    found = list(folder.glob("*.jar"))
    if done.returncode or not found:
        raise UnavailableError(f"Maven could not fetch {artifact}: {done.stdout.strip()[:300]}")
    return found[0]


def _check(file: Path, expected: str) -> Path:
    got = hashlib.sha256(file.read_bytes()).hexdigest()
    if got != expected:
        raise ValueError(f"{file.name} has SHA-256 {got}, pins.toml expects {expected}")
    return file


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "edge-mrl" / "android"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
