from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edge_mrl.codes import Packing
from edge_mrl.store import Store, check
from tests.android.probe import Probe
from tests.android.stores import DIM, KotlinStore, batch, binding_of, python_store

pytestmark = pytest.mark.test

ROUNDS = 6
MAKINGS = 12


def test_both_write_one_store_at_once(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"
    with python_store(path, binding_of(Packing("int4", 3.5), DIM)) as python:
        theirs = KotlinStore(kotlin, path)
        theirs("open")

        def write() -> None:
            for number in range(ROUNDS):
                theirs.put(batch(2 * number, DIM))
                theirs("delete", ids=[f"b{2 * number}-{place}" for place in range(10)])

        thread = threading.Thread(target=write)
        thread.start()
        for number in range(ROUNDS):
            python.put(batch(2 * number + 1, DIM))
            with python.reading() as view:
                assert view.codes.repaired == 0
        thread.join()
        wanted = 2 * ROUNDS * 320 - 10 * ROUNDS
        assert python.count().documents == theirs("count")[0] == wanted
        assert check(python).sound
        assert theirs("check")["problems"] == []
        theirs("close")


def test_of_two_that_make_a_store_at_once_one_makes_it(tmp_path: Path, kotlin: Probe) -> None:
    binding = binding_of(Packing(), DIM)
    for number in range(MAKINGS):
        path = tmp_path / f"s{number}.db"
        theirs = KotlinStore(kotlin, path)
        ready = threading.Barrier(2)

        def make(ready: threading.Barrier = ready, theirs: KotlinStore = theirs) -> None:
            ready.wait()
            theirs.create(binding)
            theirs.put(batch(1, DIM)[:3])

        thread = threading.Thread(target=make)
        thread.start()
        ready.wait()
        with python_store(path, binding) as python:
            python.put(batch(2, DIM)[:2])
        thread.join()
        theirs("close")
        with Store.open(path) as python:
            assert python.count().documents == 5
        assert not list(tmp_path.glob(".s*"))
