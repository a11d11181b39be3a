"""An ARM device without the device: Debian's Python for arm64 under QEMU's user-mode emulation.

    python -m tests.arm.testbed                               build it, or say where it is
    python -m tests.arm.testbed --cpu cortex-a76 -- -m edge_mrl verify DIR

A cache folder gets arm64 Debian packages, the aarch64 wheels that constraints/tested.txt pins, and, where
the machine has none, QEMU itself. apt fetches and checks the packages with the machine's own sources and
keys, but keeps its lists apart; nothing is installed, and no root, container or binfmt is needed. The
package under test is this checkout's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.debian import (
    DOWNLOAD_TIMEOUT_S,
    UnavailableError,
    call,
    complaint,
    fetch,
    fetch_missing,
    need,
    unpack,
)
from tests.support.leftovers import MARK

__all__ = ["CPUS", "Emulator", "UnavailableError", "open_testbed"]

ROOT = Path(__file__).resolve().parent.parent.parent
CONSTRAINTS = ROOT / "constraints" / "tested.txt"
COUNTER = Path(__file__).resolve().parent / "insn_count.c"
#: Counted up when the steps below change, so that beds built before are not used.
RECIPE = 2
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WHEELS = ("numpy", "onnxruntime", "tokenizers")
#: From the newest that a wheel may ask for to the oldest; Debian 12 has glibc 2.36.
PLATFORMS = (
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_24",
    "manylinux_2_17",
    "manylinux2014",
)
#: The first QEMU with a Cortex-A76.
QEMU_LEAST = (7, 2)
#: The first QEMU that refuses plugins of version 1.
QEMU_PLUGIN_2 = (9, 0)
#: Two cores: enough for threads to meet, and few enough for any machine that runs this.
CORES = 2
LIBRARIES = "qemu/usr/lib/*-linux-gnu"
CACHE_VARIABLE = "EDGE_MRL_ARM_CACHE"


@dataclass(frozen=True, slots=True)
class Cpu:
    """What Linux says of a CPU in /proc/cpuinfo.

    Attributes:
        implementer: Who made it.
        part: Which one.
        features: What it can do, in the kernel's words.
    """

    implementer: int
    part: int
    features: str

    def cpuinfo(self) -> str:
        """The file for CORES of them. onnxruntime segfaults on import where it finds x86's."""
        lines = [
            f"Features\t: {self.features}",
            f"CPU implementer\t: {self.implementer:#04x}",
            "CPU architecture: 8",
            "CPU variant\t: 0x0",
            f"CPU part\t: {self.part:#05x}",
            "CPU revision\t: 3",
        ]
        cores = (f"processor\t: {core}\nBogoMIPS\t: 108.00" for core in range(CORES))
        return "".join("\n".join([core, *lines, "", ""]) for core in cores)


_V80 = "fp asimd evtstrm crc32 cpuid"
_V82 = f"{_V80} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
#: QEMU's name of each CPU. "max" has all that QEMU can do: SVE2, SME, bf16, i8mm and more.
CPUS = {
    "cortex-a72": Cpu(0x41, 0xD08, _V80),  # Raspberry Pi 4: no dot product
    "cortex-a76": Cpu(0x41, 0xD0B, _V82),  # Raspberry Pi 5: dot product
    "max": Cpu(0x00, 0x051, f"{_V82} sve i8mm bf16 sve2 svei8mm svebf16 sme smei8i32 smef32f32"),
}


