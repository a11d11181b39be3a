"""The wheel passes its tests on every Python of this machine, and with the oldest dependencies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.support.pythons import (
    OLDEST,
    PROJECT,
    UnreachableError,
    build_wheel,
    environments,
    pinned,
    run,
)

NAMES = list(environments())
LIMIT_S = 500.0


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, bool], Future[str]]]:
    """All that are asked for, side by side."""
    wheel = build_wheel(tmp_path_factory.mktemp("dist"))
    items = [item for item in request.session.items if is_of_wheel(item)]
    asked = {(item.callspec.params["name"], item.callspec.params["whole"]) for item in items}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {one: pool.submit(run, one[0], wheel, whole=one[1]) for one in asked}
        pool.shutdown(cancel_futures=True)


def is_of_wheel(item: object) -> bool:
    """Whether it is one of the tests below."""
    return isinstance(item, pytest.Function) and item.originalname == "test_wheel_passes_its_tests"


def test_lowest_versions_are_those_that_the_package_asks_for() -> None:
    lowest = pinned("lowest")
    asked = dict(requirement.split(">=") for requirement in PROJECT["dependencies"])
    assert lowest.keys() == asked.keys()
    assert all(lowest[name].startswith(f"{least}.") for name, least in asked.items())


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        pytest.param(OLDEST, False, marks=pytest.mark.test),
        *(pytest.param(name, True, marks=pytest.mark.nightly) for name in NAMES),
    ],
)
def test_wheel_passes_its_tests(
    runs: dict[tuple[str, bool], Future[str]], name: str, whole: bool
) -> None:
    try:
        said = runs[name, whole].result(LIMIT_S)
    except UnreachableError as error:
        pytest.skip(f"no network to install from: {error}")
    assert " passed" in said
    assert " failed" not in said
    assert " error" not in said
