"""The wheel passes its tests on every Python of this machine, and with the oldest dependencies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.support.pythons import UnreachableError, build_wheel, environments, run

pytestmark = pytest.mark.slow
NAMES = list(environments())
LIMIT_S = 500.0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str]]]:
    """All of them, side by side."""
    wheel = build_wheel(tmp_path_factory.mktemp("dist"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(run, name, wheel) for name in NAMES}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", NAMES)
def test_wheel_passes_its_tests(runs: dict[str, Future[str]], name: str) -> None:
    try:
        said = runs[name].result(LIMIT_S)
    except UnreachableError as error:
        pytest.skip(f"no network to install from: {error}")
    assert " passed" in said
    assert " failed" not in said
    assert " error" not in said