@dataclass(frozen=True, slots=True)
class Emulator:
    """A built bed.

    Attributes:
        path: Its folder in the cache.
        qemu: The emulator.
        versions: Of QEMU, Python, glibc and the wheels.
    """

    path: Path
    qemu: Path
    versions: dict[str, str]

    def run(
        self,
        *arguments: object,
        cpu: str,
        stdin: bytes = b"",
        check: bool = True,
        program: Path | None = None,
        counts: Path | None = None,
        timeout_s: float = 300.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the bed's Python with arguments such as ``-m edge_mrl verify DIR``.

        Args:
            arguments: Python's; each becomes a string.
            cpu: A key of CPUS.
            stdin: What it reads.
            check: Raise if it ends with another code than 0, with what it said.
            program: Another arm64 program than Python.
            counts: Where insn_count.c writes its readings; None runs without it, three times as fast.
            timeout_s: After which it is killed.

        Raises:
            RuntimeError: It ended with another code than 0, and ``check`` is set.
            UnavailableError: ``counts`` is given, and there is no compiler, or QEMU takes no plugins.
        """
        done = subprocess.run(
            self.command(*arguments, cpu=cpu, program=program, counts=counts),
            input=stdin,
            capture_output=True,
            check=False,
            timeout=timeout_s,
            env=self.environment(),
        )
        if check and done.returncode != 0:
            said = done.stderr.decode(errors="replace")
            raise RuntimeError(f"on {cpu}, {arguments[:4]} ended with {done.returncode}: {said}")
        return done

    def command(
        self, *arguments: object, cpu: str, program: Path | None = None, counts: Path | None = None
    ) -> list[str]:
        """The command line of ``run``; it needs ``environment``, too."""
        view = self.path / "cpus" / cpu
        options = ["-L", str(view), "-cpu", cpu]
        if counts is not None:
            # A fixed seed for what the kernel hands to a process, so that counts repeat.
            options += ["-seed", "1", "-plugin", f"{self._counter()},out={counts}"]
        options += ["-U", "LD_LIBRARY_PATH"]  # it is for QEMU, not for what QEMU runs
        if program is None:
            program = self.path / "root" / "usr" / "bin" / "python3"
            options += ["-0", str(view / "python3")]  # what it is to take for sys.executable
        return [str(self.qemu), *options, str(program), *map(str, arguments)]

    def replace_process(self, arguments: Sequence[str], *, cpu: str) -> None:
        """Run the bed's Python in place of this process."""
        os.execve(self.qemu, self.command(*arguments, cpu=cpu), self.environment())

    def environment(self) -> dict[str, str]:
        """What the emulator runs with, and what it hands on."""
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", MARK) if name in os.environ}
        return {
            **kept,
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "LD_LIBRARY_PATH": ":".join(map(str, self.path.glob(LIBRARIES))),
            "PYTHONHOME": str(self.path / "root" / "usr"),
            "PYTHONPATH": f"{ROOT}:{self.path / 'site'}",
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "ORT_DISABLE_TELEMETRY": "1",
        }

    def _counter(self) -> Path:
        """The compiled plugin; made anew when its source changes."""
        source = COUNTER.read_bytes()
        built = self.path / f"insn_count-{hashlib.sha256(source).hexdigest()[:12]}.so"
        if built.exists():
            return built
        number = 1 if _version(self.versions["qemu"]) < QEMU_PLUGIN_2 else 2
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
        with tempfile.TemporaryDirectory(dir=self.path) as scratch:
            plugin, counts = Path(scratch) / built.name, Path(scratch) / "counts"
            call([need("cc"), *flags, f"-DPLUGIN_VERSION={number}", "-o", plugin, COUNTER], 60)
            python = self.command("-c", "pass", cpu="cortex-a72")
            trial = [python[0], "-plugin", f"{plugin},out={counts}", *python[1:]]
            call(trial, 60, self.environment())
            if not int(counts.read_text("ascii")) > 0:
                raise RuntimeError(f"the plugin counts nothing: {counts.read_text('ascii')!r}")
            plugin.replace(built)
        return built


def open_testbed() -> Emulator:
    """Open the bed in the cache; build it first if there is none for these versions.

    Raises:
        UnavailableError: It is not there, and this machine cannot build it; the message says why.
        RuntimeError: It was built but does not run.
    """
    if sys.platform != "linux":
        raise UnavailableError(
            f"QEMU emulates a user's process on Linux only, and this is {sys.platform}"
        )
    pins = _pins()
    folder = _cache() / _key(pins)
    if not (folder / "versions.json").exists():
        _build(folder, pins)
    versions = json.loads((folder / "versions.json").read_bytes())
    own = folder / "qemu" / "usr" / "bin" / "qemu-aarch64"
    qemu = own if own.exists() else Path(need("qemu-aarch64"))
    return Emulator(folder, qemu, versions)


def _cache() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "edge-mrl" / "arm64"


def _pins() -> list[str]:
    lines = CONSTRAINTS.read_text("utf-8").split()
    return [line for line in lines if line.partition("==")[0] in WHEELS]


def _key(pins: list[str]) -> str:
    parts = [str(RECIPE), *PACKAGES, *pins, *(cpu.cpuinfo() for cpu in CPUS.values())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(folder: Path, pins: list[str]) -> None:
    """Build in a folder beside it and rename that into place: there is a whole bed or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as name:
        bed = Path(name) / "bed"
        bed.mkdir()
        qemu = _get_qemu(bed, Path(name) / "apt-qemu")
        python = _get_root(bed, Path(name) / "apt-root")
        _get_wheels(bed, pins, python)
        for cpu in CPUS:
            _overlay(bed, qemu, cpu)
        versions = {"qemu": _qemu_version(bed, qemu), **_check(Emulator(bed, qemu, {}))}
        (bed / "versions.json").write_text(json.dumps(versions, indent=1), encoding="utf-8")
        try:
            bed.rename(folder)
        except OSError:  # another process was first
            if not (folder / "versions.json").exists():
                raise


def _get_qemu(bed: Path, scratch: Path) -> Path:
    """The machine's own QEMU if it is new enough, else its distribution's, unpacked into the bed."""
    found = shutil.which("qemu-aarch64")
    if found and _version(_qemu_version(bed, Path(found))) >= QEMU_LEAST:
        return Path(found)
    debs = fetch_missing(scratch, "qemu-user")
    target = bed / "qemu"
    for deb in debs:
        unpack(deb, target, ["--wildcards", "./usr/bin/qemu-aarch64", "./usr/lib/*"])
    qemu = target / "usr" / "bin" / "qemu-aarch64"
    if _version(_qemu_version(bed, qemu)) < QEMU_LEAST:
        raise UnavailableError(
            f"QEMU {_qemu_version(bed, qemu)} knows no Cortex-A76; 7.2 is the first"
        )
    return qemu


def _get_root(bed: Path, scratch: Path) -> str:
    """Unpack Python for arm64 with all that it needs; its version, such as 3.11."""
    empty = scratch / "status"
    empty.parent.mkdir(parents=True)
    empty.touch()
    wanted = ["APT::Architecture=arm64", "APT::Architectures=arm64", f"Dir::State::status={empty}"]
    root = bed / "root"
    for name in ("lib", "bin", "sbin"):  # Debian's, since /usr holds everything
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in fetch(scratch, PACKAGES, wanted):
        unpack(deb, root)
    return (root / "usr" / "bin" / "python3").readlink().name.removeprefix("python")


def _get_wheels(bed: Path, pins: list[str], python: str) -> None:
    platforms = [f"--platform={name}_aarch64" for name in PLATFORMS]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(bed / "site"), "--no-compile", "--only-binary=:all:", *platforms]
    command += ["--implementation=cp", f"--python-version={python}", "--retries=1", "--timeout=20"]
    done = call([*command, "-c", CONSTRAINTS, *pins], DOWNLOAD_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise UnavailableError(f"pip cannot fetch the aarch64 wheels: {complaint(done)}")


#: Stands for the emulated Python where a process starts sys.executable: the kernel, which runs what a
#: guest starts, knows nothing of QEMU (binfmt would tell it, but only root can set that up). It lies in
#: BED/cpus/CPU/, and the environment is the guest's.
_STAND_IN = """\
#!/bin/sh
view=${{0%/*}}
bed=${{view%/cpus/*}}
LD_LIBRARY_PATH={libraries}
export LD_LIBRARY_PATH
exec {qemu} -L "$view" -cpu {cpu} -U LD_LIBRARY_PATH -0 "$0" "$bed/root/usr/bin/python3" "$@"
"""


def _overlay(bed: Path, qemu: Path, cpu: str) -> None:
    """A root of links with the files of one CPU: QEMU looks for every path in it first."""
    view = bed / "cpus" / cpu
    (view / "proc").mkdir(parents=True)
    for name in ("usr", "lib", "bin", "sbin", "etc"):
        (view / name).symlink_to(f"../../root/{name}")
    (view / "proc" / "cpuinfo").write_text(CPUS[cpu].cpuinfo(), encoding="ascii")
    own = qemu.is_relative_to(bed)
    libraries = ":".join(f'"$bed"/{path.relative_to(bed)}' for path in bed.glob(LIBRARIES))
    script = _STAND_IN.format(
        libraries=libraries,
        qemu=f'"$bed"/{qemu.relative_to(bed)}' if own else shlex.quote(str(qemu)),
        cpu=cpu,
    )
    (view / "python3").write_text(script, encoding="utf-8")
    (view / "python3").chmod(0o755)
    system = view / "sys" / "devices" / "system" / "cpu"
    system.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{CORES - 1}\n", encoding="ascii")


def _check(bed: Emulator) -> dict[str, str]:
    """Import everything on each CPU, which also compiles it, and say the versions."""
    code = f"""
import json, platform
from importlib.metadata import version
import numpy, onnxruntime, sqlite3, tokenizers
assert platform.machine() == "aarch64"
print(json.dumps({{
    "python": platform.python_version(),
    "glibc": platform.libc_ver()[1],
    **{{name: version(name) for name in {WHEELS}}},
}}))
"""
    found = [json.loads(bed.run("-c", code, cpu=cpu).stdout) for cpu in CPUS]
    versions: dict[str, str] = found[0]
    pinned = dict(pin.split("==") for pin in _pins())
    if {name: versions[name] for name in WHEELS} != pinned:
        raise RuntimeError(f"the bed has {versions}, expected {pinned}")
    return versions


def _qemu_version(bed: Path, qemu: Path) -> str:
    said = call([qemu, "--version"], 60, Emulator(bed, qemu, {}).environment()).stdout
    match = re.search(r"version ([0-9.]+)", said)
    if match is None:
        raise UnavailableError(f"{qemu} --version says {said!r}")
    return match[1]


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def main() -> int:
    """Build the bed, and run Python on it if there are arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", choices=CPUS, default="cortex-a76")
    parser.add_argument("arguments", nargs="*", help="for the bed's Python, after --")
    args = parser.parse_args()
    try:
        bed = open_testbed()
    except UnavailableError as error:
        print(f"no ARM test bed: {error}", file=sys.stderr)
        return 3
    if args.arguments:
        bed.replace_process(args.arguments, cpu=args.cpu)
    print(bed.path)
    print(", ".join(f"{name} {version}" for name, version in bed.versions.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
