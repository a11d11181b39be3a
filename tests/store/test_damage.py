"""Damage heals: whatever bit of a row is flipped, the other documents are found, and a put mends it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import DamagedError, StoreError
from edge_mrl.search import QueryVectors, SearchOptions, answer
from edge_mrl.store import Entry, Store, check, replica
from edge_mrl.store.binding import SEARCH_STAGES
from edge_mrl.store.schema import tables
from tests.support.stores import DIM, FULL_DIM, open_enrolled

TEXTS = {
    "a": "the quick brown fox",
    "b": "a ferry leaves at dawn",
    "c\u00e9": "na\u00efve caf\u00e9 \u732b",
    "d": "brown bread and a quick tea",
}
QUERY = QueryVectors(np.array([100, 50, 25, 12], np.int8), np.full(FULL_DIM, 0.35, np.float32))
FLIPS_A_COLUMN = 3
#: Bits of the whole file that are flipped before each merge, and each night.
FLIPS, MORE_FLIPS = 60, 3_000


def entries() -> list[Entry]:
    made = []
    for number, (name, text) in enumerate(TEXTS.items()):
        codes = np.full((2, DIM), 10 * number + 3, np.int8)
        codes[1, number % DIM] = -40
        full = np.full((2, FULL_DIM), 0.2 + number / 10, np.float32)
        document = Document(name, text, {"n": number, "tags": ["x", name]})
        made.append(Entry(document, [(0, 5), (3, len(text))], codes, full))
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An enrolled store with all that a store may hold."""
    path = tmp_path_factory.mktemp("damage") / "whole.db"
    with open_enrolled(path) as store:
        store.put(
            [replace(one, document=replace(one.document, id="gone")) for one in entries()[:1]]
        )
        store.put(entries())
        store.delete(["gone"])
        store.set_setting(SEARCH_STAGES, "4x8")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")  # all in one file, which is copied
    connection.close()
    return path


def found(
    store: Store, mode: str, where: dict[str, Any] | None = None
) -> tuple[list[str], set[str]]:
    """Ids of hits with their scores, and the damaged documents that were named."""
    options = SearchOptions(k=9, mode=mode, filter=where)  # type: ignore[arg-type]
    with store.reading() as view:
        hits = answer(view, ["quick brown caf\u00e9"], [QUERY], options)[0]
        shown = [f"{hit.id} {hit.text} {hit.metadata}" for hit in hits]
        return shown, set(view.names(view.damaged))


QUESTIONS: dict[str, Callable[[Store], tuple[list[str], set[str]]]] = {
    "vector": lambda store: found(store, "vector"),
    "keyword": lambda store: found(store, "keyword"),
    "filter": lambda store: found(store, "vector", {"n": {"$gte": 1}}),
    "get": lambda store: (
        [f"{one.id} {one.text} {one.metadata}" for one in store.get(TEXTS).values()],
        set(),
    ),
    "stats": lambda store: ([str(store.count())], set()),
    "queue": lambda store: (
        [
            f"{one.id} {one.document and one.document.text}"
            for one in replica.outgoing(store, limit=9)
            if not one.damaged
        ],
        {one.id for one in replica.outgoing(store, limit=9) if one.damaged},
    ),
    "letters": lambda store: ([repr(replica.list_dead_letters(store))], set()),
}


