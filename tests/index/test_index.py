"""The index with a real, small bundle; with MiniLM where the answers must make sense."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl import Document, Encoder, Hit, Index, SearchOptions
from edge_mrl.codes.packing import similarity
from edge_mrl.documents import PassageRule
from edge_mrl.encode.passages import split_passages
from edge_mrl.errors import BindingError, DamagedError, UsageError
from edge_mrl.ingest import Stored
from edge_mrl.search import scan as search
from edge_mrl.search.funnel import Funnel
from edge_mrl.store import Counts
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle, keep_codes_as
from tests.support.stores import PACKINGS, levels, packing

WORDS = ["the", "cat", "and", "a", "dog", "barking", "of", "training", "model", "0", "1", "2"]
#: Float32 of the twin below against the index's whole numbers.
SCORE_TOLERANCE = 1e-6


def make_documents(number: int, *, words: int = 12, seed: int = 0) -> list[Document]:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, words)) for _ in range(number)]
    return [Document(f"d{i:03}", text, {"number": i}) for i, text in enumerate(texts)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.db"


def test_index_equals_encoding_everything_and_sorting(path: Path) -> None:
    documents = make_documents(60, words=6)  # one passage each
    queries = ["the cat", "training of a model", ""]
    with Index.open(path, bundle=TINY, max_tokens=46) as index, Encoder.open(TINY) as encoder:
        index.put(documents)
        found = index.search_many(queries, k=9)
        left = encoder.encode(queries, kind="query").coarse.astype(np.float32)
        right = encoder.encode([d.text for d in documents]).coarse.astype(np.float32)
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    for hits, scores in zip(found, left @ right.T, strict=True):
        best = -np.sort(-scores)[:9]
        assert [hit.score for hit in hits] == pytest.approx(best, abs=SCORE_TOLERANCE)
        for hit in hits:
            document = documents[hit.metadata["number"]]
            assert (hit.id, hit.text) == (document.id, document.text)
            assert hit.score == pytest.approx(scores[hit.metadata["number"]], abs=SCORE_TOLERANCE)


@pytest.mark.parametrize("kind", PACKINGS[1:])
def test_index_of_fewer_bits_scores_levels_with_the_querys_whole_code(
    kind: str, path: Path, tmp_path: Path
) -> None:
    kept = packing(kind, 16)
    bundle = keep_codes_as(copy_bundle(tmp_path / "bundle"), kept)
    documents, queries = make_documents(60, words=6), ["the cat", "training of a model"]
    with Index.open(path, bundle=bundle, max_tokens=46) as index, Encoder.open(TINY) as encoder:
        index.put(documents)
        found = index.search_many(queries, k=9)
        assert index.stats().code_bytes == {"int4": 8, "2bit": 4}.get(kept.kind, 2)
        left = encoder.encode(queries, kind="query").coarse
        right = encoder.encode([d.text for d in documents]).coarse
        scores = similarity(left, levels(right, kept))
        for hits, row in zip(found, scores, strict=True):
            best = -np.sort(-row)[:9]
            assert [hit.score for hit in hits] == pytest.approx(best, abs=SCORE_TOLERANCE)


@pytest.mark.test
def test_reindexing_goes_from_one_kind_of_code_to_another_and_back(
    path: Path, tmp_path: Path
) -> None:
    documents = make_documents(30)
    with Index.open(path, bundle=TINY) as index:
        index.put(documents)
        index.tune("16x1:20,16x8")
        first = index.search("the cat", k=30)
        for kind in PACKINGS[1:]:
            bundle = copy_bundle(tmp_path / kind)
            keep_codes_as(bundle, packing(kind, 16))
            assert index.reindex(bundle) == 30
            assert index.binding.packing == packing(kind, 16)
            assert index.tuned is None  # it was for other codes
            assert index.check().sound
            with Index.open(tmp_path / f"{kind}.db", bundle=bundle) as fresh:
                fresh.put(documents)
                assert fresh.search("the cat", k=30) == index.search("the cat", k=30)
        index.reindex(TINY)
        assert index.search("the cat", k=30) == first


def test_bundle_that_keeps_other_codes_is_refused(path: Path, tmp_path: Path) -> None:
    Index.open(path, bundle=TINY).close()
    bits = keep_codes_as(copy_bundle(tmp_path / "bits"), packing("1bit", 16))
    with pytest.raises(BindingError, match="made with another code"):
        Index.open(path, bundle=bits)


def test_store_remembers_the_stages_that_it_was_tuned_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noting(*args: Any, funnel: Funnel, **options: Any) -> Any:
        asked.append(str(funnel))
        return search.nearest(*args, funnel=funnel, **options)

    monkeypatch.setattr("edge_mrl.search.ranking.nearest", noting)
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(30))
        index.tune("16x1:20,16x8")
        index.search("the cat")
        index.search("the cat", width=7)
        index.search("the cat", stages="16x1:5,8x8:3,16x8")
    with Index.open(path) as index:
        assert str(index.tuned) == "16x1:20,16x8"
        assert index.stats().stages == "16x1:20,16x8"
        index.search("the cat")
        index.tune(None)
        index.search("the cat")
    tuned, default = "16x1:20,16x8", "16x1:5000,16x8"
    assert asked == [tuned, "16x1:7,16x8", "16x1:5,8x8:3,16x8", tuned, default]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("128x1:5,128x8", "ends with 128x8, but the store keeps int8 codes of 16 dimensions"),
        ("16x1:5,16x8:3,full", "ends with full vectors"),
        ("16x1", "end with 16x8"),
        ("nonsense", "expected DIMSxBITS:WIDTH"),
    ],
)
def test_stages_that_do_not_suit_the_store_are_refused(
    stages: str, message: str, path: Path
) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(3))
        for use in (index.tune, lambda text: index.search("the cat", stages=text)):
            with pytest.raises(UsageError, match=message):
                use(stages)
        with pytest.raises(UsageError, match="width and stages"):
            index.search("the cat", width=5, stages="16x1:5,16x8")
        assert index.tuned is None


def test_stages_say_how_many_full_vectors_rank(path: Path) -> None:
    documents = make_documents(200, words=6)
    with Index.open(path, bundle=TINY, keep_full="fp16") as index:
        index.put(documents)
        coarse = index.search("the cat", k=3, stages="16x1:200,16x8:3,full")
        deep = index.search("the cat", k=3, stages="16x1:200,16x8:200,full")
        assert deep == index.search("the cat", k=200)[:3] != coarse


def test_tuned_stages_that_are_damaged_are_reported(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(3))
        index.tune("16x1:20,16x8")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE settings SET value = '16x1:1,16x8'")
    connection.commit()
    connection.close()
    with Index.open(path) as index, pytest.raises(DamagedError, match="setting 'funnel'"):
        index.search("the cat")


def test_search_for_one_is_search_many_for_one(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(5))
        assert index.search("the dog", k=2) == index.search_many(["the dog"], k=2)[0]
        assert len(index.search("the dog")) == 5


def test_options_are_the_same_for_one_query_and_for_many(path: Path) -> None:
    options = SearchOptions(k=2, mode="keyword", filter={"number": {"$lt": 20}})
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(30))
        one = index.search("the cat", options=options)
        assert [one] == index.search_many(["the cat"], options=options)
        same = index.search("the cat", 2, mode="keyword", filter={"number": {"$lt": 20}})
        assert one == same
        assert len(one) == 2
        assert all(hit.metadata["number"] < 20 for hit in one)
        wider = index.search("the cat", 5, options=options, filter=None)
        assert len(wider) == 5
        assert wider != index.search("the cat", 5, options=options)
        with pytest.raises(TypeError, match="fliter"):
            index.search("the cat", fliter={})  # type: ignore[call-arg]


class Backwards:
    """Somebody who scores documents, and was asked for these."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def rerank(self, ids: Sequence[str], query: Any, *, deadline_s: float) -> dict[str, float]:
        self.asked.append(len(ids))
        assert query.shape == (32,)
        assert deadline_s == 2
        return {name: place / 1000 for place, name in enumerate(ids)}


