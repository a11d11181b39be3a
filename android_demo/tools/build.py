"""The app without Gradle: an APK to install, or an app bundle for a store.

python -m android_demo.tools.build apk --bundle build/minilm
python -m android_demo.tools.build aab --bundle build/minilm
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from android_demo.tools import manifest, sdk
from android_demo.tools.app_bundle import write_app_bundle
from android_demo.tools.archive import Entry, write_zip
from android_demo.tools.kotlin import BUILD, ROOT, core_jar, module_jar
from android_demo.tools.project import ABIS, ANDROID, APP, versions
from android_demo.tools.toolchain import UnavailableError, part

__all__ = ["Build", "build", "main", "module_jars"]

TINY = ROOT / "tests" / "golden" / "tiny-bert-16"
#: What an app is built for unless it is told: phones, and the emulator.
DEFAULT_ABIS = ("arm64-v8a", "x86_64")
ORT_LIBRARIES = ("libonnxruntime.so", "libonnxruntime4j_jni.so")


@dataclass(frozen=True, slots=True)
class Build:
    """What to build.

    Attributes:
        kind: "apk" or "aab".
        bundle: The folder of the bundle that lies in the app's assets.
        abis: The kinds of processors.
        key: A PKCS#12 file to sign the APK with, or None to leave it unsigned. An app bundle never is.
        output: The file to write; None chooses one in build/android.
    """

    kind: str
    bundle: Path
    abis: tuple[str, ...] = DEFAULT_ABIS
    key: Path | None = None
    output: Path | None = None


def build(wanted: Build) -> Path:
    """Build it, with a line on stderr for each step.

    Returns:
        The file that was written.

    Raises:
        sdk.BuildError: A program refused its input.
        UnavailableError: This machine lacks a program or cannot fetch a part.
    """
    if not (wanted.bundle / "edge_mrl.json").is_file():
        raise sdk.BuildError(
            f"{wanted.bundle} is no bundle: it has no edge_mrl.json. Make one: edge-mrl export -o FOLDER"
        )
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        folder = Path(scratch)
        resources = _link(folder, proto=wanted.kind == "aab")
        dex = _shrink(folder, _compile(folder))
        said = f"pack for {', '.join(wanted.abis)} with {wanted.bundle.name}"
        _say(said)
        entries = [*_libraries(wanted.abis), *_assets(wanted.bundle), *_java_resources()]
        if wanted.kind == "aab":
            made = folder / "made.aab"
            write_app_bundle(made, [*_read(resources), *dex, *entries], wanted.abis)
        else:
            made = _apk(folder, [*_read(resources), *dex, *entries], wanted.key)
        signed = wanted.kind == "apk" and wanted.key is not None
        name = f"edge-mrl-demo{'' if signed else '-unsigned'}.{wanted.kind}"
        target = wanted.output or BUILD / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, target)
    return target


def module_jars() -> list[Path]:
    """The classes of core, android and app, and the numbers of the app's resources."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        folder = Path(scratch)
        _link(folder, proto=False)
        return _compile(folder)


def _link(folder: Path, *, proto: bool) -> Path:
    """Resources and manifest; beside them R.java and the rules that keep what the manifest names."""
    _say("link resources")
    merged = folder / "AndroidManifest.xml"
    merged.write_text(manifest.merged(), encoding="utf-8")
    sdk.aapt2("compile", "--dir", APP.main / "res", "-o", folder / "res.zip")
    number = versions()
    options = [
        *("--min-sdk-version", number["minSdk"], "--target-sdk-version", number["targetSdk"]),
        *("--version-code", number["appVersionCode"], "--version-name", number["appVersion"]),
        *("--java", folder / "gen", "--proguard", folder / "aapt.pro"),
        *("--auto-add-overlay", "--no-version-vectors", *(["--proto-format"] if proto else [])),
    ]
    linked = folder / "linked.apk"
    sdk.aapt2(
        "link",
        "-I",
        part("android"),
        "--manifest",
        merged,
        *options,
        "-o",
        linked,
        folder / "res.zip",
    )
    return linked


def _compile(folder: Path) -> list[Path]:
    """The jars of the modules, and that of the numbers of the resources."""
    _say("compile Kotlin")
    numbers = _numbers(folder)
    runtime = _ort_classes()
    core = core_jar()
    shared = [part("android"), part("stdlib"), runtime, core]
    android = module_jar(ANDROID, shared)
    app = module_jar(APP, [*shared, android, numbers])
    jars = [core, android, app]
    _say(f"look for APIs newer than {versions()['minSdk']}")
    newer = sdk.lint(jars)
    if newer:
        raise sdk.BuildError(
            f"Android {versions()['minSdk']} lacks what these use; guard it in a class that has "
            f"the annotation Guarded:\n{newer}"
        )
    return [*jars, numbers]


