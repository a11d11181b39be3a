"""A file's time of change is kept, and is no change of its document."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.documents import Document
from tests.support.stores import full_entry, open_enrolled

pytestmark = pytest.mark.test

FACTS = {"path": "a.md", "folder": "", "title": "A", "mtime": "2026-01-01T00:00:00Z"}
LATER = {**FACTS, "mtime": "2026-02-02T00:00:00Z"}


def put_again(path: Path, name: str, source: str | None, after: dict[str, Any]) -> tuple[bool, Any]:
    """Put a document with FACTS, then with other metadata: whether it is sent again, and its metadata."""
    with open_enrolled(path, with_text=True) as store:
        document = Document(name, "some text", FACTS, source)
        store.put([replace(full_entry(name), document=document)])
        query = "SELECT stamp, metadata FROM versions JOIN documents USING (id)"
        with sqlite3.connect(path) as connection:
            (before,) = connection.execute(query).fetchall()
        assert store.put([], unchanged=[replace(document, metadata=after)]) == []
        with sqlite3.connect(path) as connection:
            (now,) = connection.execute(query).fetchall()
        (kept,) = store.get([name]).values()
        return before[0] != now[0], kept.metadata


def test_a_time_alone_is_neither_written_nor_sent(tmp_path: Path) -> None:
    assert put_again(tmp_path / "s.db", "n/a.md", "n/a.md", LATER) == (False, FACTS)


@pytest.mark.parametrize(
    ("source", "after"),
    [
        ("n/a.md", {**LATER, "tags": ["tea"]}),
        ("n/a.md", {key: value for key, value in LATER.items() if key != "title"}),
        ("n/lines.jsonl", LATER),  # a line's own value
        (None, LATER),
    ],
)
def test_any_other_change_is_one(source: str | None, after: dict[str, Any], tmp_path: Path) -> None:
    assert put_again(tmp_path / "s.db", "n/a.md", source, after) == (True, after)
