"""Stores of small vectors made here, and what is put into them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.codes.packing import INT8, Packing, int4_step
from edge_mrl.documents import Document, PassageRule
from edge_mrl.store import Binding, Entry, Store, replica
from edge_mrl.store.codefile import cache as codecache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray

DIM = 4
BINDING = Binding("space-1", "code-1", DIM, 1.0, "/bundles/one")
RULE = PassageRule(8, 2)


def open_store(path: Path, binding: Binding = BINDING, **options: Any) -> Store:
    return Store.create(path, binding, RULE, **options)


def entry(
    name: str, text: str = "some text", passages: int = 1, *, fill: int = 1, **metadata: Any
) -> Entry:
    spans = [(i, len(text)) for i in range(passages)]
    return Entry(Document(name, text, metadata), spans, np.full((passages, DIM), fill, np.int8))


#: Dimensions of the full vectors of stores that are enrolled.
FULL_DIM = 8
ENROLLMENT = replica.Enrollment("https://search.example.org", "team", "mine")


def open_enrolled(path: Path, **changes: Any) -> Store:
    """Make a store that keeps full vectors until they are sent, and is enrolled; or open it again."""
    binding = replace(BINDING, full_dim=FULL_DIM)
    store = Store.create(path, binding, RULE, keep_full="until-synced")
    if replica.enrollment_of(store) is None:
        replica.enroll(store, replace(ENROLLMENT, **changes), full_dim=FULL_DIM)
    return store


def full_entry(name: str, text: str = "some text", passages: int = 1, **options: Any) -> Entry:
    """An entry with full vectors, for stores that keep them."""
    full = np.full((passages, FULL_DIM), 0.5, np.float32)
    return replace(entry(name, text, passages, **options), full=full)


#: What stores may keep of codes; tests that depend on it run for each.
PACKINGS = ("int8", "int4", "2bit", "2bit around a centre", "1bit", "1bit around a centre")


def packing(name: str, dim: int) -> Packing:
    """One of PACKINGS, with values like those of real bundles."""
    centre = tuple(int(c) for c in np.random.default_rng(1).integers(-6, 7, dim))
    return {
        "int8": INT8,
        "int4": Packing("int4", int4_step(dim)),
        "2bit": Packing("2bit", 5.0),
        "2bit around a centre": Packing("2bit", 5.0, centre),
        "1bit": Packing("1bit"),
        "1bit around a centre": Packing("1bit", 9.0, centre),
    }[name]


def levels(codes: NDArray[np.int8], kept: Packing) -> NDArray[np.int8]:
    """int8[n, dim]: what is left of codes in a store."""
    return kept.unpack(kept.pack(codes), codes.shape[1])


def vectors(number: int, dim: int = 64, seed: int = 0) -> NDArray[np.int8]:
    """int8[number, dim]: codes like those of text, in clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, number // 40), dim))
    rows = centres[rng.integers(0, len(centres), number)] + 0.6 * rng.normal(size=(number, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.rint(rows * 127).astype(np.int8)


def fill(store: Store, codes: NDArray[np.int8], *, start: int = 0, batch: int = 500) -> None:
    """Put one document a code; ids are numbers."""
    for first in range(0, len(codes), batch):
        some = range(first, min(first + batch, len(codes)))
        store.put(
            [
                Entry(
                    Document(str(start + i), f"text {start + i}", {"n": start + i}),
                    [(0, 4)],
                    codes[i : i + 1],
                )
                for i in some
            ]
        )


@contextmanager
def small_segments(
    monkeypatch: pytest.MonkeyPatch, *, rows: int = 128, stage: int = 64
) -> Iterator[None]:
    """Make code files of small segments, early, so that little data shows all there is."""
    with monkeypatch.context() as patch:
        patch.setattr(codecache, "SEGMENT_ROWS", rows)
        patch.setattr(codecache, "STAGE_ROWS", stage)
        yield


def live_codes(store: Store) -> list[list[int]]:
    """All codes of a store that are not deleted, by row."""
    with store.reading() as view:
        table = view.codes
        rows = np.setdiff1d(np.arange(table.rows), table.dead)
        return table.gather_levels(rows)[0].tolist()


#: For processes that write such stores too.
PRELUDE = """
import sys, numpy as np
from edge_mrl.documents import Document, PassageRule
from edge_mrl.store import Binding, Entry, Store
def create(path):
    return Store.create(path, Binding("space-1", "code-1", 4, 1.0, "/bundles/one"), PassageRule(8, 2))
def entry(name, passages=1):
    return Entry(Document(name, name), [(0, 1)] * passages, np.ones((passages, 4), np.int8))
"""


def start_python(code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_python(code: str) -> str:
    with start_python(code) as process:
        output = process.communicate()[0]
    assert process.returncode == 0
    return output
