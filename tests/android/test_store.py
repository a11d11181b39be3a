from __future__ import annotations

import base64
import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.codes import Packing
from edge_mrl.documents import Document, PassageRule, metadata_problem
from edge_mrl.errors import UsageError
from edge_mrl.store import Entry, Store, check, compact, convert
from edge_mrl.store.filters.compiling import compile_filter
from edge_mrl.store.records import checksum, encode_metadata
from tests.android.probe import KotlinError, Probe
from tests.android.stores import KotlinStore, binding_of, entries, python_store
from tests.support.keys import KEY

DIM = 72
PACKINGS = [
    Packing(),
    Packing("int4", 3.5),
    Packing("2bit", 6.0, tuple(range(-36, 36))),
    Packing("1bit"),
]
pytestmark = pytest.mark.test


def _dump(path: Path) -> dict[str, list[Any]]:
    """All rows of the tables whose content does not depend on when and by whom they were written."""
    with closing(sqlite3.connect(path)) as connection:
        tables = (
            "binding", "documents", "passages", "tombstones", "fulls", "fields", "settings",
            "keywords_docsize", "sqlite_master",
        )  # fmt: skip
        rows = {
            name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}"))) for name in tables
        }
        rows["state"] = connection.execute(
            "SELECT changes, next_key, next_row FROM state"
        ).fetchall()
        connection.execute(
            "CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, keywords, instance)"
        )
        rows["words"] = connection.execute("SELECT term, doc, offset FROM temp.words").fetchall()
    return rows


def _change(store: Any, dim: int, *, full: bool) -> None:
    """The same changes by Python's store or by Kotlin's."""
    store.put(entries(1, 120, dim, full=full))
    store.put(entries(2, 40, dim, full=full))
    store.put([], unchanged=[_again(one.document) for one in entries(2, 10, dim)])
    store.delete([f"d{number}" for number in range(30, 60)])
    store.put(entries(3, 35, dim, most=1, full=full))


def _again(document: Document) -> Document:
    return Document(document.id, document.text, {"again": [1, 1.0, 2.5, True, None, "1"]}, "other")


class _Deleting(KotlinStore):
    def delete(self, ids: list[str]) -> Any:
        return self("delete", ids=ids)


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda packing: packing.kind)
def test_both_write_the_same_store(tmp_path: Path, kotlin: Probe, packing: Packing) -> None:
    full = packing.kind == "int4"
    binding = binding_of(packing, DIM, full=full)
    keep = "fp16" if full else None
    with python_store(tmp_path / "p.db", binding, keep) as python:
        _change(python, DIM, full=full)
    theirs = _Deleting(kotlin, tmp_path / "k.db")
    theirs.create(binding, keep)
    _change(theirs, DIM, full=full)
    health = theirs("check")
    assert health["problems"] == []
    assert theirs.path.stat().st_mode & 0o777 == 0o600
    theirs("close")
    assert _dump(tmp_path / "k.db") == _dump(tmp_path / "p.db")
    with Store.open(theirs.path) as opened:
        assert check(opened).sound
        assert opened.count().documents == health["documents"] == 95


