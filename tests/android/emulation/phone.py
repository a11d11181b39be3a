"""A phone's processor without the phone: the APK's classes and libraries, on Java for arm64 under QEMU.

    phone = open_phone(apk, folder)
    phone([{"do": "verify", "bundle": ...}], cpu="cortex-a76")

classes.dex is turned back into class files by enjarify. The libraries are the APK's own, loaded by
glibc's linker; bionic.c stands for what they expect of Android. So ART, bionic and the framework are not
what runs.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from android_demo.tools.toolchain import cache, part
from tests.android.emulation.names import with_own_names
from tests.arm.testbed import CORES, CPUS, Emulator, open_testbed
from tests.support.debian import call, fetch, fetch_missing, need, unpack

__all__ = ["Phone", "open_phone", "traced"]

HERE = Path(__file__).parent
#: Counted up when the steps below change.
RECIPE = 1
JAVA = "openjdk-17-jre-headless"
#: Of what it depends on: the packages with libraries that it loads.
NEEDED = ("libc6_", "libgcc-s1_", "libstdc++6_", "zlib1g_", "libjpeg", "liblcms2", f"{JAVA}_")
LIBRARIES = "usr/lib/aarch64-linux-gnu"
#: What Android's libraries name as those that they need.
NAMES = ("libc", "libm", "libdl", "liblog", "libandroid")
TIMEOUT_S = 900
#: R8 makes objects by constructors of their parents: ART allows that, and Java's verifier does not.
UNVERIFIED = ("-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote")
OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", *UNVERIFIED)
#: enjarify reads negative numbers of const-wide/32 as positive ones.
TRANSLATE = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
from enjarify import dalvikformats, main
dalvikformats._FUNC["31i"] = lambda a, b, c: [a >> 8, dalvikformats.sign(b ^ (c << 16), 32)]
main.main()
"""


@dataclass(frozen=True, slots=True)
class Phone:
    """An APK's classes and libraries, ready to run.

    Attributes:
        bed: The emulator.
        root: Folders with Java for arm64, and views of it for each kind of CPU.
        folder: What was made of the APK.
        apk: The APK itself, for its resources.
    """

    bed: Emulator
    root: Path
    folder: Path
    apk: Path

    def __call__(
        self,
        asked: Sequence[dict[str, Any]],
        *,
        cpu: str,
        counts: Path | None = None,
        calls: Path | None = None,
    ) -> list[Any]:
        """Ask SelfCheck, in one process; see android_demo/app's SelfCheck.kt.

        Args:
            asked: The questions.
            cpu: A key of CPUS.
            counts: Where the instructions of the process are written; None does not count.
            calls: Where its system calls are written, a line each.

        Raises:
            RuntimeError: The process ended with another code than 0; with what it said.
        """
        files = [self.folder / "ort.jar", self.folder / "dex.jar", self.apk, part("sqlite")]
        java = self.root / "root/usr/lib/jvm/java-17-openjdk-arm64/bin/java"
        native = self.folder / "lib"
        line = self.bed.command(
            *OPTIONS,
            f"-Donnxruntime.native.path={native}",
            *(f"-Dorg.sqlite.lib.path={native}", "-Dorg.sqlite.lib.name=libsqlitejdbc.so"),
            *("-cp", ":".join(map(str, files)), "org.edgemrl.demo.SelfCheck"),
            cpu=cpu,
            program=java,
            counts=counts,
        )
        line[line.index("-L") + 1] = str(self.root / "cpus" / cpu)
        done = subprocess.run(
            line if calls is None else traced(line, calls),
            input="".join(json.dumps(one) + "\n" for one in asked),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env=self.bed.environment(),
        )
        if done.returncode:
            raise RuntimeError(f"SelfCheck on {cpu} ended with {done.returncode}: {done.stderr}")
        return [json.loads(one)["value"] for one in done.stdout.splitlines()]


def traced(line: Sequence[str], calls: Path) -> list[str]:
    """The command of an emulator that also writes the system calls, a line each."""
    return [line[0], "-strace", "-D", str(calls), *line[1:]]


