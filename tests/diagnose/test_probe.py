"""Measuring steps in processes of their own: what they return, and how they fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.diagnose import probe
from edge_mrl.errors import BindingError, StepError
from edge_mrl.index import Index
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle

pytestmark = pytest.mark.test

#: Memory that a process is given before it starts a step, to see that it is not counted there.
BALLAST_MB = 400
JOB: dict[str, Any] = {
    "bundle": str(TINY),
    "threads": 1,
    "low_memory": False,
    "seconds": 0,
    "queries": ["a cat", "the dog"],
    "documents": ["a cat and a dog", "training", ""],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of random codes."""
    path = tmp_path_factory.mktemp("probe") / "random.db"
    probe.run_step("fill", {"bundle": str(TINY), "store": str(path), "rows": 5_000})
    return path


def test_memory_of_the_process_that_asks_is_not_counted() -> None:
    job = {"bundle": str(TINY), "threads": 1, "low_memory": False, "seconds": 0, "queries": ["it"]}
    code = (
        f"from edge_mrl.diagnose import probe\nballast = b'x' * ({BALLAST_MB} * 10**6)\n"
        f"own = probe.peak_rss()\nprint(own, probe.run_step('query', {job!r})['peak_rss'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own, measured = map(int, done.stdout.split())
    assert own > BALLAST_MB * 10**6
    assert measured < own / 2


def test_step_that_fails_says_why(tmp_path: Path) -> None:
    job = {"bundle": str(tmp_path), "threads": 1, "low_memory": False, "seconds": 0}
    with pytest.raises(Exception, match=r"no edge_mrl.json") as caught:
        probe.run_step("query", job)
    assert type(caught.value).__name__ == "MissingFileError"
    with pytest.raises(StepError, match="'nothing' failed: KeyError: 'nothing'"):
        probe.run_step("nothing", {})
    with pytest.raises(StepError, match=r"failed: .*no bundle at"):
        probe.time_first_embedding(tmp_path / "none", threads=None, low_memory=False)


def test_step_that_is_killed_says_by_what() -> None:
    assert "SIGKILL; memory may have run out" in probe._failure("query", -9, "")
    assert "SIGILL; this CPU lacks" in probe._failure("query", -4, "")


def test_process_that_says_nothing_is_named_by_its_code() -> None:
    assert probe._failure("query", 3, "") == (
        "the step 'query' failed: the process ended with code 3 and no message"
    )
    assert probe._failure("query", 1, "a\nlast line\n").endswith("failed: last line")


def test_queries_and_documents_are_measured_at_least_so_often() -> None:
    query = probe.run_step("query", JOB)
    assert len(query["ms"]) == probe.LEAST
    assert min(query["ms"]) > 0
    documents = probe.run_step("documents", JOB)
    assert len(documents["per_s"]) == 1
    assert 20_000_000 < documents["peak_rss"] < 10**9


@pytest.mark.test
def test_random_store_is_filled_and_searched(store: Path) -> None:
    found = probe.run_step("search", {**JOB, "store": str(store)})
    assert found["passages"] == 5_000
    assert len(found["vector_ms"]) == len(found["text_ms"]) == probe.LEAST
    with Index.open(store, TINY) as index:
        assert index.count().documents == 5_000
        assert index.check().sound


def test_random_codes_are_the_same_each_time(store: Path, tmp_path: Path) -> None:
    job = {"bundle": str(TINY), "store": str(tmp_path / "again.db"), "rows": 5_000}
    assert probe.run_step("fill", job)["seconds"] > 0
    codes = []
    for path in (store, tmp_path / "again.db"):
        with Index.open(path, TINY) as index, index.store.reading() as view:
            codes.append(view.codes.gather_levels(np.arange(100))[0].tobytes())
    assert codes[0] == codes[1]


def test_store_of_another_bundle_is_not_searched(store: Path) -> None:
    job = {**JOB, "bundle": str(TINY_COARSE), "store": str(store)}
    with pytest.raises(BindingError, match="made with another"):
        probe.run_step("search", job)


@pytest.mark.test
def test_check_says_whether_the_bundle_is_there(store: Path, tmp_path: Path) -> None:
    sound = probe.run_step("check", {"store": str(store), "bundle": None})
    assert (sound["problems"], sound["documents"], sound["bundle_problem"]) == ([], 5_000, None)
    job = {"store": str(store), "bundle": str(tmp_path / "none")}
    assert "no bundle at" in probe.run_step("check", job)["bundle_problem"]
    job = {"store": str(store), "bundle": str(TINY_COARSE)}
    assert "made with another code" in probe.run_step("check", job)["bundle_problem"]


def test_bundle_is_verified() -> None:
    found = probe.run_step("verify", JOB)
    assert found["passed"]
    assert found["texts"] > 10


def test_bundles_are_compared(tmp_path: Path) -> None:
    twin = copy_bundle(tmp_path / "twin")
    found = probe.run_step("compare", {**JOB, "against": str(twin)})
    assert found["min"] == pytest.approx(1, abs=1e-6)
    assert found["mean"] == pytest.approx(1, abs=1e-6)


def test_package_that_cannot_be_loaded_says_why() -> None:
    assert probe.run_step("load", {"name": "json"}) is None
    assert probe.run_step("load", {"name": "no_such"}) == "No module named 'no_such'"


def test_first_embedding_is_timed() -> None:
    assert 10 < probe.time_first_embedding(TINY, threads=1, low_memory=True) < 60_000
