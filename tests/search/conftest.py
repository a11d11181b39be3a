from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.store.store import Entry, Store
from tests.support.stores import BINDING, open_store

#: Of each text the passages, their codes, and full vectors that order them otherwise.
TEXTS = {
    "boat": "A boat. A ferry and a boat.",
    "ferry": "The ferry leaves at dawn.",
    "cafe": "The cafe opens.",
    "blank": "",
}
SPANS = {"boat": [(0, 7), (8, 27)], "ferry": [(0, 25)], "cafe": [(0, 15)], "blank": []}
CODES = {
    "boat": [[9, 0, 0, 0], [0, 9, 1, 0]],
    "ferry": [[0, 9, 0, 0]],
    "cafe": [[-9, 0, 0, 9]],
    "blank": [],
}
FULLS = {
    "boat": [[0, 0, 2], [0, 2, 0]],
    "ferry": [[0.6, 0.8, 0]],
    "cafe": [[0, 0, 1]],
    "blank": [],
}


def entry(name: str) -> Entry:
    codes = np.array(CODES[name], np.int8).reshape(-1, 4)
    fulls = np.array(FULLS[name], np.float32).reshape(-1, 3)
    document = Document(name, TEXTS[name], {"size": len(TEXTS[name])})
    return Entry(document, SPANS[name], codes, fulls)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Store]:
    """Four documents whose vectors are written by hand, without full vectors."""
    with open_store(tmp_path / "small.db") as store:
        store.put([entry(name) for name in TEXTS])
        yield store


@pytest.fixture
def with_fulls(tmp_path: Path) -> Iterator[Store]:
    """The same with full vectors."""
    binding = replace(BINDING, full_dim=3)
    with open_store(tmp_path / "fulls.db", binding, keep_full="fp16") as store:
        store.put([entry(name) for name in TEXTS])
        yield store
