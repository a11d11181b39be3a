from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.codes import Packing
from edge_mrl.documents import Document
from edge_mrl.errors import UsageError
from edge_mrl.search import Funnel, QueryVectors, SearchOptions, answer, tune
from edge_mrl.store import Entry, Store
from tests.android.probe import KotlinError, Probe
from tests.android.stores import FULL_DIM, KotlinStore, binding_of, entries, python_store

pytestmark = pytest.mark.test

DIM = 136
PACKINGS = [
    Packing(),
    Packing("int4", 3.5),
    Packing("2bit", 6.0),
    Packing("1bit", 20.0, tuple(i % 41 - 20 for i in range(DIM))),
]


def _compare(
    python: Store,
    theirs: KotlinStore,
    options: SearchOptions,
    code: NDArray[np.int8] | None,
    *,
    query: str = "",
    full: NDArray[np.float32] | None = None,
) -> list[str]:
    """Search by both; scores are equal to the last bit. Returns the ids."""
    vectors = None if code is None else QueryVectors(code, full)
    with python.reading() as view:
        (wanted,) = answer(view, [query], [vectors], options)
        damaged = view.names(view.damaged)
    got = _search(theirs, options, code, query=query, full=full)
    hits = [
        {
            "id": hit.id, "text": hit.text, "start": hit.start, "end": hit.end,
            "score": hit.score, "metadata": dict(hit.metadata),
        }
        for hit in wanted
    ]  # fmt: skip
    if full is not None:  # sums of float32, in another order
        for one, other in zip(got["hits"], hits, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-6)
            one["score"] = other["score"]
    assert got == {"hits": hits, "damaged": damaged}
    return [hit.id for hit in wanted]


def _search(
    theirs: KotlinStore,
    options: SearchOptions,
    code: NDArray[np.int8] | None,
    *,
    query: str = "",
    full: NDArray[np.float32] | None = None,
) -> Any:
    return theirs._probe(
        "search",
        path=str(theirs.path),
        query=query,
        code=None if code is None else base64.b64encode(code.tobytes()).decode(),
        full=None if full is None else [float(x) for x in full],
        k=options.k, filter=options.filter, mode=options.mode, exact=options.exact,
        width=options.width, stages=options.stages and str(options.stages), diversity=options.diversity,
    )  # fmt: skip


def _queries(count: int, dim: int) -> NDArray[np.int8]:
    rng = np.random.default_rng(11)
    codes = np.clip(np.rint(rng.normal(0, 25, (count, dim))), -127, 127).astype(np.int8)
    codes[0] = 0
    return codes


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda packing: packing.kind)
def test_both_find_the_same(tmp_path: Path, kotlin: Probe, packing: Packing) -> None:
    path = tmp_path / "s.db"
    whole = {"int8": 8, "int4": 4, "2bit": 2, "1bit": 1}[packing.kind]
    with python_store(path, binding_of(packing, DIM)) as python:
        many = entries(21, 3500, DIM, most=4)
        twins = [*many[:40], *(_named(one, f"twin{i}") for i, one in enumerate(many[:40]))]
        python.put([*many, *twins])
        python.delete([f"d{number}" for number in range(0, 3500, 9)])
        python.put(entries(22, 60, DIM))
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        ranked = set()
        for code in [*_queries(4, DIM), many[3].codes[0]]:
            for options in (
                *(SearchOptions(k=k, exact=exact) for k in (1, 10, 100) for exact in (True, False)),
                SearchOptions(width=3), SearchOptions(k=100, width=40), SearchOptions(width=700),
                SearchOptions(stages=f"64x1:600,{DIM}x1:200,{DIM}x{whole}"),
                SearchOptions(stages=f"128x1:500,100x{whole}:60,{DIM}x{whole}"),
                SearchOptions(filter={"tags": "a", "n": {"$lt": 12}}, width=20),
                SearchOptions(filter={"n": 3}), SearchOptions(filter={"n": -1}),
            ):  # fmt: skip
                if packing.kind == "1bit" and options.stages and ",100x" in str(options.stages):
                    continue
                ranked.update(_compare(python, theirs, options, code))
        assert len(ranked) > 400
        tune(python, f"{DIM}x1:50,{DIM}x{whole}")
        assert kotlin("tuned", path=str(path)) == f"{DIM}x1:50,{DIM}x{whole}"
        _compare(python, theirs, SearchOptions(), _queries(2, DIM)[1])
        theirs("close")


