"""The state of the app's screens, and the bundle's way into the app's files, on the desktop's Java."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from android_demo.tools import build, kotlin
from android_demo.tools.project import ANDROID, APP
from android_demo.tools.toolchain import LIBRARIES, UnavailableError, part, parts
from tests.android.conftest import REASON, REQUIRED
from tests.support.bundles import GOLDEN
from tests.support.serving import Serving, invitations, serving

JUNIT_TIMEOUT_S = 300
LEAST_TESTS = 42
#: How many tests join phones to a server, each to a tenant of its own, and how many phones at most.
TENANTS, PHONES = 10, 3


def _invitations(server: Serving) -> str:
    """Invitations of each tenant, as the tests take them."""
    tenants = []
    for _ in range(TENANTS):
        with invitations(server) as invite:
            tenants.append(",".join(invite() for _ in range(PHONES)))
    return ";".join(tenants)


@pytest.mark.test
def test_junit(request: pytest.FixtureRequest, tmp_path: Path) -> None:
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
    with serving(tmp_path / "server.db") as server:
        invited = _invitations(server)
        options = [f"-Dedge.bundles={GOLDEN}", f"-Dedge.server={server.url}"]
        options = [*kotlin.QUICKLY, *options, f"-Dedge.invitations={invited}"]
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
