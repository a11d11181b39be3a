from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from android_demo.tools import toolchain
from android_demo.tools.kotlin import ROOT, classpath, core_jar, java, probe_jar
from android_demo.tools.toolchain import LIBRARIES, parts
from tests.android.probe import KotlinError, Probe

CATALOG = ROOT / "android_demo" / "gradle" / "libs.versions.toml"
JUNIT_TIMEOUT_S = 300


def test_pins_have_the_versions_of_the_catalog() -> None:
    catalog = tomllib.loads(CATALOG.read_text(encoding="utf-8"))
    versions = {
        library["module"]: catalog["versions"][library["version"]["ref"]]
        for library in catalog["libraries"].values()
    }
    pinned = tomllib.loads(toolchain.PINS.read_text(encoding="utf-8"))
    shared = 0
    for pin in pinned.values():
        module, _, version = pin["artifact"].rpartition(":")
        if module in versions:
            shared += 1
            assert version == versions[module], module
    assert shared >= len(LIBRARIES)


@pytest.mark.test
@pytest.mark.usefixtures("toolchain")
def test_another_file_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    changed = toolchain.PINS.read_text(encoding="utf-8").replace("ace2a10d", "ace2a10e")
    pins = tmp_path / "pins.toml"
    pins.write_text(changed, encoding="utf-8")
    monkeypatch.setattr(toolchain, "PINS", pins)
    with pytest.raises(ValueError, match=r"annotations-13.*expects ace2a10e"):
        toolchain.part("annotations")
    assert not list(tmp_path.rglob("*.jar"))


@pytest.mark.test
@pytest.mark.usefixtures("toolchain")
def test_junit() -> None:
    files = classpath(core_jar(), probe_jar(), *parts(LIBRARIES))
    console = [java(), "-jar", str(toolchain.part("junit")), "execute", "--class-path", files]
    done = subprocess.run(
        [*console, "--scan-classpath", str(probe_jar()), "--fail-if-no-tests", "--disable-banner"],
        capture_output=True,
        text=True,
        timeout=JUNIT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.test
def test_the_probe_answers_and_reports_what_is_thrown(kotlin: Probe) -> None:
    assert kotlin("echo", value=["é😀", 1.5, None]) == ["é😀", 1.5, None]
    with pytest.raises(KotlinError, match="no command nothing"):
        kotlin("nothing")
