"""Make ``store-6.db`` anew: ``python -m tests.golden.make_store`` from the repository.

``store-1.db`` and ``store-2.db`` hold the same documents and were written by the first two versions
of the store, ``store-3.db`` by the one with the migrations to 0004: they cannot be made any more.
``store-4.db`` has the migrations to 0005, ``store-5.db`` those to 0009, ``store-6.db`` those to 0010,
with its checksums listed in ``store-6.json`` for readers in other languages; from ``store-3.db`` on they
are enrolled, and have a queue. All are committed so that later versions are tested against them: once
released, a store is never made again, only joined by the next version's.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_mrl.documents import Document, PassageRule
from edge_mrl.store import Binding, Entry, Store, replica
from edge_mrl.store.replica.outbox import Enrollment
from edge_mrl.store.replica.queue import Verdict

STORES = [Path(__file__).parent / f"store-{version}.db" for version in (1, 2, 3, 4, 5, 6)]
ENROLLED = STORES[2:]
NEWEST = STORES[-1]
BINDING = Binding("5" * 64, "c" * 64, 4, 1.0, "/bundles/tiny")
RULE = PassageRule(max_tokens=8, overlap=1)
DOCUMENTS = [
    Document("a", "the cat and a dog", {"lang": "en"}),
    Document("caf\u00e9", "\u732b \U0001f408 NUL \x00 end"),
    Document("blank", "  "),
]
SPANS = [[(0, 10), (8, 17)], [(0, 12)], []]
CODES = np.array([[1, -127, 0, 127], [2, 2, 2, 2], [-3, 0, 0, 5]], np.int8)
#: Full vectors of the same passages, float32[3, 4].
FULLS = np.array([[0.6, -0.8, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 0, 0.28, 0.96]], np.float32)
FULL_DIM = 4
ENROLLMENT = Enrollment("https://search.example.org", "team", "device", cursor=7)


def binding(store: Path) -> Binding:
    """The binding that one of the stores has."""
    return replace(BINDING, full_dim=FULL_DIM) if store in ENROLLED else BINDING


def main() -> None:
    NEWEST.unlink(missing_ok=True)
    with Store.create(NEWEST, BINDING, RULE) as store:
        replica.enroll(store, ENROLLMENT, full_dim=FULL_DIM)
        places = [2, 3]
        rows = zip(DOCUMENTS, SPANS, np.split(CODES, places), np.split(FULLS, places), strict=True)
        store.put([Entry(document, spans, codes, full) for document, spans, codes, full in rows])
        # "a" was sent without an answer; "blank" is there; "gone" was, and its deletion waits.
        replica.begin_push(store, 1, ["a"])
        store.put([_empty("gone"), _empty("refused")])
        _judge(store, blank="applied", gone="applied")
        store.delete(["gone", "refused"])
        _judge(store, refused="forbidden")
    text = json.dumps(checksums(NEWEST), indent=1, sort_keys=True, ensure_ascii=False)
    NEWEST.with_suffix(".json").write_text(f"{text}\n", "utf-8")


def checksums(path: Path) -> dict[str, dict[str, int]]:
    """All checksums in a store's columns ``crc``, by table and key."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    found: dict[str, dict[str, int]] = {}
    schema = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%crc INTEGER%'"
    for (table,) in connection.execute(schema).fetchall():
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        (key,) = (column[1] for column in columns if column[5])
        rows = connection.execute(f"SELECT {key}, crc FROM {table}")
        found[table] = {str(name): crc for name, crc in rows}
    connection.close()
    return {table: rows for table, rows in found.items() if rows}


def _empty(name: str) -> Entry:
    return Entry(Document(name, ""), [], CODES[:0], FULLS[:0])


def _judge(store: Store, **statuses: str) -> None:
    """Take over what a server said of some documents that wait."""
    waiting = {one.id: one.stamp for one in replica.outgoing(store, limit=99)}
    verdicts = [Verdict(name, waiting[name], status) for name, status in statuses.items()]
    replica.acknowledge(store, verdicts, offset_ms=0)


if __name__ == "__main__":
    main()