def test_shortlist_is_ordered_by_whoever_is_asked(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(30))
        scorer = Backwards()
        local = index.search("the cat", k=30)
        found = index.search("the cat", k=4, rerank=scorer, deadline_ms=2000)
    assert scorer.asked == [30]
    assert [hit.id for hit in found] == [hit.id for hit in local[:-5:-1]]
    assert (found.ranked_by, found.reason) == ("server", None)


def test_rerank_needs_a_mode_and_a_name_that_it_knows(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(3))
        with pytest.raises(UsageError, match="rerank needs mode \"vector\", not 'hybrid'"):
            index.search("the cat", mode="hybrid", rerank="auto")
        with pytest.raises(UsageError, match='expected "auto", "always" or a SyncClient'):
            index.search("the cat", rerank="never")  # type: ignore[arg-type]


def test_bundle_without_full_vectors_keeps_the_local_order(path: Path) -> None:
    with Index.open(path, bundle=TINY_COARSE) as index:
        assert index.search("the cat", rerank="always").reason is None  # nothing was found
        index.put(make_documents(3))
        found = index.search("the cat", rerank="always")
        assert (found.ranked_by, found.reason) == ("local", "the bundle gives no full vectors")


def test_document_of_many_passages_comes_once_by_its_best(path: Path) -> None:
    text = "0 1 2 " * 40 + "the cat and a dog barking " + "0 1 2 " * 40
    with Index.open(path, bundle=TINY, max_tokens=12, overlap=4) as index:
        stored = index.put([Document("long", text), Document("short", "testing it")])
        assert stored.passages == index.count().passages > 20
        question = "the cat and a dog barking"
        hits = index.search(question)
        assert sorted(hit.id for hit in hits) == ["long", "short"]
        hit = next(hit for hit in hits if hit.id == "long")
        spans = split_passages(index.encoder, text, index.rule)
        passages = index.encoder.encode([text[start:end] for start, end in spans]).coarse
        scores = similarity(index.encoder.encode([question], kind="query").coarse, passages)[0]
    assert (hit.start, hit.end) == spans[int(scores.argmax())]
    assert hit.text == text[hit.start : hit.end]
    assert hit.score == pytest.approx(scores.max(), abs=SCORE_TOLERANCE)


