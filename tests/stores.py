"""Stores of small vectors made here, and what is put into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.documents import Document
from edge_mrl.passages import PassageRule
from edge_mrl.store import Binding, Entry, Store

if TYPE_CHECKING:
    from pathlib import Path
import subprocess
import sys

DIM = 4
BINDING = Binding("space-1", "code-1", DIM, 1.0, "/bundles/one")
RULE = PassageRule(8, 2)


def open_store(path: Path, binding: Binding = BINDING, **options: Any) -> Store:
    return Store.open(path, create=lambda: (binding, RULE), **options)


def entry(
    name: str, text: str = "some text", passages: int = 1, *, fill: int = 1, **metadata: Any
) -> Entry:
    spans = [(i, len(text)) for i in range(passages)]
    return Entry(Document(name, text, metadata), spans, np.full((passages, DIM), fill, np.int8))


def live_codes(store: Store) -> list[list[int]]:
    """All codes of a store that are not deleted, by row."""
    with store.reading() as view:
        table = view.codes
        rows = np.setdiff1d(np.arange(table.rows), table.dead)
        return table.gather(rows)[0].tolist()


#: For processes that write such stores too.
PRELUDE = """
import sys, numpy as np
from edge_mrl.documents import Document
from edge_mrl.passages import PassageRule
from edge_mrl.store import Binding, Entry, Store
def create():
    return Binding("space-1", "code-1", 4, 1.0, "/bundles/one"), PassageRule(8, 2)
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
