"""One operation on a store, timed in a process of its own: see ``bench.growth.device``.

It is run by its path, with the tree whose code is measured first on Python's path. So it uses only what
that tree and this one have, and nothing else of ``bench``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_mrl.documents import Document, PassageRule
from edge_mrl.search import Mode, QueryVectors, SearchOptions, answer
from edge_mrl.store import Binding, Entry, Store, replica

DIM, FULL_DIM = 128, 8
BINDING = Binding("s" * 64, "c" * 64, DIM, 1.0, "bench", FULL_DIM)
RULE = PassageRule(200, 0)
#: Calls that are timed, as far as they fit into so many seconds; the first one is not.
CALLS, SECONDS = 9, 20.0
PUT = 2048
#: Words with the share of the documents that have them, and how many rare words there are.
SHARES = {"the": 0.6, "of": 0.5, "is": 0.35, "what": 0.05, "capital": 0.003, "france": 0.001}
RARE, RARE_WORDS = 50_000, 8
QUESTION = "what is the capital of france"
HALF: Mapping[str, object] = {"even": True}


def build(folder: Path, rows: int) -> None:
    """Make the stores: one to search, one whose documents wait to be sent, one with a long document."""
    with _store(folder / "search.db") as store:
        _fill(store, rows)
    queue = Store.create(folder / "queue.db", BINDING, RULE, keep_full="until-synced")
    with queue as store:
        enrolled = replica.Enrollment("https://search.example.org", "team", "mine")
        replica.enroll(store, enrolled, full_dim=FULL_DIM)
        _fill(store, rows, full=True)
    with _store(folder / "long.db") as store:
        passages = max(rows // 5, 1)
        line = "some words in a line\n"
        spans = [(len(line) * i, len(line) * (i + 1)) for i in range(passages)]
        codes = _codes(passages, 7)
        store.put([Entry(Document("long", line * passages), spans, codes)])
        _fill(store, 100)


def _store(path: Path) -> Store:
    return Store.create(path, BINDING, RULE)


def _codes(rows: int, seed: int) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-90, 91, (rows, DIM)).astype(np.int8)


def _fill(store: Store, rows: int, *, full: bool = False) -> None:
    chance = np.random.default_rng(0)
    words, shares = list(SHARES), np.array(list(SHARES.values()))
    for first in range(0, rows, PUT):
        number = min(PUT, rows - first)
        has = chance.random((number, len(words))) < shares
        rare = chance.integers(0, RARE, (number, RARE_WORDS))
        codes = _codes(number, first + 1)
        vectors = np.full((1, FULL_DIM), 0.5, np.float32) if full else None
        entries = []
        for i in range(number):
            text = [word for word, there in zip(words, has[i], strict=True) if there]
            text += [f"w{word}" for word in rare[i]]
            metadata = {"even": (first + i) % 2 == 0, "n": first + i}
            document = Document(str(first + i), " ".join(text), metadata)
            entries.append(Entry(document, [(0, len(document.text))], codes[i : i + 1], vectors))
        store.put(entries)


def _ask(store: Store, mode: Mode, where: Mapping[str, object] | None) -> Callable[[int], object]:
    def ask(call: int) -> None:
        vectors = QueryVectors(_codes(1, 1_000_000 + call)[0], None)
        options = SearchOptions(k=10, mode=mode, filter=where)
        with store.reading() as view:
            answer(view, [QUESTION], [vectors], options)

    return ask


def _hit_in_long(store: Store, rows: int) -> Callable[[int], object]:
    query = QueryVectors(_codes(max(rows // 5, 1), 7)[rows // 10], None)

    def ask(_: int) -> None:
        with store.reading() as view:
            found = answer(view, ["words"], [query], SearchOptions(k=10))
        assert found[0][0].id == "long"

    return ask


def _put(store: Store, call: int, *, full: bool) -> None:
    vectors = np.full((1, FULL_DIM), 0.5, np.float32) if full else None
    store.put(
        [Entry(Document(f"new {call}", f"a text {call}"), [(0, 6)], _codes(1, call), vectors)]
    )


def _after_commit(store: Store) -> Callable[[int], object]:
    ask = _ask(store, "vector", None)

    def both(call: int) -> None:
        _put(store, call, full=False)
        ask(call)

    return both


#: Name: the store, and what makes the operation of it.
OPERATIONS: dict[str, tuple[str, Callable[[Store, int], Callable[[int], object]]]] = {
    "vector": ("search.db", lambda store, _: _ask(store, "vector", None)),
    "vector, half of the documents": ("search.db", lambda store, _: _ask(store, "vector", HALF)),
    "keyword, a question": ("search.db", lambda store, _: _ask(store, "keyword", None)),
    "keyword, half of the documents": ("search.db", lambda store, _: _ask(store, "keyword", HALF)),
    "hybrid, a question": ("search.db", lambda store, _: _ask(store, "hybrid", None)),
    "hybrid, half of the documents": ("search.db", lambda store, _: _ask(store, "hybrid", HALF)),
    "count": ("search.db", lambda store, _: lambda _: store.count()),
    "put and search": ("search.db", lambda store, _: _after_commit(store)),
    "put, all others waiting to be sent": (
        "queue.db",
        lambda store, _: lambda call: _put(store, call, full=True),
    ),
    "hit in a document of a fifth": ("long.db", _hit_in_long),
}


def main() -> None:
    """Build, or time one operation and print its median in milliseconds."""
    what, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if what == "build":
        build(folder, rows)
        return
    name, make = OPERATIONS[what]
    with Store.open(folder / name) as store:
        call = make(store, rows)
        call(0)
        started = time.perf_counter()
        times: list[float] = []
        while len(times) < CALLS and (not times or time.perf_counter() - started < SECONDS):
            before = time.perf_counter()
            call(1 + len(times))
            times.append((time.perf_counter() - before) * 1e3)
    print(json.dumps(round(statistics.median(times), 3)))


if __name__ == "__main__":
    main()
