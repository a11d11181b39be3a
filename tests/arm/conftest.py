from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Starts processes side by side: emulation is slow, and each uses little more than a core."""
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as executor:
        yield executor
        executor.shutdown(cancel_futures=True)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say it loudly: a skipped test among a thousand is easily missed."""
    reason = config.stash.get(REASON, None)
    if reason is not None:
        terminalreporter.section("ARM WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason, red=True)
        terminalreporter.write_line("docs/arm.md says what the emulated device needs")
