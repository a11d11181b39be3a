"""Searching by a vector, for what is like a document, and for answers that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mrl import Document, Encoder, Index, UsageError
from edge_mrl.codes import similarity
from tests.index.test_index import make_documents
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle, keep_codes_as
from tests.support.stores import PACKINGS, levels, packing

pytestmark = pytest.mark.test


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.open(tmp_path / "notes.db", bundle=TINY, max_tokens=46)
    made.put(make_documents(60))
    return made


def test_a_vector_finds_what_its_text_finds(index: Index) -> None:
    found = index.encoder.encode(["the cat and a dog"], kind="query")
    expected = index.search("the cat and a dog", 7)
    assert found.full is not None
    assert index.search_vector(found.coarse[0], 7) == expected
    assert index.search_vector(found.full[0], 7) == expected
    for same in (found.full[0].astype(np.float64) * 40, list(map(float, found.full[0]))):
        assert index.search_vector(same, 7) == expected
    even = {"number": {"$lt": 30}}
    assert index.search_vector(found.full[0], 3, filter=even) == index.search(
        "the cat and a dog", 3, filter=even
    )


@pytest.mark.parametrize("keep", ["fp16", "int8"])
def test_full_vectors_that_are_kept_rescore(keep: str, tmp_path: Path) -> None:
    with Index.open(tmp_path / "full.db", bundle=TINY, keep_full=keep) as index:
        index.put(make_documents(30))
        full = index.encoder.encode(["the dog"], kind="query").full
        assert full is not None
        found, expected = index.search_vector(full[0]), index.search("the dog")
        assert [hit.id for hit in found] == [hit.id for hit in expected]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected])


def test_no_model_is_loaded_for_a_vector(index: Index) -> None:
    full = index.encoder.encode(["the cat"], kind="query").full
    assert full is not None
    index.close()
    with Index.open(index.path) as again:
        assert len(again.search_vector(full[0])) == 10
        assert len(again.similar("d001")) == 10
        assert again._encoder is None


def test_what_is_no_vector_is_refused(index: Index) -> None:
    width = index.encoder.full_dim
    assert width is not None
    for wrong in (
        [1.0] * (width + 1),
        [1] * 16,  # int64, not a code
        np.ones((1, width)),
        "text",
        [[1.0], [1.0, 2.0]],
        None,
        np.ones(width, np.complex64),
        np.array(["a"] * width),
    ):
        with pytest.raises(UsageError, match=r"expected float\[32\], a full vector, or int8\[16\]"):
            index.search_vector(wrong)  # type: ignore[arg-type]
    for empty in (np.zeros(width), np.full(width, np.nan), np.full(width, np.inf)):
        with pytest.raises(UsageError, match="zero or not finite"):
            index.search_vector(empty)
    with pytest.raises(UsageError, match='mode "vector"'):
        index.search_vector(np.ones(width), mode="hybrid")


def test_a_vector_in_the_place_of_a_question_is_told_where_it_belongs(index: Index) -> None:
    vector = index.encoder.encode_query("a cat")
    for ask in (lambda: index.search(vector), lambda: index.search_many(["a cat", vector])):
        with pytest.raises(UsageError, match="for a vector use search_vector"):
            ask()
    with pytest.raises(UsageError, match=r"expected a text \(str\)$"):
        index.search_many(["a cat", 3])


def test_a_bundle_of_codes_only_takes_codes_only(tmp_path: Path) -> None:
    with Index.open(tmp_path / "notes.db", bundle=TINY_COARSE) as index:
        index.put(make_documents(5))
        code = index.encoder.encode(["the cat"], kind="query").coarse[0]
        assert index.search_vector(code) == index.search("the cat")
        with pytest.raises(UsageError, match=r"expected int8\[8\], a code$"):
            index.search_vector(np.ones(32))


@pytest.mark.parametrize("kind", PACKINGS)
def test_similar_compares_what_is_stored(kind: str, tmp_path: Path) -> None:
    kept = packing(kind, 16)
    bundle = keep_codes_as(copy_bundle(tmp_path / "bundle"), kept)
    documents = make_documents(40)
    with Index.open(tmp_path / "notes.db", bundle=bundle, max_tokens=46) as index:
        index.put(documents)
        found = index.similar("d007", 5)
        with Encoder.open(TINY) as encoder:
            codes = levels(encoder.encode([one.text for one in documents]).coarse, kept)
        scores = similarity(codes[7:8], codes)[0]
        scores[7] = -np.inf
        best = np.sort(scores)[::-1][:5]
        assert "d007" not in {hit.id for hit in found}
        assert [hit.score for hit in found] == pytest.approx(best, abs=2e-2)


def test_similar_takes_the_mean_of_several_passages(tmp_path: Path) -> None:
    with Index.open(tmp_path / "notes.db", bundle=TINY, max_tokens=8, overlap=0) as index:
        long = " ".join(["the cat and a dog"] * 4 + ["training of model"] * 4)
        index.put([Document("long", long), *make_documents(20, words=5)])
        assert index.count().passages > 24
        found = index.similar("long", 3)
        assert len(found) == 3
        assert index.similar("long", 100)[:3] == found.hits
        assert len(index.similar("long", 100)) == 20


def test_similar_needs_a_document_with_passages(index: Index) -> None:
    with pytest.raises(UsageError, match="'nothing' is not in the store"):
        index.similar("nothing")
    with pytest.raises(UsageError, match="document id"):
        index.similar("")


def test_diversity_leaves_out_what_says_the_same(index: Index) -> None:
    query = "the cat and a dog barking"
    best = index.search(query, 1)[0]
    index.delete([best.id])
    index.put([Document(f"twin{i}", best.text) for i in range(6)])
    plain = index.search(query, 5)
    assert sum(hit.id.startswith("twin") for hit in plain) == 5
    diverse = index.search(query, 5, diversity=0.5)
    assert diverse[0] == plain[0]
    assert sum(hit.id.startswith("twin") for hit in diverse) == 1
    assert len({hit.id for hit in diverse}) == 5
    assert index.search(query, 5, diversity=0.0) == plain
    assert len(index.search(query, 100, diversity=1.0)) == 65
    for wrong in (-0.1, 1.1, float("nan"), "much", True):
        with pytest.raises(UsageError, match="diversity is"):
            index.search(query, diversity=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match='diversity needs mode "vector"'):
        index.search(query, diversity=0.5, mode="hybrid")
    with pytest.raises(UsageError, match="leave one of them out"):
        index.search(query, diversity=0.5, rerank="always")


def test_diversity_is_maximal_marginal_relevance(index: Index) -> None:
    query, k, weight = "the cat", 6, 0.4
    pool = index.search(query, 50)
    with Encoder.open(TINY) as encoder:
        codes = encoder.encode([hit.text for hit in pool]).coarse
    near = similarity(codes, codes)
    chosen: list[int] = []
    while len(chosen) < k:
        worth = [
            -np.inf
            if i in chosen
            else hit.score
            if not chosen
            else (1 - weight) * hit.score - weight * max(near[i, j] for j in chosen)
            for i, hit in enumerate(pool)
        ]
        chosen.append(int(np.argmax(worth)))
    found = index.search(query, k, diversity=weight)
    assert [hit.id for hit in found] == [pool[i].id for i in chosen]