def _named(entry: Any, name: str) -> Any:
    from dataclasses import replace

    return replace(entry, document=replace(entry.document, id=name))


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda packing: packing.kind)
def test_answers_that_differ(tmp_path: Path, kotlin: Probe, packing: Packing) -> None:
    path = tmp_path / "s.db"
    with python_store(path, binding_of(packing, DIM)) as python:
        python.put(entries(29, 600, DIM, most=3))
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        code = _queries(2, DIM)[1]
        plain = _compare(python, theirs, SearchOptions(), code)
        orders = set()
        for diversity in (0.05, 0.3, 0.7, 1.0):
            for k in (1, 10, 80):
                options = SearchOptions(k=k, diversity=diversity)
                orders.add(tuple(_compare(python, theirs, options, code)[:10]))
            filtered = SearchOptions(diversity=diversity, filter={"n": {"$lt": 9}}, exact=True)
            _compare(python, theirs, filtered, code)
        assert len(orders - {tuple(plain)}) >= 4
        theirs("close")


@pytest.mark.parametrize(
    "options", [{"diversity": 1.5}, {"diversity": -0.1}, {"diversity": 0.5, "mode": "hybrid"}]
)
def test_diversity_is_refused_where_it_makes_no_sense(
    kotlin: Probe, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="diversity"):
        SearchOptions(**options)
    with pytest.raises(KotlinError, match="UsageException: diversity"):
        kotlin("search.options", **options)


@pytest.mark.parametrize("dim", [64, 255, 256, 320])
def test_distances_are_counted_alike(tmp_path: Path, kotlin: Probe, dim: int) -> None:
    path = tmp_path / "s.db"
    with python_store(path, binding_of(Packing(), dim)) as python:
        python.put(entries(23, 900, dim, most=2))
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        code = _queries(2, dim)[1]
        far = (-code.astype(np.int16)).astype(np.int8)
        for query in (code, far):
            for width in (1, 5, 60):
                _compare(python, theirs, SearchOptions(k=5, width=width), query)
        theirs("close")


