"""Stores as lines of JSON and back: ``edge-mrl dump`` and ``edge-mrl load``."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl import Document, Index
from edge_mrl.ingest import dump_lines, load_lines, parse_line
from edge_mrl.store import check
from tests.index.test_index import make_documents
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle, keep_codes_as
from tests.support.processes import good, run
from tests.support.stores import PACKINGS, packing

pytestmark = pytest.mark.test


def bad(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    return done.stderr.decode()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "notes.db"
    with Index.open(path, TINY, max_tokens=8, overlap=0) as index:
        index.put(make_documents(30))
        index.put([Document("é 😀", "the cat\nand\u2028a dog " * 9, {"a": [1, 2.5, None]}, "x.md")])
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def held(index: Index) -> list[tuple[Any, ...]]:
    return [
        (one.id, one.text, dict(one.metadata), one.source, index.search(one.text, 3))
        for one in index.documents()
    ]


def test_a_dump_has_all_documents_in_their_order(store: Path, tmp_path: Path) -> None:
    said = good("dump", "--store", store, "-o", tmp_path / "out.jsonl").stdout.decode()
    assert said.startswith("31 documents in ")
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == [*(f"d{i:03}" for i in range(30)), "é 😀"]
    assert set(lines[0]) == {"id", "text", "metadata"}
    assert lines[-1]["source"] == "x.md"
    shown = good("dump", "--store", store, "--filter", "number<3").stdout
    assert [json.loads(line)["id"] for line in shown.splitlines()] == ["d000", "d001", "d002"]
    said = good("dump", "--store", store, "-o", tmp_path / "out.jsonl", "--json").stdout.decode()
    assert json.loads(said)["documents"] == 31


@pytest.mark.parametrize("kind", PACKINGS)
def test_codes_come_back_as_they_were_without_a_model(kind: str, tmp_path: Path) -> None:
    bundle = keep_codes_as(copy_bundle(tmp_path / "bundle"), packing(kind, 16))
    with (
        Index.open(tmp_path / "a.db", bundle, max_tokens=8, overlap=0) as a,
        Index.open(tmp_path / "b.db", bundle, max_tokens=8, overlap=0) as b,
    ):
        a.put(make_documents(30))
        lines = [json.loads(json.dumps(line)) for line in dump_lines(a.store, codes=True)]

        def no_encoder() -> Any:
            raise AssertionError("nothing is to be embedded")

        done = load_lines(b.store, no_encoder, map(parse_line, lines))
        assert (done.taken, done.embedded) == (30, 0)
        assert held(a) == held(b)
        assert list(dump_lines(b.store, codes=True)) == lines
        assert check(b.store).sound


@pytest.mark.parametrize("keep", ["fp16", "int8", "until-synced"])
def test_full_vectors_come_along_where_they_are_kept(keep: str, tmp_path: Path) -> None:
    with (
        Index.open(tmp_path / "a.db", TINY, keep_full="fp16") as a,
        Index.open(tmp_path / "b.db", TINY, keep_full=keep) as b,
    ):
        a.put(make_documents(10))
        lines = list(dump_lines(a.store, codes=True, vectors=True))
        vector = np.array(lines[3]["passages"][0]["vector"])
        expected = a.encoder.encode([a.get(["d003"])["d003"].text]).full
        assert expected is not None
        np.testing.assert_allclose(vector, expected[0], atol=2e-3)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
        assert load_lines(b.store, lambda: b.encoder, map(parse_line, lines)).taken == 10
        if keep == "fp16":
            assert list(dump_lines(b.store, codes=True, vectors=True)) == lines


def test_what_another_bundle_or_rule_made_is_embedded(store: Path, tmp_path: Path) -> None:
    dumped = tmp_path / "out.jsonl"
    good("dump", "--store", store, "-o", dumped, "--codes", "--quiet")
    said = good("load", dumped, "--store", tmp_path / "o.db", "--bundle", TINY_COARSE, "--json")
    assert {**json.loads(said.stdout), "seconds": 0} == {"taken": 0, "embedded": 31, "seconds": 0}
    said = good("load", dumped, "--store", tmp_path / "p.db", "--bundle", TINY)
    assert "0 documents taken as they were, 31 from their texts" in said.stdout.decode()
    with Index.open(tmp_path / "p.db") as index, Index.open(store) as before:
        assert index.rule != before.rule
        assert index.get(["é 😀"]) == before.get(["é 😀"])


def test_load_reads_a_pipe(store: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "copy.db", TINY, max_tokens=8, overlap=0):
        pass
    lines = good("dump", "--store", store, "--codes").stdout
    said = good("load", "-", "--store", tmp_path / "copy.db", stdin=lines).stdout.decode()
    assert said.startswith("31 documents taken as they were, 0 from their texts, in ")
    with Index.open(tmp_path / "copy.db") as copy, Index.open(store) as before:
        assert held(copy) == held(before)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": 7}, '"id" is 7, expected a string'),
        ({"id": ""}, "document id"),
        ({"text": None}, 'expected strings as "text"'),
        ({"metadata": {"n": 2**70}}, "64 bits"),
        ({"passages": [1]}, "must be objects"),
        ({"passages": [{"start": 5, "end": 2, "code": ""}]}, "expected offsets"),
        ({"passages": [{"start": 0, "end": True, "code": ""}]}, "expected offsets"),
        ({"passages": [{"start": 0, "end": 2, "code": "?"}]}, "is not base64"),
        ({"passages": [{"start": 0, "end": 2, "code": 7}]}, "is not base64"),
        (
            {"passages": [{"start": 0, "end": 2, "code": "AAAA"}]},
            "has 3 bytes of codes, expected 16",
        ),
    ],
)
def test_lines_that_are_none_are_named_and_those_before_are_stored(
    change: dict[str, Any], complaint: str, store: Path, tmp_path: Path
) -> None:
    with Index.open(store) as index:
        lines = list(dump_lines(index.store, codes=True))
    lines[4] |= change
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    with Index.open(tmp_path / "copy.db", TINY, max_tokens=8, overlap=0):
        pass
    error = bad("load", file, "--store", tmp_path / "copy.db")
    assert complaint in error
    with Index.open(tmp_path / "copy.db") as copy:
        assert list(copy.ids()) == ["d000", "d001", "d002", "d003"]


def test_other_text_than_json_is_named_by_its_line(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('\n{"id": "a", "text": "b"}\nno JSON\n', encoding="utf-8")
    assert f"{file}:3: " in bad("load", file, "--store", store)
    assert "no file" in bad("load", tmp_path / "nothing", "--store", store)
    assert "expected a file" in bad("dump", "--store", store, "-o", tmp_path)


def test_damage_is_named_and_all_others_are_written(store: Path, tmp_path: Path) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE passages SET codes = zeroblob(length(codes)) WHERE document = 2")
    connection.close()
    out = tmp_path / "out.jsonl"
    error = bad("dump", "--store", store, "-o", out, "--codes")
    assert "documents 'd001' are not what was stored, and were left out" in error
    assert len(lines_of(out)) == 30