def open_phone(apk: Path, folder: Path) -> Phone:
    """Make class files and libraries of an APK that Java for arm64 loads.

    Args:
        apk: With arm64-v8a.
        folder: Empty; they are written there.

    Raises:
        UnavailableError: This machine cannot have a part of it; the message says which.
    """
    bed = open_testbed()
    root = _java()
    with zipfile.ZipFile(apk) as archive, zipfile.ZipFile(part("onnxruntime-android")) as runtime:
        (folder / "classes.dex").write_bytes(archive.read("classes.dex"))
        # Interfaces with static methods, as R8 writes them, do not load: take the archive's own.
        (folder / "ort.jar").write_bytes(runtime.read("classes.jar"))
        (folder / "lib").mkdir()
        for name in archive.namelist():
            if name.startswith("lib/arm64-v8a/"):
                (folder / "plain").write_bytes(archive.read(name))
                with_own_names(folder / "plain", folder / "lib" / Path(name).name)
    translate = [
        sys.executable,
        "-O",
        "-c",
        TRANSLATE,
        root / "enjarify/usr/lib/python3/dist-packages",
    ]
    said = call([*translate, "-o", folder / "dex.jar", folder / "classes.dex"], TIMEOUT_S)
    if " 0 classes had errors" not in said.stdout:
        raise RuntimeError(f"enjarify cannot translate all classes: {said.stdout[-500:]}")
    return Phone(bed, root, folder, apk)


def _java() -> Path:
    """Java for arm64, enjarify and what stands for bionic, in the cache."""
    shim = (HERE / "bionic.c").read_bytes()
    digest = hashlib.sha256(shim + repr((RECIPE, NEEDED, sorted(CPUS))).encode()).hexdigest()[:16]
    target = cache() / f"java-arm64-{digest}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=cache()) as name:
        made = Path(name) / "made"
        made.mkdir()
        _unpack_java(made, Path(name) / "apt")
        for deb in fetch_missing(Path(name) / "apt-enjarify", "enjarify"):
            if deb.name.startswith("enjarify_"):
                unpack(deb, made / "enjarify")
        _compile(made / "root" / LIBRARIES)
        for cpu in CPUS:
            _view(made, cpu)
        try:
            made.rename(target)
        except OSError:  # another process was first
            if not target.exists():
                raise
    return target


def _unpack_java(made: Path, scratch: Path) -> None:
    empty = scratch / "status"
    empty.parent.mkdir(parents=True)
    empty.touch()
    wanted = ["APT::Architecture=arm64", "APT::Architectures=arm64", f"Dir::State::status={empty}"]
    root = made / "root"
    for name in ("lib", "bin", "sbin"):  # Debian's, since /usr holds everything
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in fetch(scratch, [JAVA], wanted):
        if deb.name.startswith(NEEDED):
            unpack(deb, root)


def _compile(target: Path) -> None:
    """Libraries of the names that Android's own ask for; all but one only lead to glibc's."""
    program = [
        need("aarch64-linux-gnu-gcc"),
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
    ]
    for name in NAMES:
        source = [HERE / "bionic.c"] if name == "libc" else ["-x", "c", "/dev/null"]
        named = [f"-Wl,-soname,{name}.so", "-o", target / f"{name}.so"]
        call([*program, *named, *source, "-Wl,--no-as-needed", "-lm"], 60)


def _view(made: Path, cpu: str) -> None:
    """A root of links with the files of one CPU: QEMU looks for every path in it first."""
    view = made / "cpus" / cpu
    (view / "proc").mkdir(parents=True)
    for name in ("usr", "lib", "bin", "sbin", "etc"):
        (view / name).symlink_to(f"../../root/{name}")
    (view / "proc" / "cpuinfo").write_text(CPUS[cpu].cpuinfo(), encoding="ascii")
    system = view / "sys" / "devices" / "system" / "cpu"
    system.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{CORES - 1}\n", encoding="ascii")
