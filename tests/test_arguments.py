"""Odd arguments of an index's methods are usage errors, never errors of what is below."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.arguments import check_number, check_whole
from edge_mrl.cli import main
from edge_mrl.documents import Document
from edge_mrl.errors import EdgeMrlError, UsageError
from edge_mrl.index import Index
from edge_mrl.search import Funnel, SearchOptions, Stage

BUNDLE = Path(__file__).parent / "golden" / "tiny-bert-16"
DEEP: dict[str, Any] = {"$eq": 1}
for _ in range(2_000):
    DEEP = {"$not": DEEP}
ENDLESS: dict[str, Any] = {}
ENDLESS["a"] = ENDLESS
ODD: list[Any] = [
    None, 1.5, True, -1, 0, 2**63, 10**30, 10**5_000, -(10**400), float("nan"), float("inf"), 3j,
    Decimal(1), np.float32(2), np.int64(-3), np.array([1, 2]), np.array(["a"]),
    b"bytes", "text", "bad\udcff", "high\ud800", "a\0b", "", "\U0010ffff" * 9, "word " * 2_000,
    [], [1], [None], ["bad\udcff"], [""], [b"a"], [[]], (), {"a"}, range(3), iter([1]),
    {}, {"a": 10**400}, {"a": b"b"}, {"bad\udcff": 1}, {"a": "bad\udcff"}, {1: 2}, {"a": {"$in": 3}},
    {"a": {"$in": b"ab"}}, {"a": {10**5_000: 1}}, {"$and": b"ab"}, {"a": DEEP}, {"$or": [ENDLESS]},
    ENDLESS, {"a": {"$gt": True}}, {"a": {"$in": [float("nan")]}}, object(), Path("b"),
]  # fmt: skip
#: Every public method that takes arguments, and each of its arguments.
METHODS: dict[str, Callable[[Index, Any], object]] = {
    "open path": lambda _, odd: Index.open(odd),
    "open bundle": lambda index, odd: closed(Index.open(index.path, odd)),
    "open max_tokens": lambda index, odd: closed(Index.open(index.path, max_tokens=odd)),
    "open overlap": lambda index, odd: closed(Index.open(index.path, overlap=odd)),
    "open keep_full": lambda index, odd: closed(Index.open(index.path, keep_full=odd)),
    "open key": lambda index, odd: closed(Index.open(index.path, key=odd)),
    "open threads": lambda index, odd: closed(Index.open(index.path, threads=odd)),
    "open low_memory": lambda index, odd: closed(Index.open(index.path, low_memory=odd)),
    "open trust": lambda index, odd: closed(Index.open(index.path, trust=odd)),
    "create max_tokens": lambda index, odd: made(index, max_tokens=odd),
    "create overlap": lambda index, odd: made(index, overlap=odd),
    "create keep_full": lambda index, odd: made(index, keep_full=odd),
    "create key": lambda index, odd: made(index, key=odd),
    "get": lambda index, odd: index.get(odd),
    "get one": lambda index, odd: index.get([odd]),
    "delete": lambda index, odd: index.delete(odd),
    "delete one": lambda index, odd: index.delete([odd]),
    "put": lambda index, odd: index.put(odd),
    "put one": lambda index, odd: index.put([odd]),
    "put metadata": lambda index, odd: index.put([Document("b", "b", odd)]),
    "put value": lambda index, odd: index.put([Document("b", "b", {"a": odd})]),
    "put source": lambda index, odd: index.put([Document("b", "b", {}, odd)]),
    "put committed": lambda index, odd: index.put([], committed=odd),
    "put advance": lambda index, odd: index.put([], advance=odd),
    "put on_error": lambda index, odd: index.put([], on_error=odd),
    "search": lambda index, odd: index.search(odd),
    "search words": lambda index, odd: index.search(odd, mode="keyword"),
    "search both": lambda index, odd: index.search(odd, mode="hybrid"),
    "k": lambda index, odd: index.search("a", odd),
    "k of options": lambda index, odd: index.search("a", options=SearchOptions(k=odd)),
    "options": lambda index, odd: index.search("a", options=odd),
    "filter": lambda index, odd: index.search("a", filter=odd),
    "filter value": lambda index, odd: index.search("a", filter={"n": odd}),
    "filter operator": lambda index, odd: index.search("a", filter={"n": {"$gte": odd}}),
    "filter list": lambda index, odd: index.search("a", filter={"n": {"$in": odd}}),
    "filter item": lambda index, odd: index.search("a", filter={"n": {"$in": [odd]}}),
    "filter parts": lambda index, odd: index.search("a", filter={"$or": odd}),
    "filter exists": lambda index, odd: index.search("a", filter={"n": {"$exists": odd}}),
    "mode": lambda index, odd: index.search("a", mode=odd),
    "exact": lambda index, odd: index.search("a", exact=odd),
    "width": lambda index, odd: index.search("a", width=odd),
    "stages": lambda index, odd: index.search("a", stages=odd),
    "rerank": lambda index, odd: index.search("a", rerank=odd),
    "deadline_ms": lambda index, odd: index.search("a", rerank="auto", deadline_ms=odd),
    "search_many": lambda index, odd: index.search_many(odd),
    "search_many one": lambda index, odd: index.search_many([odd]),
    "search_many words": lambda index, odd: index.search_many([odd], mode="keyword"),
    "search_many k": lambda index, odd: index.search_many([], k=odd),
    "tune": lambda index, odd: index.tune(odd),
    "funnel": lambda _, odd: Funnel(odd),
    "funnel stage": lambda _, odd: Funnel((odd,)),
    "stage dims": lambda _, odd: Funnel((Stage(odd, 8),)),
    "stage bits": lambda _, odd: Funnel((Stage(16, odd),)),
    "stage width": lambda _, odd: Funnel((Stage(16, 8, odd),)),
    "select": lambda index, odd: index.select(odd),
    "check repair": lambda index, odd: index.check(repair=odd),
    "check advance": lambda index, odd: index.check(advance=odd),
    "reindex": lambda index, odd: index.reindex(odd),
    "reindex max_tokens": lambda index, odd: index.reindex(BUNDLE, max_tokens=odd),
    "reindex overlap": lambda index, odd: index.reindex(BUNDLE, overlap=odd),
    "reindex progress": lambda index, odd: index.reindex(BUNDLE, progress=odd),
    "reindex tally": lambda index, odd: index.reindex(BUNDLE, tally=odd),
    "reindex again": lambda index, odd: index.reindex(BUNDLE, again=odd),
    "reindex offline": lambda index, odd: index.reindex(BUNDLE, offline=odd),
    "reindex refused": lambda index, odd: index.reindex(BUNDLE, refused=odd),
}  # fmt: skip
#: A string where a list of strings is meant: a TypeError that says so.
LISTS = ("get", "delete", "search_many")


def closed(index: Index) -> None:
    index.close()


def made(index: Index, **options: Any) -> None:
    new = index.path.with_name("new.db")
    try:
        Index.open(new, BUNDLE, **options).close()
    finally:
        new.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Index.open(folder / "s.db", BUNDLE) as index:
            yield index


def error_of(call: Callable[[], object]) -> Exception | None:
    """What a call raises, if it is of the kinds that callers expect."""
    try:
        call()
    except (EdgeMrlError, TypeError) as error:
        return error
    return None


@pytest.mark.parametrize("name", METHODS)
def test_odd_argument_is_taken_or_a_usage_error(name: str, index: Index) -> None:
    index.put([Document("doc", "a text", {"n": 1})])
    before = index.check()
    few = name.startswith(("create", "reindex "))  # these open a bundle each time
    refused = 0
    for odd in ODD[:16] if few else ODD:
        error = error_of(partial(METHODS[name], index, odd))
        if isinstance(error, TypeError):
            assert (name in LISTS, type(odd) in (str, bytes)) == (True, True), error
            assert "single string" in str(error)
        elif error is not None:
            # At a path that can be one, there is no store and no bundle.
            assert isinstance(error, UsageError) or name.startswith(("open", "create", "reindex"))
            assert len(str(error)) < 20_000
            refused += 1
    assert refused > 3
    if "b" in index.get(["b"]):
        index.delete(["b"])
    index.tune(None)
    assert index.check() == before


def test_values_that_are_no_numbers_are_named(index: Index) -> None:
    odd: Any
    for odd in (1.5, "3", True, None):
        with pytest.raises(UsageError, match=r"k is .*, expected a whole number"):
            SearchOptions(k=odd)
    with pytest.raises(UsageError, match=r"k is an integer of more than 64 bits, expected at most"):
        index.search("a", 10**30)
    check_whole("k", np.int32(3))
    check_number("deadline_ms", np.float32(0.5))


def test_none_among_documents_is_no_end(index: Index) -> None:
    documents: Any = [Document("doc", "a text", {"n": 1}), None, Document("c", "c")]
    with pytest.raises(UsageError, match="None is NoneType, expected a Document"):
        index.put(documents)
    assert index.get(["c"]) == {}


def test_names_of_odd_bytes_are_answered_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(b"bad\xff.txt")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / odd).write_text("a ferry")
    monkeypatch.chdir(tmp_path)
    commands: list[tuple[list[str], int, str]] = [
        (["index", "notes", "--bundle", str(BUNDLE)], 0, "1 added"),
        (["get", f"notes/{odd}"], 0, "a ferry"),
        (
            ["get", odd],
            2,
            r"document id 'bad\udcff.txt': 'bad\udcff.txt' has a lone surrogate at 3",
        ),
        (["get", ""], 2, "document id '': it is empty"),
        (["search", odd, "--mode", "keyword"], 0, ""),
        (["search", "a", "-k", "1" + "0" * 30], 2, "k is an integer of more than 64 bits"),
        (["search", "a", "--deadline", "nan", "--rerank"], 2, "deadline_ms is nan"),
        (["search", "a", "--filter", os.fsdecode(b"a=\xff")], 2, "lone surrogate"),
        (["search", "a", "--stages", odd], 2, "the funnel has a stage"),
        (["delete", "--filter", os.fsdecode(b"\xff=1")], 2, "lone surrogate"),
        (["delete", os.fsdecode(b"\xff")], 2, "lone surrogate"),
        (["delete", f"notes/{odd}"], 0, "1 document deleted"),
    ]
    for command, code, said in commands:
        assert main([*command, "--store", "s.db"]) == code, command
        out, err = capsys.readouterr()
        assert said in out + err, command