def test_equal_scores_come_by_id(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put([Document(name, "the cat") for name in ("b", "d", "a", "c")])
        assert [hit.id for hit in index.search("the cat", k=3)] == ["a", "b", "c"]


def test_blank_document_is_kept_but_never_found(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        assert index.put([Document("blank", " \n")]) == Stored(added=1)
        assert index.get(["blank"])["blank"].text == " \n"
        assert index.search("the cat") == []


def test_unchanged_text_is_not_embedded_again(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        documents = make_documents(3)
        assert index.put(documents) == Stored(added=3, passages=3)
        changed = [
            documents[0],
            Document("d001", documents[1].text, {"new": 1}),
            Document("d002", "a dog"),
        ]
        assert index.put(changed) == Stored(updated=1, unchanged=2, passages=1)
        assert [d.metadata for d in index.get(["d000", "d001"]).values()] == [
            {"number": 0},
            {"new": 1},
        ]


def test_unchanged_text_that_another_process_deletes_meanwhile_is_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = make_documents(2)
    with Index.open(path, bundle=TINY) as index, Index.open(path) as other:
        index.put(documents)
        put = index.store.put

        def put_after_another_deletes(*args: Any, **options: Any) -> list[Document]:
            monkeypatch.undo()
            other.delete(["d000"])
            return put(*args, **options)

        monkeypatch.setattr(index.store, "put", put_after_another_deletes)
        assert index.put(documents) == Stored(unchanged=1, added=0, updated=1, passages=1)
        assert index.count() == Counts(2, 2)


def test_id_that_comes_twice_keeps_the_last_text(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        twice = [Document("a", "the cat"), Document("a", "a dog"), Document("b", "it")]
        assert index.put(twice) == Stored(added=2, updated=1, passages=3)
        assert index.get(["a"])["a"].text == "a dog"


def test_batches_are_committed_as_they_are_done(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mrl.ingest.putting.BATCH_DOCUMENTS", 4)
    seen: list[tuple[int, int]] = []
    with Index.open(path, bundle=TINY) as index, Index.open(path) as other:

        def failing() -> object:
            yield from make_documents(9)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index.put(
                failing(),  # type: ignore[arg-type]
                committed=lambda stored: seen.append((stored.documents, other.count().documents)),
            )
        assert seen == [(4, 4), (8, 8)]
        assert index.put(make_documents(9)) == Stored(added=1, unchanged=8, passages=1)


def test_long_documents_make_small_batches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mrl.ingest.putting.BATCH_CHARS", 100)
    sizes: list[int] = []
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(6), committed=lambda stored: sizes.append(stored.documents))
    assert len(sizes) > 2


def test_deleted_document_is_not_found(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(3))
        assert len(index.search("the cat")) == 3
        assert index.delete(["d001", "none"]) == 1
        assert sorted(hit.id for hit in index.search("the cat")) == ["d000", "d002"]


def test_lone_surrogates_and_nul_are_stored_and_found(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put([Document("a", "the \ud800 cat\x00 dog")])
        hit = index.search("the \udfff cat")[0]
        assert hit.text == "the \ufffd cat\x00 dog"


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_an_error(k: int, path: Path) -> None:
    with Index.open(path, bundle=TINY) as index, pytest.raises(UsageError, match="k is"):
        index.search("the cat", k=k)


def test_single_string_for_queries_is_a_type_error(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index, pytest.raises(TypeError, match="single string"):
        index.search_many("the cat")


def test_threads_share_an_index(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(20))
        expected = index.search("the cat")
    with Index.open(path) as index, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: index.search("the cat"), range(40)))
    assert all(result == expected for result in results)


# --- the bundle that a store remembers


def test_store_remembers_its_bundle(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(3))
        expected = index.search("the cat")
    with Index.open(path) as index:
        assert index.search("the cat") == expected


def test_new_store_needs_a_bundle(path: Path) -> None:
    with pytest.raises(UsageError, match="--bundle"):
        Index.open(path)
    with pytest.raises(UsageError, match="no bundle at"):
        Index.open(path, bundle=path.parent / "missing")
    assert not path.exists()


def test_store_and_bundle_may_move_together(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    copy_bundle(old / "bundle")
    with Index.open(old / "notes.db", bundle=old / "bundle") as index:
        index.put(make_documents(3))
    shutil.move(old, new)
    with Index.open(new / "notes.db") as index:
        assert len(index.search("the cat")) == 3
        assert index.binding.bundle == str(new / "bundle")


def test_store_may_move_away_from_its_bundle(tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    with Index.open(tmp_path / "notes.db", bundle=bundle) as index:
        index.put(make_documents(3))
    (tmp_path / "far" / "away").mkdir(parents=True)
    moved = shutil.move(tmp_path / "notes.db", tmp_path / "far" / "away" / "notes.db")
    with Index.open(moved) as index:
        assert len(index.search("the cat")) == 3


def test_bundle_that_moved_is_asked_for_once(path: Path) -> None:
    bundle = copy_bundle(path.parent / "one")
    with Index.open(path, bundle=bundle) as index:
        index.put(make_documents(3))
    moved = bundle.rename(path.parent / "two")
    with Index.open(path) as index:
        assert index.count() == Counts(3, 3)  # what needs no bundle works without
        with pytest.raises(UsageError, match="--bundle DIR"):
            index.search("the cat")
    with Index.open(path, bundle=moved) as index:
        assert len(index.search("the cat")) == 3
    with Index.open(path) as index:
        assert len(index.search("the cat")) == 3


def test_other_bundle_is_refused(path: Path) -> None:
    Index.open(path, bundle=TINY).close()
    before = path.read_bytes()
    with pytest.raises(BindingError, match="tiny-bert-coarse-8"):
        Index.open(path, bundle=TINY_COARSE)
    assert path.read_bytes() == before


def test_other_bundle_in_the_place_of_the_right_one_is_refused(path: Path) -> None:
    bundle = copy_bundle(path.parent / "bundle")
    Index.open(path, bundle=bundle).close()
    shutil.rmtree(bundle)
    copy_bundle(bundle, TINY_COARSE)
    with Index.open(path) as index, pytest.raises(BindingError, match="another code"):
        index.put(make_documents(1))


def test_passage_rule_is_kept_by_the_store(path: Path) -> None:
    with Index.open(path, bundle=TINY, max_tokens=9) as index:
        assert index.rule == PassageRule(9, 1, "markdown")
    with Index.open(path, bundle=TINY, max_tokens=9, overlap=1) as index:
        assert index.rule == PassageRule(9, 1, "markdown")
    with pytest.raises(UsageError, match="up to 9 tokens"):
        Index.open(path, max_tokens=10)


@pytest.mark.parametrize("options", [{"max_tokens": 10_000}, {"overlap": 46}, {"threads": 0}])
def test_options_that_cannot_be_kept_make_no_store(options: dict[str, int], path: Path) -> None:
    with pytest.raises(UsageError):
        Index.open(path, bundle=TINY, **options)  # type: ignore[arg-type]
    assert not path.exists()


def test_coarse_only_bundle_serves_an_index(path: Path) -> None:
    with Index.open(path, bundle=TINY_COARSE) as index:
        index.put(make_documents(3))
        assert len(index.search("the cat")) == 3


@pytest.mark.test
def test_minilm_finds_what_is_meant(path: Path, minilm_bundle: Path) -> None:
    texts = {
        "pets": "Our cat sleeps on the sofa all day and purrs when stroked.",
        "money": "Shares fell sharply after the central bank raised interest rates.",
        "food": "Knead the dough for ten minutes and let it rise in a warm place.",
    }
    with Index.open(path, bundle=minilm_bundle) as index:
        index.put([Document(name, text) for name, text in texts.items()])
        queries = ["a feline at home", "stock market", "how do I bake bread?"]
        best = [hits[0] for hits in index.search_many(queries, k=1)]
    assert [hit.id for hit in best] == ["pets", "money", "food"]
    assert all(isinstance(hit, Hit) and 0.25 < hit.score < 1 for hit in best)


def test_keyword_hits_show_the_passage_that_has_the_words(path: Path) -> None:
    words = "the cat and a model of it " * 8
    with Index.open(path, bundle=TINY, max_tokens=12, overlap=0) as index:
        index.put([Document("long", f"{words} barking dog {words}"), Document("b", "a model")])
        (hit,) = index.search("barking", mode="keyword")
    assert hit.id == "long"
    assert "barking" in hit.text
    assert len(hit.text) < 80
    assert hit.score > 0


def test_hybrid_fuses_both_rankings(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(60))
        rankings = [
            [hit.id for hit in index.search("the barking dog", k=100, mode=mode)]
            for mode in ("vector", "keyword")
        ]
        hits = index.search("the barking dog", k=20, mode="hybrid")
    scores = {
        name: sum(1 / (61 + ranking.index(name)) for ranking in rankings if name in ranking)
        for name in set(rankings[0]) | set(rankings[1])
    }
    best = sorted(scores.values(), reverse=True)[:20]
    assert [hit.score for hit in hits] == pytest.approx(best)
    assert all(hit.score == pytest.approx(scores[hit.id]) for hit in hits)


def test_filter_is_applied_before_the_search(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index:
        index.put(make_documents(200))
        for mode in ("vector", "hybrid"):
            hits = index.search("the cat", k=5, mode=mode, filter={"number": {"$gte": 195}})
            assert sorted(hit.id for hit in hits) == [f"d{n}" for n in range(195, 200)]
        assert index.select({"number": {"$in": [7, 3]}}) == ["d003", "d007"]


def test_unknown_mode_is_an_error(path: Path) -> None:
    with Index.open(path, bundle=TINY) as index, pytest.raises(UsageError, match="mode"):
        index.search("cat", mode="fuzzy")  # type: ignore[arg-type]
