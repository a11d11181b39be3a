"""The programs of the build, each out of a pinned part: aapt2, javac, R8, the signer, and the lint."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from android_demo.tools.kotlin import QUICKLY, classpath, java
from android_demo.tools.toolchain import UnavailableError, cache, part

__all__ = [
    "BuildError",
    "aapt2",
    "aapt2_file",
    "compile_java",
    "debug_key",
    "digest",
    "lint",
    "r8",
    "sign",
]

TIMEOUT_S = 900
PROGRAMS = Path(__file__).with_name("java")
PASSWORD = "EDGE_MRL_KEY_PASSWORD"
#: What Android's own tools use for the key of a debug build. It protects nothing.
DEBUG_PASSWORD = "android"
LINT_PARTS = ("animal-sniffer", "asm")


class BuildError(Exception):
    """A program of the build refused its input; the message is what it said."""


def aapt2(*arguments: object) -> str:
    """Run aapt2."""
    return _run([aapt2_file(), *arguments])


def compile_java(source: Path, target: Path) -> None:
    """Compile the one Java file that aapt2 writes, the numbers of the resources."""
    javac = shutil.which("javac")
    if javac is None:
        raise UnavailableError("no javac here: install a JDK of version 17 or newer")
    _run([javac, "--release", "8", "-nowarn", "-Xlint:-options", "-d", target, source])


def r8(inputs: Sequence[Path], rules: Sequence[Path], target: Path, *, least: str) -> None:
    """Shrink class files into classes.dex in the folder ``target``."""
    flags = [flag for file in rules for flag in ("--pg-conf", file)]
    libraries = ["--lib", part("android"), "--lib", java_home()]
    main = ["-cp", part("r8"), "com.android.tools.r8.R8", "--release", "--min-api", least]
    _run([java(), *QUICKLY, "-Xmx2g", *main, *libraries, *flags, "--output", target, *inputs])


def lint(jars: Sequence[Path], *, signatures: str = "api-24", own: Path | None = None) -> str:
    """The uses of public APIs that the oldest Android lacks, a line each; empty if there are none.

    Args:
        jars: Class files.
        signatures: The part that has the names of the oldest Android.
        own: A file with the names of classes that are there too; None for whole packages of the app.
    """
    files = classpath(*(part(name) for name in LINT_PARTS))
    source = PROGRAMS / "Lint.java"
    options = [*QUICKLY] if own is None else [*QUICKLY, f"-Dedge.own={own}"]
    command = [java(), *options, "-cp", files, str(source), str(part(signatures)), *map(str, jars)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode > 1 or done.stderr.strip():
        raise BuildError(f"the lint failed:\n{done.stderr or done.stdout}")
    return done.stdout.strip() if done.returncode else ""


def sign(source: Path, target: Path, key: Path, *, least: str) -> None:
    """Sign an APK and verify it. The key's password is in the environment; a debug key's is known."""
    password = DEBUG_PASSWORD if key == debug_key_file() else os.environ.get(PASSWORD)
    if password is None:
        raise BuildError(f"the password of {key} is missing: set {PASSWORD}")
    environment = {**os.environ, PASSWORD: password}
    program = ["-cp", part("bundletool"), PROGRAMS / "Sign.java"]
    _run([java(), *program, source, target, key, least], environment)


def debug_key_file() -> Path:
    """The place of the key of debug builds: one for each machine, so that a phone takes the next too."""
    return cache() / "debug.p12"


def debug_key() -> Path:
    """The key of debug builds, made if there is none."""
    file = debug_key_file()
    if not file.exists():
        keytool = shutil.which("keytool")
        if keytool is None:
            raise UnavailableError("no keytool here: install a JDK of version 17 or newer")
        partial = file.with_suffix(f".{os.getpid()}")
        store = ["-keystore", partial, "-storetype", "PKCS12", "-storepass", DEBUG_PASSWORD]
        which = ["-alias", "debug", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10950"]
        _run([keytool, "-genkeypair", *store, *which, "-dname", "CN=edge-mrl debug"])
        partial.replace(file)
    return file


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@functools.cache
def java_home() -> Path:
    """The folder of this machine's JDK."""
    return Path(java()).resolve().parents[1]


@functools.cache
def aapt2_file() -> Path:
    """The program aapt2, unpacked if it is not yet."""
    folder = {"linux": "linux", "darwin": "macosx"}.get(sys.platform)
    if folder is None:
        raise UnavailableError(f"no aapt2 for {sys.platform}: build on Linux or macOS")
    jar = part("aapt2")
    target = jar.with_suffix("")
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}")
        with zipfile.ZipFile(jar) as archive:
            partial.write_bytes(archive.read(f"prebuilt/{folder}/aapt2_64"))
        partial.chmod(0o755)
        partial.replace(target)
    return target


def _run(command: Sequence[object], environment: dict[str, str] | None = None) -> str:
    line = [str(argument) for argument in command]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment
    )
    if done.returncode:
        said = "\n".join(
            text
            for text in (done.stderr + done.stdout).splitlines()
            if text.strip() and not text.startswith(("\t", "Info:"))
        )
        raise BuildError(f"{Path(line[0]).name} ended with {done.returncode}:\n{said[:4000]}")
    return done.stdout
