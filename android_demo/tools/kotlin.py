"""Kotlin sources to jars, and their tests on the desktop's Java.

python -m android_demo.tools.kotlin          # builds build/android/core.jar
python -m android_demo.tools.kotlin --test   # and runs the JUnit tests of core
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from android_demo.tools.project import CORE, DEMO, Module, versions
from android_demo.tools.toolchain import COMPILER, LIBRARIES, UnavailableError, part, parts

__all__ = [
    "BUILD",
    "QUICKLY",
    "checks_jar",
    "classpath",
    "core_jar",
    "java",
    "module_jar",
    "probe_jar",
]

ROOT = DEMO.parent
BUILD = ROOT / "build" / "android"
COMPILE_TIMEOUT_S = 900
#: A compiler runs for seconds: Java's second compiler would cost more than it saves.
QUICKLY = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


def java() -> str:
    """The Java of this machine.

    Raises:
        UnavailableError: There is none.
    """
    found = shutil.which("java")
    if found is None:
        raise UnavailableError("no java here: install a JDK of version 17 or newer")
    return found


def classpath(*files: Path) -> str:
    """Files as Java takes them."""
    return os.pathsep.join(map(str, files))


def core_jar() -> Path:
    """`core` and its resources, compiled if a source changed."""
    return module_jar(CORE, parts(LIBRARIES))


def module_jar(module: Module, libraries: Sequence[Path]) -> Path:
    """A module and its resources, compiled if a source or a library changed."""
    return _jar(module.name, [module.main], libraries)


def probe_jar() -> Path:
    """The tests of `core`, and the probe that pytest talks to."""
    core = core_jar()
    libraries = [core, *parts(LIBRARIES), part("junit")]
    return _jar("core-tests", [CORE.test], libraries, friend=core)


def checks_jar(modules: Sequence[Module], libraries: Sequence[Path], *, friend: Path) -> Path:
    """The tests of modules, which may use what is internal in the jar ``friend``."""
    names = "-".join(module.name for module in modules)
    return _jar(f"{names}-tests", [module.test for module in modules], libraries, friend=friend)


def _jar(
    name: str, roots: Sequence[Path], libraries: Sequence[Path], *, friend: Path | None = None
) -> Path:
    """Compile folders into a jar; what is internal in the jar ``friend`` may be used."""
    BUILD.mkdir(parents=True, exist_ok=True)
    files = sorted(file for root in roots for file in root.rglob("*") if file.is_file())
    seen = hashlib.sha256()
    for file in (*files, *libraries):
        seen.update(str(file).encode() + b"\0" + (file.read_bytes() if file in files else b""))
    jar = BUILD / f"{name}-{seen.hexdigest()[:16]}.jar"
    with FileLock(BUILD / f"{name}.lock"):
        if not jar.exists():
            for old in BUILD.glob(f"{name}-{'[0-9a-f]' * 16}.jar"):
                old.unlink()
            partial = jar.with_suffix(".part.jar")
            sources = [file for file in files if file.suffix == ".kt"]
            _compile(sources, libraries, partial, friend=friend)
            _add_resources(roots, partial)
            partial.replace(jar)
    return jar


def _compile(
    sources: Sequence[Path], libraries: Sequence[Path], target: Path, *, friend: Path | None
) -> None:
    options = ["-jvm-target", versions()["jvmTarget"], "-Xjdk-release=8"]
    options += ["-no-stdlib", "-no-reflect", "-Werror", "-progressive"]
    if friend is not None:
        options.append(f"-Xfriend-paths={friend}")
    arguments = [*options, "-cp", classpath(*libraries), "-d", str(target), *map(str, sources)]
    listed = target.with_suffix(".args")
    listed.write_text("\n".join(f'"{argument}"' for argument in arguments), encoding="utf-8")
    main = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]  # it runs too shortly to be optimised
    command = [java(), "-Xmx1500m", *quick, "-cp", classpath(*parts(COMPILER)), main, f"@{listed}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False
    )
    listed.unlink()
    if done.returncode:
        raise SystemExit(f"the Kotlin compiler refused:\n{done.stderr}")


def _add_resources(roots: Sequence[Path], jar: Path) -> None:
    import zipfile

    with zipfile.ZipFile(jar, "a", zipfile.ZIP_DEFLATED) as archive:
        for root in roots:
            folder = root / "resources"
            for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
                if file.is_file():
                    entry = zipfile.ZipInfo(str(file.relative_to(folder)))
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, file.read_bytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and test if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test", action="store_true", help="run the JUnit tests of core")
    options = parser.parse_args(arguments)
    jars = [core_jar()]
    print(jars[0])
    if not options.test:
        return 0
    jars.append(probe_jar())
    every = classpath(*jars, *parts(LIBRARIES))
    scan = ["--scan-classpath", str(jars[1]), "--fail-if-no-tests", "--disable-banner"]
    return subprocess.run(
        [java(), "-jar", str(part("junit")), "execute", "--class-path", every, *scan], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
