"""docs/reader.py, written from FORMAT.md alone, reads what edge-mrl writes, and finds what it finds."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.encode import Encoder
from edge_mrl.index import Index
from edge_mrl.search import nearest
from edge_mrl.store import Binding
from edge_mrl.store.file import MIGRATIONS
from tests.docs.pages import ROOT
from tests.golden import make_store
from tests.support.bundles import TINY, copy_bundle
from tests.support.stores import PACKINGS, fill, open_store, packing, small_segments, vectors

READER = ROOT / "docs" / "reader.py"
#: Both sides divide the same whole numbers; only the order of rounding differs.
SCORE_TOLERANCE = 1e-9
DIM = 72


@pytest.fixture(scope="module")
def reader() -> Any:
    spec = importlib.util.spec_from_file_location("reader", READER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_imports_nothing_of_edge_mrl() -> None:
    code = f"import runpy, sys; runpy.run_path({str(READER)!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [
        name for name in done.stdout.split() if name.startswith(("edge_mrl", "onnx", "tokenizers"))
    ] == []


def test_it_finds_the_documents_of_a_golden_store(reader: Any, tmp_path: Path) -> None:
    path = tmp_path / "golden.db"
    shutil.copy(make_store.NEWEST, path)
    hits = reader.Store(path).search(np.array([3, 3, 3, 4], np.int8), k=9)
    found = [(hit.id, hit.passage) for hit in hits]
    assert found == [("a", "and a dog"), ("caf\u00e9", "\u732b \U0001f408 NUL \x00 en")]
    codes = make_store.CODES.astype(float)
    query = np.array([3, 3, 3, 4.0])
    scores = codes @ query / np.linalg.norm(codes, axis=1) / np.linalg.norm(query)
    assert hits[1].score == pytest.approx(scores[2], abs=SCORE_TOLERANCE)
    assert hits[0].score == pytest.approx(max(scores[:2]), abs=SCORE_TOLERANCE)


def test_it_knows_the_newest_store(reader: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    open_store(path).close()
    reader.Store(path)
    assert len(MIGRATIONS) == 10, "FORMAT.md and docs/reader.py describe version 10"


@pytest.mark.parametrize("kind", PACKINGS)
def test_it_finds_what_an_exhaustive_search_finds(
    kind: str, reader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.db"
    kept = packing(kind, DIM)
    binding = Binding("space", "code", DIM, 1.0, "/bundles/one", packing=kept)
    codes, queries = vectors(400, DIM, seed=1), vectors(5, DIM, seed=2)
    with small_segments(monkeypatch), open_store(path, binding) as store:
        fill(store, codes, batch=50)
        store.delete([str(n) for n in range(3, 400, 7)])
        fill(store, vectors(30, DIM, seed=3), start=400)
        with store.reading() as view:
            table = view.codes
            assert len(table.parts) > 2, "several segments, and rows that wait"
            expected = nearest(queries, table, k=20, exact=True)
            names = table.names([match.key for matches in expected for match in matches])
    opened = reader.Store(path)
    assert 0 < opened.filed < opened.rows
    for query, matches in zip(queries, expected, strict=True):
        hits = opened.search(query, k=20)
        assert [hit.id for hit in hits] == [names[match.key] for match in matches]
        scores = [match.score for match in matches]
        assert [hit.score for hit in hits] == pytest.approx(scores, abs=SCORE_TOLERANCE)
    damaged = bytearray(Path(f"{path}-codes").read_bytes())
    damaged[65_536] ^= 1  # the first row's bits, or what its check was made of
    codes_start = 65_536 + 128 * (8 * 2 + 4 + 4)
    damaged[codes_start] ^= 1
    Path(f"{path}-codes").write_bytes(damaged)
    with pytest.raises(ValueError, match="codes from row 0 on are damaged"):
        reader.Store(path).search(queries[0], k=1)


def test_it_answers_as_the_index_does(reader: Any, tmp_path: Path) -> None:
    path = tmp_path / "texts.db"
    golden = reader.golden_codes(TINY)
    documents = [Document(str(n), text) for n, text in enumerate(golden)]
    with Index.open(path, bundle=TINY) as index, Encoder.open(TINY) as encoder:
        index.put(documents)
        for text in golden:
            (code,) = encoder.encode([text], kind="query").coarse
            expected = list(index.search(text, k=5, exact=True)) if text.strip() else []
            hits = reader.Store(path).search(code, k=5)
            for hit, wanted in zip(hits, expected, strict=False):
                assert hit.score == pytest.approx(wanted.score, abs=SCORE_TOLERANCE)
                assert (hit.id, hit.passage) == (wanted.id, wanted.text)


def test_it_notices_a_damaged_bundle(reader: Any, tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    assert reader.read_manifest(bundle)["dims"]["coarse"] == 16
    graph = bundle / "model.onnx.data"
    data = bytearray(graph.read_bytes())
    data[100] ^= 4
    graph.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.onnx\.data is damaged"):
        reader.read_manifest(bundle)
    manifest = copy_bundle(tmp_path / "other") / "edge_mrl.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"max_tokens": ', b'"max_tokens": 1'))
    with pytest.raises(ValueError, match=r"edge_mrl\.json is damaged"):
        reader.read_manifest(manifest.parent)


def test_its_command_line(tmp_path: Path) -> None:
    with Index.open(tmp_path / "a.db", bundle=TINY) as index:
        index.put([Document("one", "the cat sat")])
    command = [sys.executable, str(READER), str(TINY), str(tmp_path / "a.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 rows of 16 dimensions, int8" in done.stdout
    assert "one: 'the cat sat'" in done.stdout