def test_words_and_both(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"
    with python_store(path, binding_of(Packing(), DIM)) as python:
        python.put(entries(24, 400, DIM, most=4))
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        code = _queries(2, DIM)[1]
        for query in (
            "alpha",
            "STRASSE fine",
            '"beta gamma" caf*',
            "½ пять 東京",
            "none",
            "",
            "naive",
        ):
            for where in (None, {"n": {"$gte": 4}}):
                _compare(
                    python, theirs, SearchOptions(mode="keyword", filter=where), None, query=query
                )
                for k in (3, 150):
                    options = SearchOptions(k=k, mode="hybrid", filter=where)
                    _compare(python, theirs, options, code, query=query)
        theirs("close")


def test_common_words_are_left_out_of_large_stores(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"
    texts = ["common " + ("often " if n % 5 else "") + f"n{n % 1500}" for n in range(8_000)]
    code = np.ones((1, DIM), np.int8)
    with python_store(path, binding_of(Packing(), DIM)) as python:
        python.put(
            [
                Entry(Document(f"d{n}", text, {"n": n % 7}), [(0, len(text))], code)
                for n, text in enumerate(texts)
            ]
        )
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        lengths = []
        for query in ("common n7", "common often", "common", "common nowhere", "n7 n8 often"):
            for where in (None, {"n": 3}):
                options = SearchOptions(k=50, mode="keyword", filter=where)
                lengths.append(len(_compare(python, theirs, options, None, query=query)))
        # Of the rare words alone, of which there are few.
        assert lengths[0] == 6
        theirs("close")


@pytest.mark.parametrize("keep", ["fp16", "int8"])
def test_full_vectors_rescore_the_best(tmp_path: Path, kotlin: Probe, keep: str) -> None:
    path = tmp_path / "s.db"
    rng = np.random.default_rng(25)
    with python_store(path, binding_of(Packing(), DIM, full=True), keep) as python:
        python.put(entries(25, 300, DIM, full=True))
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        for code in _queries(4, DIM):
            full = rng.normal(size=FULL_DIM).astype(np.float32)
            full /= np.linalg.norm(full)
            for options in (SearchOptions(), SearchOptions(stages=f"{DIM}x1:90,{DIM}x8:30,full")):
                _compare(python, theirs, options, code, full=full)
        theirs("close")


def test_damaged_hits_are_left_out_and_named(tmp_path: Path, kotlin: Probe) -> None:
    import sqlite3
    from contextlib import closing

    path = tmp_path / "s.db"
    with python_store(path, binding_of(Packing(), DIM)) as python:
        many = entries(26, 200, DIM, most=1)
        python.put(many)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE documents SET text = text || 'x' WHERE id = 'd3'")
        connection.execute(
            "UPDATE passages SET codes = zeroblob(length(codes)) WHERE document = "
            "(SELECT key FROM documents WHERE id = 'd4')"
        )
    with Store.open(path) as python:
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        for code in (many[3].codes[0], many[4].codes[0]):
            ids = _compare(python, theirs, SearchOptions(exact=True), code)
            assert not {"d3", "d4"} & set(ids)
            assert len(ids) == 10
        theirs("close")


@pytest.mark.parametrize("kind", ["int8", "2bit"])
def test_damage_of_the_code_file_is_answered_from_the_database(
    tmp_path: Path, kotlin: Probe, kind: str
) -> None:
    path = tmp_path / "s.db"
    packing = Packing() if kind == "int8" else Packing("2bit", 6.0)
    with python_store(path, binding_of(packing, DIM)) as python:
        python.put(entries(27, 4200, DIM, most=1))
    file = path.with_name("s.db-codes")
    whole = file.read_bytes()
    rng = np.random.default_rng(28)
    queries = _queries(3, DIM)
    wanted = None
    damages: list[bytes] = [
        whole,
        whole[:70_000],
        b"",
        b"\0" * 100,
        whole[:20] + b"x" * 16 + whole[36:],
    ]
    for _ in range(6):
        changed = bytearray(whole)
        at = int(rng.integers(65_536, 65_536 + 32_768 * 24))
        changed[at : at + 3000] = bytes(b ^ 1 for b in changed[at : at + 3000])
        damages.append(bytes(changed))
    for damage in damages:
        file.write_bytes(damage)
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        got = [_search(theirs, SearchOptions(width=30), code) for code in queries]
        wanted = got if wanted is None else wanted
        assert got == wanted
        theirs("close")
        with Store.open(path) as python, python.reading() as view:
            assert view.codes.repaired == 0
        whole = file.read_bytes()  # it may have been made again, as another generation


def _read(text: str) -> tuple[str | None, str]:
    try:
        return None, str(Funnel.of(text))
    except UsageError as error:
        return str(error), ""


def test_stages_are_read_and_refused_alike(kotlin: Probe) -> None:
    refused = 0
    for text in (
        "128x1:5000,128x8", "64x1:20,128x1:5, 128x8", "128x8", "128x1:50,128x8:30,full", "", "full",
        "128x8:5", "128x8,full", "0x1:5,128x8", "128x1:0,128x8", "128x8:9,128x8", "128x1,128x8",
        "64x1:5,128x1:6,128x8", "64x1:9,64x4:9,64x2", "128x3", "a",
    ):  # fmt: skip
        problem, wanted = _read(text)
        if problem is not None:
            refused += 1
            with pytest.raises(KotlinError) as caught:
                kotlin("funnel", text=text)
            assert str(caught.value) == f"UsageException: {problem}"
        else:
            assert kotlin("funnel", text=text) == wanted
    assert refused == 12