def test_a_store_goes_to_and_fro(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"
    binding = binding_of(Packing(), DIM)
    with python_store(path, binding) as python:
        python.put(entries(1, 4200, DIM, most=1))  # so many rows go to the code file
    theirs = KotlinStore(kotlin, path)
    theirs("open")
    assert theirs("check")["problems"] == []
    theirs.put(entries(2, 4100, DIM, most=1))
    assert theirs("delete", ids=["d1", "d2", "none"]) == 2
    wanted = entries(2, 4100, DIM, most=1)[77].document
    assert theirs("get", ids=["d77", "none"]) == {
        "d77": {"text": wanted.text, "metadata": dict(wanted.metadata), "source": wanted.source}
    }
    theirs("close")
    with Store.open(path) as python:
        assert check(python).sound
        with python.reading() as view:
            assert view.codes.repaired == 0
        assert python.cache_problem is None
        python.delete([f"d{number}" for number in range(100, 900)])
        compact(python)
    theirs("open")
    assert theirs("compact") == 0
    assert theirs("delete", ids=["d3"]) == 1
    assert theirs("compact") == 1
    assert theirs("check")["problems"] == []
    theirs("close")
    with Store.open(path) as python:
        assert check(python).sound
        assert python.count().documents == 4200 - 3 - 800


def test_other_files_are_refused_by_name(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"

    def refusal() -> tuple[str, str]:
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(KotlinError) as caught:
            KotlinStore(kotlin, path)("open")
        assert not path.is_file() or path.read_bytes() == before
        return caught.value.kind, str(caught.value)

    assert refusal()[0] == "NoStoreException"
    path.mkdir()
    assert refusal()[0] == "NotAStoreException"
    path.rmdir()
    path.write_bytes(b"a text, and no database" * 50)
    assert refusal()[0] == "NotAStoreException"
    path.write_bytes(b"eMRLcryp" + bytes(4088))
    assert refusal()[0] == "StoreKeyException"
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (a)")
    assert refusal()[0] == "NotAStoreException"
    path.unlink()
    python_store(path, binding_of(Packing(), DIM)).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute("PRAGMA user_version = 1000")
        newer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kind, text = refusal()
    assert kind == "StoreVersionException"
    assert "update edge-mrl" in text
    golden = Path(__file__).parents[1] / "golden" / "store-4.db"
    path.write_bytes(golden.read_bytes())
    kind, text = refusal()
    assert kind == "StoreVersionException"
    assert "open it once with edge-mrl on a computer" in text
    path.unlink()
    python_store(path, binding_of(Packing(), DIM)).close()
    with pytest.raises(KotlinError, match=r"BindingException.*another code"):
        KotlinStore(kotlin, path).create(binding_of(Packing("1bit"), DIM).__class__(
            "space", "other", DIM, 1.0, "/bundle"
        ))  # fmt: skip


def test_encrypted_store_is_refused_and_left_as_it_is(tmp_path: Path, kotlin: Probe) -> None:
    pytest.importorskip("sqlcipher3", reason="needs the extra encrypted")
    path = tmp_path / "s.db"
    binding = binding_of(Packing(), DIM)
    Store.create(path, binding, PassageRule(100, 10), key=KEY).close()
    before = path.read_bytes()
    for command in ("open", "create"):
        store = KotlinStore(kotlin, path)
        with pytest.raises(KotlinError, match=r"StoreKeyException.*edge-mrl decrypt"):
            store("open") if command == "open" else store.create(binding)
    assert path.read_bytes() == before
    with Store.open(path, key=KEY) as still:
        assert check(still).sound
    # Decrypted, it is opened.
    convert(path, key=KEY, new_key=None)
    assert KotlinStore(kotlin, path)("open") is not None


def _instances(path: Path) -> list[tuple[Any, ...]]:
    """Each word of the index of words, with its document and its place."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.v USING fts5vocab(main, keywords, instance)")
        return connection.execute(
            "SELECT term, doc, offset FROM temp.v ORDER BY 1, 2, 3"
        ).fetchall()


def test_store_of_an_earlier_app_is_brought_to_this_version(tmp_path: Path, kotlin: Probe) -> None:
    """The first app wrote version 9, whose words had the form of whichever Unicode there was."""
    golden = Path(__file__).parents[1] / "golden" / "store-5.db"
    ours, theirs = tmp_path / "kotlin.db", tmp_path / "python.db"
    for path in (ours, theirs):
        path.write_bytes(golden.read_bytes())
    with closing(
        sqlite3.connect(ours, isolation_level=None)
    ) as connection:  # other words than theirs
        connection.execute("INSERT INTO keywords (keywords) VALUES ('delete-all')")
        connection.execute("INSERT INTO keywords (rowid, text) VALUES (1, 'wrong')")
    before = ours.read_bytes()
    with closing(
        sqlite3.connect(ours, isolation_level=None)
    ) as writer:  # it cannot be migrated now
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(KotlinError, match="StoreBusyException"):
            KotlinStore(kotlin, ours)("open", timeout_ms=100)
    assert ours.read_bytes() == before
    KotlinStore(kotlin, ours)("open")
    kotlin("store.close", path=str(ours))
    Store.open(theirs).close()
    assert _instances(ours) == _instances(theirs) != []
    with Store.open(ours) as store:
        assert check(store).sound, check(store)
    with closing(sqlite3.connect(ours)) as connection:
        names = connection.execute("SELECT version, name FROM migrations ORDER BY 1").fetchall()
    with closing(sqlite3.connect(theirs)) as connection:
        query = "SELECT version, name FROM migrations ORDER BY 1"
        assert names == connection.execute(query).fetchall()
    # Where it cannot be written, it is refused.
    ours.write_bytes(golden.read_bytes())
    ours.chmod(0o400)
    if not os.access(ours, os.W_OK):
        with pytest.raises(KotlinError, match="StoreVersionException"):
            KotlinStore(kotlin, ours)("open")


def test_values_have_the_checksums_of_the_format(kotlin: Probe) -> None:
    blob = base64.b64encode(b"\x00\xff").decode()
    for values in (
        [], [None], [1], [-2], [1.0], ["1"], ["é"], ["mood 🫨"], ["ab", "c"], ["a", "bc"],
        [0.1, -1e-300, 2**63 - 1, -(2**63), True],
    ):  # fmt: skip
        assert kotlin("checksum", values=values) == checksum(*values)
    assert kotlin("checksum", values=[1, "a", "{}", None, {"blob": blob}]) == 3350708542


def test_metadata_is_judged_and_written_alike(kotlin: Probe) -> None:
    deep: dict[str, Any] = {}
    for _ in range(16):
        deep = {"a": deep}
    for metadata in (
        {}, {"a": 1}, {"a": float("1e16")}, {"z": 1, "é": 2, "\U0001f600": 3, "\uffff": 4},
        {"a\x00": 1}, {"a": "x\x00"}, {"": {"": [[]]}}, {"a": 2**63}, {"a": -(2**63)}, deep,
        {"a": deep["a"]}, {"a": ["x"] * 2047}, {"a": ["x"] * 2048}, {"n" * 513: 1}, {"é" * 256: 1},
        {"é" * 257: 1}, {"a" * 500: ["x"] * 131}, {"a" * 500: ["x"] * 132}, {"t": "x" * 262_134},
        {"t": "x" * 262_136}, {"t": "é" * 131_068}, {"q": '"\\\n\r\t\b\f\x01\x7f'},
    ):  # fmt: skip
        problem = metadata_problem(metadata)
        assert (kotlin("metadata.problem", metadata=metadata) is None) == (problem is None)
        if problem is None:
            wanted = encode_metadata(Document("a", "", metadata))
            assert kotlin("metadata.encode", metadata=metadata) == wanted
    rng = np.random.default_rng(5)
    floats = [float(x) for x in rng.normal(size=300) * 10.0 ** rng.integers(-300, 300, 300)]
    floats += [
        5e-324,
        2.0**-1022,
        1.7976931348623157e308,
        1e22,
        1e23,
        123456789012345680.0,
        1e-5,
        1e-4,
    ]
    bits = rng.integers(0, 2**63, 300, dtype=np.int64)
    floats += [x for (x,) in (struct.unpack("<d", b.tobytes()) for b in bits) if np.isfinite(x)]
    wanted = encode_metadata(Document("a", "", {"f": floats}))
    assert kotlin("metadata.encode", metadata={"f": floats}) == wanted


def test_float16_is_rounded_like_numpys(kotlin: Probe) -> None:
    rng = np.random.default_rng(6)
    values = (rng.normal(size=2000) * 2.0 ** rng.integers(-28, 18, 2000)).astype(np.float32)
    special = [0.0, -0.0, 65504.0, 65519.9, 65520.0, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24, 2.0**-14]
    values = np.concatenate([values, np.array(special, np.float32)])
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    got = kotlin("half", values=[float(x) for x in values])
    assert [half for half, _ in got] == halves.view(np.uint16).tolist()
    finite = np.isfinite(halves)
    back = [value for (_, value), good in zip(got, finite, strict=True) if good]
    assert back == halves[finite].astype(np.float64).tolist()


FILTERS: list[Any] = [
    {}, {"n": 3}, {"n": 3.0}, {"n": {"$gte": 5, "$lt": 12.5}}, {"tags": "a"}, {"tags": {"$ne": 1}},
    {"tags": {"$in": [0, "a", None]}}, {"tags": {"$nin": [0, 1]}}, {"n": {"$in": []}},
    {"deep.é": None}, {"deep.é": True}, {"deep.é": {"$gt": "a"}}, {"x": {"$exists": False}},
    {"$or": [{"n": 1}, {"$and": [{"n": 2}, {"tags": "a"}]}]}, {"$not": {"x": {"$lt": 0}}},
    {"n": {"$not": {"$gt": 3}}}, {"n": {"$eq": 1e300}},
    {"deep.é": {"$contains": "ü"}}, {"deep.é": {"$contains": "Ü"}}, {"tags": {"$contains": "a"}},
    {"tags": {"$not": {"$contains": "a"}}}, {"n": {"$contains": "1"}},
    {"$match": "alpha"}, {"$match": "alpha GAMMA"}, {"$match": '"alpha beta" stra*'},
    {"$match": "none"}, {"$not": {"$match": "alpha"}}, {"$match": "beta", "tags": "a"},
    {"$or": [{"$match": "fine"}, {"n": 4}]}, {"$and": [{"$match": "东京 ½"}, {"n": {"$gt": 1}}]},
    # What is refused.
    {"$x": 1}, {"$or": []}, {"$or": 1}, {"n": {}}, {"n": {"$gt": True}}, {"n": {"$gt": None}},
    {"n": {"$exists": 1}}, {"n": [1]}, {"n": {"$in": 1}}, {"n": {"$bad": 1}}, {"n\x00": 1},
    {"n": 2**63}, {"n": {"$in": [[1]]}}, {"n": {"$not": 3}},
    {"n": {"$contains": ""}}, {"n": {"$contains": 3}}, {"n": {"$contains": "a\x00"}},
    {"$match": ""}, {"$match": "..."}, {"$match": ["a"]}, {"n": {"$match": "a"}},
]  # fmt: skip


def _problem(where: Any) -> str | None:
    try:
        compile_filter(where)
    except UsageError as error:
        return str(error)
    return None


def test_filters_select_the_same_and_are_refused_alike(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"
    nested: dict[str, Any] = {"n": 1}
    for _ in range(9):
        nested = {"$not": nested}
    many = {"$or": [{"n": number} for number in range(200)]}
    with python_store(path, binding_of(Packing(), DIM)) as python:
        python.put(entries(7, 300, DIM))
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        refused = 0
        for where in (*FILTERS, nested, nested["$not"], many):
            problem = _problem(where)
            if problem is not None:
                refused += 1
                with pytest.raises(KotlinError) as caught:
                    kotlin("filter", filter=where)
                assert str(caught.value).startswith(f"UsageException: {problem[:11]}")
                continue
            sql, _ = compile_filter(where)
            assert kotlin("filter", filter=where) == sql
            with python.reading() as view:
                assert theirs("select", filter=where) == view.ids_where(where)
        assert refused == 24
        theirs("close")


def test_damage_is_named_as_python_names_it(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"
    damages = [
        "UPDATE documents SET text = text || 'x' WHERE id = 'd3'",
        "UPDATE documents SET metadata = '{}' WHERE id = 'd4'",
        "UPDATE documents SET text = CAST(x'ff' AS TEXT) WHERE id = 'd5'",
        "UPDATE passages SET codes = zeroblob(length(codes)) WHERE document = 6",
        "DELETE FROM passages WHERE document = 7",
        "UPDATE fulls SET vectors = zeroblob(48) WHERE document = 8",
        "UPDATE state SET next_row = next_row + 1",
        "UPDATE tombstones SET bits = zeroblob(1024)",
        "DELETE FROM tombstones",
        "DELETE FROM fields WHERE document = 9",
        "INSERT INTO fields VALUES ('a', 2, 1, 9)",
        "INSERT INTO keywords (keywords, rowid, text) VALUES ('delete', 10, 'alpha')",
        "INSERT INTO keywords (rowid, text) VALUES (99999, 'alpha')",
        "INSERT INTO settings VALUES ('funnel', 'x', 1)",
        "INSERT INTO roots VALUES ('a/', x'00', '{}', 1)",
        "INSERT INTO versions VALUES ('a', 1, '', 0, 0, 0, 1)",
        "UPDATE documents SET id = '' WHERE key = 11",
    ]
    with python_store(path, binding_of(Packing(), DIM, full=True), "fp16") as python:
        python.put(entries(8, 60, DIM, full=True))
        python.delete(["d20", "d21"])
    whole = path.read_bytes()
    for damage in damages:
        path.write_bytes(whole)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute(damage)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        found = theirs("check")
        theirs("close")
        with Store.open(path) as opened:
            wanted = check(opened)
        assert found["problems"], damage
        assert set(found["ids"]) == set(wanted.damaged_ids), damage
        assert [text.split(":")[0] for text in found["problems"]] == [
            text.split(":")[0] for text in wanted.problems
        ], damage
        path.with_name("s.db-codes").unlink(missing_ok=True)


def test_indexes_are_made_anew_and_damaged_documents_can_go(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"
    with python_store(path, binding_of(Packing(), DIM)) as python:
        python.put(entries(8, 60, DIM))
        wanted = python.count().documents
    whole = path.read_bytes()
    of_indexes = [
        "DELETE FROM fields WHERE document = 9",
        "INSERT INTO fields VALUES ('a', 2, 1, 9)",
        "INSERT INTO keywords (keywords, rowid, text) VALUES ('delete', 10, 'alpha')",
        "INSERT INTO keywords (rowid, text) VALUES (99999, 'alpha')",
    ]
    of_documents = [
        "UPDATE documents SET text = text || 'x' WHERE id = 'd3'",
        "UPDATE documents SET metadata = '{}' WHERE id = 'd4'",
        "UPDATE passages SET codes = zeroblob(length(codes)) WHERE document = 6",
    ]
    for damage in (*of_indexes, *of_documents):
        path.write_bytes(whole)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(damage)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        assert theirs("check")["problems"], damage
        left = theirs("repair")
        assert bool(left["problems"]) == (damage in of_documents), (damage, left)
        if left["ids"]:
            assert theirs("delete", ids=left["ids"]) == 1
        assert theirs("repair")["problems"] == [], damage
        theirs("close")
        with Store.open(path) as opened:
            assert check(opened).sound, damage
            assert opened.count().documents == wanted - len(left["ids"])
        path.with_name("s.db-codes").unlink(missing_ok=True)


def test_an_entry_of_other_codes_is_refused_and_nothing_is_stored(
    tmp_path: Path, kotlin: Probe
) -> None:
    theirs = KotlinStore(kotlin, tmp_path / "s.db")
    theirs.create(binding_of(Packing(), DIM))
    good, bad = entries(9, 2, DIM)[1], entries(9, 2, DIM - 1)[1]
    with pytest.raises(KotlinError, match=r"UsageException.*expected int8"):
        theirs.put([Entry(Document("a", ""), [], good.codes[:0]), bad])
    assert theirs("count") == [0, 0]
    theirs("close")