def _numbers(folder: Path) -> Path:
    """R.java compiled, under a name that says what is in it: kotlinc runs again only if it changed."""
    source = next((folder / "gen").rglob("R.java"))
    classes = folder / "r"
    classes.mkdir()
    sdk.compile_java(source, classes)
    made = folder / "r.jar"
    write_zip(
        made, [Entry(str(file.relative_to(classes)), file) for file in classes.rglob("*.class")]
    )
    target = BUILD / f"r-{sdk.digest(made)[:16]}.jar"
    made.replace(target)
    return target


def _shrink(folder: Path, jars: Sequence[Path]) -> list[Entry]:
    _say("shrink with R8")
    dex = folder / "dex"
    dex.mkdir()
    rules = [ANDROID.main.parents[1] / "consumer-rules.pro", APP.main.parents[1] / "rules.pro"]
    libraries = [part("stdlib"), _ort_classes(), part("sqlite"), part("slf4j")]
    sdk.r8([*jars, *libraries], [*rules, folder / "aapt.pro"], dex, least=versions()["minSdk"])
    return [Entry(file.name, file.read_bytes()) for file in sorted(dex.glob("*.dex"))]


def _ort_classes() -> Path:
    target = BUILD / f"onnxruntime-{versions()['onnxruntime']}.jar"
    if not target.exists():
        with zipfile.ZipFile(part("onnxruntime-android")) as archive:
            partial = target.with_suffix(".part")
            partial.write_bytes(archive.read("classes.jar"))
            partial.replace(target)
    return target


def _libraries(abis: Sequence[str]) -> list[Entry]:
    entries: list[Entry] = []
    with (
        zipfile.ZipFile(part("onnxruntime-android")) as runtime,
        zipfile.ZipFile(part("sqlite")) as sqlite,
    ):
        for abi in abis:
            entries.extend(
                Entry(f"lib/{abi}/{name}", runtime.read(f"jni/{abi}/{name}"))
                for name in ORT_LIBRARIES
            )
            source = f"org/sqlite/native/Linux-Android/{ABIS[abi]}/libsqlitejdbc.so"
            entries.append(Entry(f"lib/{abi}/libsqlitejdbc.so", sqlite.read(source)))
    return entries


def _assets(bundle: Path) -> list[Entry]:
    files = sorted(file for file in bundle.iterdir() if file.is_file())
    return [Entry(f"assets/bundle/{file.name}", file) for file in files]


def _java_resources() -> list[Entry]:
    """What core reads from its own jar, and the driver's entry in the list of JDBC drivers."""
    with zipfile.ZipFile(core_jar()) as core, zipfile.ZipFile(part("sqlite")) as sqlite:
        own = [
            Entry(name, core.read(name))
            for name in core.namelist()
            if not name.endswith((".class", "/")) and not name.startswith("META-INF/")
        ]
        needed = ["META-INF/services/java.sql.Driver", "sqlite-jdbc.properties"]
        driver = [Entry(name, sqlite.read(name)) for name in needed if name in sqlite.namelist()]
    return [*own, *driver]


def _read(archive: Path) -> list[Entry]:
    with zipfile.ZipFile(archive) as linked:
        return [Entry(name, linked.read(name)) for name in linked.namelist()]


def _apk(folder: Path, entries: Sequence[Entry], key: Path | None) -> Path:
    unsigned = folder / "unsigned.apk"
    write_zip(unsigned, entries)
    if key is None:
        return unsigned
    _say("sign and verify")
    signed = folder / "signed.apk"
    sdk.sign(unsigned, signed, key, least=versions()["minSdk"])
    return signed


def _say(step: str) -> None:
    print(f"build: {step}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what the command line asks for; 0, or 1 with a message on stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("apk", "aab"))
    parser.add_argument(
        "--bundle",
        type=Path,
        default=TINY,
        metavar="FOLDER",
        help="the bundle in the app's assets (default: the tests' own, which understands nothing)",
    )
    parser.add_argument(
        "--abi",
        action="append",
        choices=sorted(ABIS),
        help="a kind of processor; may be given again (default: arm64-v8a and x86_64)",
    )
    parser.add_argument("--unsigned", action="store_true", help="do not sign the APK")
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="sign with this PKCS#12 file; its password is in EDGE_MRL_KEY_PASSWORD "
        "(default: a debug key made here)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: in build/android"
    )
    options = parser.parse_args(arguments)
    abis = tuple(dict.fromkeys(options.abi or DEFAULT_ABIS))
    try:
        key = None if options.unsigned or options.kind == "aab" else options.key or sdk.debug_key()
        made = build(Build(options.kind, options.bundle, abis, key, options.output))
    except (sdk.BuildError, UnavailableError, OSError, subprocess.TimeoutExpired) as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    print(f"{made}  {made.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
