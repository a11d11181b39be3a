"""The app's real screens on Android's own framework, by Robolectric: every screen in four looks.

Robolectric needs classes of androidx.test, which are on Google's repository alone: stubs/ has them.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from android_demo.tools import build, kotlin, manifest
from android_demo.tools.project import versions
from android_demo.tools.toolchain import LIBRARIES, UnavailableError, part, parts, pinned
from tests.android.conftest import REASON, REQUIRED
from tests.support.serving import Serving, invitations, serving

HERE = Path(__file__).parent / "screens"
JUNIT_TIMEOUT_S = 900
SCREENS = ("list", "search", "note", "import", "join", "sync", "verify", "settings")
#: Tests that join a server: each look, and those of the job.
PHONES = 9
LOOKS = ("light", "dark", "large", "rtl")
#: 360 x 640 dp with two pixels each.
SIZE = (720, 1280)


def _settings(folder: Path, apk: Path) -> Path:
    """What Gradle would tell Robolectric: the manifest, and the archive with resources and assets."""
    least, target_sdk = versions()["minSdk"], versions()["targetSdk"]
    needed = f'<uses-sdk android:minSdkVersion="{least}" android:targetSdkVersion="{target_sdk}"/>'
    merged = folder / "AndroidManifest.xml"
    merged.write_text(
        manifest.merged().replace("<application", f"{needed}<application", 1), encoding="utf-8"
    )
    target = folder / "settings" / "com" / "android" / "tools" / "test_config.properties"
    target.parent.mkdir(parents=True)
    target.write_text(
        f"android_merged_manifest={merged}\n"
        f"android_resource_apk={apk}\n"
        "android_custom_package=org.edgemrl.demo\n"
    )
    return folder / "settings"


def _compile(folder: Path, files: str) -> Path:
    classes = folder / "classes"
    javac = shutil.which("javac")
    if javac is None:
        raise UnavailableError("no javac here")
    sources = sorted(map(str, HERE.rglob("*.java")))
    command = [javac, "-nowarn", "-encoding", "UTF-8", "-d", str(classes), "-cp", files, *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return classes


def _run(folder: Path, apk: Path, server: Serving) -> subprocess.CompletedProcess[str]:
    framework = folder / "framework"
    framework.mkdir()
    name = "android-all-instrumented-15-robolectric-13954326-i7.jar"
    (framework / name).symlink_to(part("framework"))
    native = folder / "native"
    native.mkdir()
    with zipfile.ZipFile(part("sqlite")) as archive:
        source = "org/sqlite/native/Linux/x86_64/libsqlitejdbc.so"
        (native / "libsqlitejdbc.so").write_bytes(archive.read(source))
    robolectric = [*parts(pinned("screens-")), part("asm")]
    # The plain classes of Android come last: Robolectric takes its own.
    files = [*build.module_jars(), *parts(LIBRARIES), *robolectric, part("android")]
    classes = _compile(folder, kotlin.classpath(*files))
    opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "util")]
    return subprocess.run(
        [
            *(kotlin.java(), *kotlin.QUICKLY, "-Xmx2g", *opened),
            *("-Drobolectric.offline=true", f"-Drobolectric.dependency.dir={framework}"),
            *(f"-Dedge.screens={folder / 'out'}", f"-Djava.library.path={native}"),
            *(f"-Dedge.server={server.url}", f"-Dedge.invitations={_invitations(server)}"),
            *("-cp", kotlin.classpath(classes, _settings(folder, apk), *files)),
            *("org.junit.runner.JUnitCore", "org.edgemrl.demo.ScreensTest"),
        ],
        capture_output=True,
        text=True,
        timeout=JUNIT_TIMEOUT_S,
        check=False,
    )


def _invitations(server: Serving) -> str:
    """Invitations, each to a tenant of its own."""
    found = []
    for _ in range(PHONES):
        with invitations(server) as invite:
            found.append(invite())
    return ",".join(found)


def _size(picture: Path) -> tuple[int, int]:
    """The size that a PNG's header names."""
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.nightly
def test_every_screen_in_every_look(
    unsigned: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    try:
        with serving(tmp_path / "server.db") as server:
            done = _run(tmp_path, unsigned, server)
    except UnavailableError as error:
        if os.environ.get(REQUIRED):
            raise
        request.config.stash[REASON] = str(error)
        pytest.skip(f"no Robolectric here: {error}")
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = {file.stem: file for file in (tmp_path / "out").glob("*.png")}
    assert set(pictures) == {f"{screen}-{look}" for screen in SCREENS for look in LOOKS}
    for file in pictures.values():
        assert _size(file) == SIZE
    # No two looks of a screen are the same picture: each changed something.
    for screen in SCREENS:
        assert len({pictures[f"{screen}-{look}"].read_bytes() for look in LOOKS}) == len(LOOKS)
    shown = kotlin.BUILD / "screens"
    shutil.rmtree(shown, ignore_errors=True)
    shutil.copytree(tmp_path / "out", shown)
