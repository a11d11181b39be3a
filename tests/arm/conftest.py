from __future__ import annotations

import os

import pytest

from tests.arm.testbed import Emulator, UnavailableError, open_testbed

#: Set in an environment that must test ARM: what is skipped elsewhere then fails.
REQUIRED = "EDGE_MRL_REQUIRE_ARM"
REASON = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def bed(request: pytest.FixtureRequest) -> Emulator:
    """The emulated device; built once and kept in a cache."""
    try:
        return open_testbed()
    except UnavailableError as error:
        if os.environ.get(REQUIRED):
            raise
        request.config.stash[REASON] = str(error)
        pytest.skip(f"no ARM test bed: {error}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say it loudly: a skipped test among a thousand is easily missed."""
    reason = config.stash.get(REASON, None)
    if reason is not None:
        terminalreporter.section("ARM WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason, red=True)
        terminalreporter.write_line("docs/arm.md says what the emulated device needs")