@pytest.fixture(scope="module")
def right(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    path = Path(shutil.copy(whole, tmp_path_factory.mktemp("right") / "s.db"))
    with Store.open(path) as store:
        return {name: ask(store)[0] for name, ask in QUESTIONS.items()}


def require_right(store: Store, right: dict[str, list[str]], *, renamed: bool = False) -> int:
    """Each answer is right, or lacks only what it names, or is an error; returns how many are whole."""
    count = 0
    for name, ask in QUESTIONS.items():
        try:
            shown, damaged = ask(store)
        except StoreError as error:
            if str(store.path) not in str(error):
                raise
            continue
        if damaged <= TEXTS.keys() and not renamed:
            wanted = [one for one in right[name] if one.split(" ", 1)[0] not in damaged]
        else:  # an id was damaged, and named as it is now
            wanted = [one for one in right[name] if one in shown]
            assert name == "get" or len(wanted) + len(damaged) == len(right[name])
        assert shown == wanted, name
        count += shown == right[name]
    return count


def heal(path: Path, right: dict[str, list[str]]) -> None:
    """Do what the errors advise; then all is as it was."""
    with Store.open(path) as store:
        health = check(store, repair=True)
        store.delete([name for name in health.damaged_ids if name not in TEXTS])
        if replica.enrollment_of(store) is None:
            replica.enroll(
                store, replica.Enrollment("https://x", "team", "mine"), full_dim=FULL_DIM
            )
        store.delete([*TEXTS][:1])
        store.put(entries())
        health = check(store, repair=True)
        assert health.sound, health
        assert check(store).sound
        store.set_setting(SEARCH_STAGES, "4x8")
        for name in ("vector", "keyword", "filter", "get", "stats"):
            assert QUESTIONS[name](store) == (right[name], set()), name


def flipped(value: Any, bit: int) -> Any:
    if value is None:
        return 1
    if isinstance(value, int):
        return value ^ (1 << bit % 16)
    if isinstance(value, float):
        return value + 1
    data = bytearray(value.encode() if isinstance(value, str) else value)
    if not data:
        return b"\x01"
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(data)


def columns() -> Iterator[tuple[str, str]]:
    for table, names in {
        "documents": "id metadata source hash crc text",
        "passages": "first_row rows crc spans codes",
        "fulls": "crc vectors",
        "versions": "id stamp device deleted acknowledged sent crc",
        "outbox": "id stamp deleted bytes crc",
        "state": "changes next_key next_row filed generation crc",
        "tombstones": "crc bits",
        "settings": "name value crc",
        "sync": "server tenant device cursor last floor offset_ms with_text epoch push answered crc",
    }.items():
        yield from ((table, name) for name in names.split())


def damage_column(path: Path, table: str, column: str, bit: int) -> None:
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    (value,) = connection.execute(
        f"SELECT {column} FROM {table} LIMIT 1 OFFSET ?", (bit % 2,)
    ).fetchone() or (connection.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone())
    (kind,) = connection.execute(f"SELECT typeof({column}) FROM {table} LIMIT 1").fetchone()
    kind = kind.decode()
    marks = "CAST(? AS TEXT)" if kind == "text" else "?"
    wrong = flipped(value, bit)
    where = f"{column} IS ?" if kind != "text" else f"CAST({column} AS BLOB) = ?"
    update = f"UPDATE OR IGNORE {table} SET {column} = {marks} WHERE {where}"
    with connection:
        if not connection.execute(update, (wrong, value)).rowcount:  # another row has that key
            assert connection.execute(update, (flipped(value, bit ^ 7), value)).rowcount
    connection.close()


@pytest.mark.parametrize(("table", "column"), list(columns()))
@pytest.mark.parametrize("round_", range(FLIPS_A_COLUMN))
def test_any_value_that_is_damaged_is_noticed_and_heals(
    table: str,
    column: str,
    round_: int,
    whole: Path,
    right: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    path = Path(shutil.copy(whole, tmp_path / "s.db"))
    bit = random.Random(f"{table} {column} {round_}").randrange(1 << 12)
    damage_column(path, table, column, bit)
    with Store.open(path) as store:
        require_right(store, right, renamed=(table, column) == ("documents", "id"))
    heal(path, right)


def test_damaged_text_is_named_and_a_put_of_the_same_text_heals_it(
    whole: Path, right: dict[str, list[str]], tmp_path: Path
) -> None:
    path = Path(shutil.copy(whole, tmp_path / "s.db"))
    for wrong in (b"the quick br\xefwn fox", b"the quick crown fox"):  # no UTF-8; and still UTF-8
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(
                "UPDATE documents SET text = CAST(? AS TEXT) WHERE id = 'a'", (wrong,)
            )
        connection.close()
        with Store.open(path) as store:
            shown, damaged = found(store, "vector")
            assert damaged == {"a"}
            assert [one.split()[0] for one in shown] == [
                one.split()[0] for one in right["vector"] if not one.startswith("a ")
            ]
            with pytest.raises(DamagedError, match="put it again, or delete it"):
                store.get(["a"])
            assert "a" not in store.hashes(["a", "b"])
            assert check(store).damaged_ids == ("a",)
            assert store.put([], unchanged=[entries()[0].document]) == [entries()[0].document]
            store.put(entries()[:1])
            assert store.get(["a"])["a"].text == TEXTS["a"]
            # The words of the damaged text are still in the index, and found by nobody.
            words = [one.split()[0] for one in found(store, "keyword")[0]]
            assert sorted(words) == ["a", "c\u00e9", "d"]
            assert check(store, repair=True).sound
            assert store.delete(["a"]) == 1
            assert check(store).sound
            store.put(entries()[:1])


def test_damaged_document_is_deleted_without_its_text(whole: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(whole, tmp_path / "s.db"))
    damage_column(path, "documents", "text", 7)
    with Store.open(path) as store:
        (name,) = check(store).damaged_ids
        assert store.delete([name]) == 1
        assert store.get([name]) == {}
        assert check(store, repair=True).repaired == (
            "keywords: the index of words does not agree with the texts",
        )


def damage_file(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


def endure(whole: Path, right: dict[str, list[str]], path: Path, at: int) -> str:
    """Flip one bit of the file; says how far it healed."""
    shutil.copy(whole, path)
    damage_file(path, at)
    for name in ("-wal", "-shm", "-codes"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    try:
        with Store.open(path) as store:
            ask = {name: QUESTIONS[name] for name in ("vector", "get", "stats")}
            for name, question in ask.items():
                try:
                    shown, damaged = question(store)
                except StoreError:
                    continue
                wanted = [one for one in right[name] if one.split(" ", 1)[0] not in damaged]
                if not damaged <= TEXTS.keys():  # an id was damaged, and named as it is now
                    wanted = [one for one in right[name] if one in shown]
                    assert len(wanted) + len(damaged) == len(right[name])
                assert shown == wanted, name
    except StoreError:
        return "refused"
    try:
        heal(path, right)
    except StoreError as error:
        if "damaged" not in str(error):
            raise
        return "refused"
    return "healed"


def flip_many(
    whole: Path, right: dict[str, list[str]], path: Path, number: int, seed: int
) -> dict[str, int]:
    rng = random.Random(seed)
    size = whole.stat().st_size * 8
    outcomes: dict[str, int] = {}
    for _ in range(number):
        outcome = endure(whole, right, path, rng.randrange(size))
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


@pytest.mark.test
def test_any_bit_of_the_file_gives_right_answers_or_errors(
    whole: Path, right: dict[str, list[str]], tmp_path: Path
) -> None:
    assert flip_many(whole, right, tmp_path / "s.db", FLIPS, 1).get("healed", 0) > FLIPS // 2


@pytest.mark.nightly
def test_many_bits_of_the_file_give_right_answers_or_errors(
    whole: Path, right: dict[str, list[str]], tmp_path: Path
) -> None:
    outcomes = flip_many(whole, right, tmp_path / "s.db", MORE_FLIPS, 2)
    # What a store is bound to, and the list of its tables, lie in few of its pages.
    assert outcomes["healed"] > MORE_FLIPS * 49 // 50


def test_definition_that_gives_a_column_another_meaning_is_mended(
    whole: Path, right: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(whole, tmp_path / "s.db"))
    wrong = path.read_bytes().replace(b"key INTEGER PRIMARY KEY", b"key INTEGER PRIEARY KEY")
    assert wrong != path.read_bytes()
    path.write_bytes(wrong)
    with monkeypatch.context() as patch:
        patch.setattr("edge_mrl.store.file.can_write", lambda _: False)
        with pytest.raises(StoreError, match="not defined as it was"):
            Store.open(path)
    with Store.open(path) as store:
        require_right(store, right)
    assert b"PRIEARY" not in path.read_bytes()


def test_checksums_of_definitions_are_those_of_the_migrations() -> None:
    names = [one for one in tables.definitions() if not tables._OTHERS.match(one.name)]
    assert {one.crc for one in names} == tables.CHECKSUMS, "a migration needs new checksums"
    assert len(tables.CHECKSUMS) == len(names) > 20


def test_index_whose_page_counts_too_many_rows_is_an_error_again_and_again(
    whole: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(whole, tmp_path / "s.db"))
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_documents_1'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    damage_file(path, ((page - 1) * size + 4) * 8 + 4)  # 16 more cells than there are
    with Store.open(path) as store:
        for ask in (lambda: store.get(["a"]), store.count, lambda: store.get(["a"])):
            with pytest.raises(StoreError, match="damaged"):
                ask()


def test_sabotaged_checksums_are_noticed(
    whole: Path, right: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The twin: without the comparison, a damaged text is an answer.
    path = Path(shutil.copy(whole, tmp_path / "s.db"))
    damage_column(path, "documents", "text", 8)
    monkeypatch.setattr("edge_mrl.store.view.sound_document", lambda *_: True)
    with Store.open(path) as store, pytest.raises(AssertionError):
        require_right(store, right)


@pytest.mark.parametrize("query", ["DELETE FROM binding", "UPDATE binding SET dim = dim + 1"])
def test_lost_binding_is_not_said_to_be_repaired(query: str, whole: Path, tmp_path: Path) -> None:
    """What to do where no repair helps."""
    path = Path(shutil.copy(whole, tmp_path / "s.db"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(query)
    with pytest.raises(DamagedError, match="restore a copy; without one, move the file") as found:
        Store.open(path)
    assert "check --repair" not in str(found.value)
