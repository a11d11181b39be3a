"""The state of the app's screens, and the bundle's way into the app's files, on the desktop's Java."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from android_demo.tools import build, kotlin
from android_demo.tools.project import ANDROID, APP
from android_demo.tools.toolchain import LIBRARIES, UnavailableError, part, parts
from tests.android.conftest import REASON, REQUIRED
from tests.support.bundles import GOLDEN

JUNIT_TIMEOUT_S = 300
LEAST_TESTS = 32


@pytest.mark.test
def test_junit(request: pytest.FixtureRequest) -> None:
    try:
        jars = build.module_jars()
        libraries = [part("android"), part("junit"), *jars, *parts(LIBRARIES)]
        checks = kotlin.checks_jar([ANDROID, APP], libraries, friend=jars[2])
    except UnavailableError as error:
        if os.environ.get(REQUIRED):
            raise
        request.config.stash[REASON] = str(error)
        pytest.skip(f"no app here: {error}")
    # Android's own classes come last: what the screens' state uses must be on any Java.
    files = kotlin.classpath(checks, *jars, *parts(LIBRARIES), part("android"))
    options = [*kotlin.QUICKLY, f"-Dedge.bundles={GOLDEN}"]
    console = [kotlin.java(), *options, "-jar", str(part("junit")), "execute"]
    done = subprocess.run(
        [*console, "--class-path", files, "--scan-classpath", str(checks), "--disable-banner"],
        capture_output=True,
        text=True,
        timeout=JUNIT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) tests successful", done.stdout)
    assert found is not None
    assert int(found.group(1)) >= LEAST_TESTS
