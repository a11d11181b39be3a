from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from android_demo.tools.toolchain import UnavailableError
from tests.android.probe import Probe

#: Set in an environment that must test the Kotlin core: what is skipped elsewhere then fails.
REQUIRED = "EDGE_MRL_REQUIRE_ANDROID"
REASON = pytest.StashKey[str]()
#: One kind of processor is enough for tests; `make android` builds for both.
ABIS = ("arm64-v8a",)


@pytest.fixture(scope="session")
def toolchain(request: pytest.FixtureRequest) -> None:
    """The jars of core and of its tests, built once."""
    from android_demo.tools.kotlin import core_jar, probe_jar

    try:
        core_jar()
        probe_jar()
    except UnavailableError as error:
        if os.environ.get(REQUIRED):
            raise
        request.config.stash[REASON] = str(error)
        pytest.skip(f"no Kotlin here: {error}")


@pytest.fixture(scope="module")
def kotlin(toolchain: None) -> Iterator[Probe]:
    """The core in Kotlin, in a process of its own."""
    with Probe() as probe:
        yield probe


@pytest.fixture(scope="session")
def unsigned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An APK with the tests' own bundle."""
    target = tmp_path_factory.mktemp("apk") / "unsigned.apk"
    from android_demo.tools import build

    try:
        return build.build(build.Build("apk", build.TINY, ABIS, None, target))
    except UnavailableError as error:
        if os.environ.get(REQUIRED):
            raise
        request.config.stash[REASON] = str(error)
        pytest.skip(f"no APK here: {error}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say it loudly: a skipped test among a thousand is easily missed."""
    reason = config.stash.get(REASON, None)
    if reason is not None:
        terminalreporter.section("THE KOTLIN CORE WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason, red=True)
