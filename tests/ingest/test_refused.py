"""Texts that a bundle cannot take: named and left out, whatever lies beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_mrl import ingest
from edge_mrl.documents import Document
from edge_mrl.encode.encoder import Encoder
from edge_mrl.errors import BundleError, EncoderError, RefusedDocumentsError, UsageError
from edge_mrl.index import Index
from edge_mrl.ingest import Refused, full_vectors
from edge_mrl.store import Store, binding_of, reindex
from tests.support.bundles import TINY, copy_bundle, refresh_file

#: A token beyond the model's table, as added tokens of some models are.
BEYOND = "[URL]"


def with_token_beyond(bundle: Path) -> Path:
    path = bundle / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "special": False}
    tokenizer["added_tokens"].append(
        {"id": 100_000, "content": BEYOND, "normalized": False, **plain}
    )
    path.write_text(json.dumps(tokenizer), "utf-8")
    refresh_file(bundle, path.name)
    return bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_token_beyond(copy_bundle(tmp_path_factory.mktemp("beyond") / "bundle"))


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> Iterator[Encoder]:
    with Encoder.open(bundle) as encoder:
        yield encoder


def documents(count: int, bad: set[int]) -> list[Document]:
    return [
        Document(str(n), f"open {BEYOND} now" if n in bad else f"a cat and {n} dogs")
        for n in range(count)
    ]


def test_encoder_says_so_in_one_line(encoder: Encoder) -> None:
    with pytest.raises(EncoderError, match="cannot read this text") as error:
        encoder.encode(["a cat", f"open {BEYOND}"])
    assert "\n" not in str(error.value)
    assert len(encoder.encode(["a cat"])) == 1


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 9), bad=st.sets(st.integers(0, 8), max_size=4))
def test_exactly_the_bad_ones_are_left_out(
    count: int, bad: set[int], bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bad = {n for n in bad if n < count}
    path = tmp_path_factory.mktemp("store") / "s.db"
    with Index.open(path, bundle) as index:
        stored = index.put(documents(count, bad), on_error="skip")
        assert sorted(one.id for one in stored.refused) == sorted(map(str, bad))
        assert all("graph cannot read this text" in one.reason for one in stored.refused)
        assert stored.added == count - len(bad) == index.count().documents
        # The next run tries them again, and nothing else.
        again = index.put(documents(count, bad), on_error="skip")
        assert (again.added, again.unchanged) == (0, count - len(bad))
        assert len(again.refused) == len(bad)


def test_error_comes_after_all_others_are_stored(bundle: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "s.db", bundle) as index:
        with pytest.raises(RefusedDocumentsError, match="1 of 5 documents") as error:
            index.put(documents(5, {0}))
        assert [one.id for one in error.value.stored.refused] == ["0"]
        assert error.value.stored.added == 4 == index.count().documents
        with pytest.raises(UsageError, match="on_error is 'ignore'"):
            index.put([], on_error="ignore")


def test_document_that_is_refused_keeps_its_former_text(bundle: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "s.db", bundle) as index:
        index.put(documents(1, set()))
        index.put(documents(1, {0}), on_error="skip")
        assert index.get(["0"])["0"].text == "a cat and 0 dogs"


def test_bundle_that_takes_no_text_ends_the_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise EncoderError("the bundle's graph cannot read this text: broken")

    with Index.open(tmp_path / "s.db", bundle) as index:
        monkeypatch.setattr(index.encoder, "encode", refuse)
        with pytest.raises(BundleError, match="takes no text"):
            index.put(documents(3, set()), on_error="skip")


def test_full_vectors_are_made_of_all_other_documents(encoder: Encoder) -> None:
    first, second, third = full_vectors(encoder, [["a cat"], [f"a {BEYOND}"], ["a dog", "0 1"]])
    assert second is None
    assert first is not None
    assert third is not None
    assert (first.shape[0], third.shape[0]) == (1, 2)


def test_reindexing_goes_on_past_a_text_that_the_new_bundle_refuses(
    bundle: Path, tmp_path: Path
) -> None:
    refused: list[object] = []
    with Index.open(tmp_path / "s.db", TINY) as index:
        index.put(documents(4, {2}))
        # Another code, so that it is another bundle, is not needed to embed again.
        assert index.reindex(bundle, refused=refused) == 4
        assert [one.id for one in refused] == ["2"]
        assert index.get(["2"])["2"].text == f"open {BEYOND} now"
        assert index.check().sound
        assert [hit.id for hit in index.search("open", mode="keyword")] == ["2"]


def test_what_a_failing_iterable_gave_before_is_stored(tmp_path: Path) -> None:
    def some() -> Iterator[Document]:
        yield from documents(3, set())
        raise ValueError("the disk")

    with Index.open(tmp_path / "s.db", TINY) as index:
        with pytest.raises(ValueError, match="the disk"):
            index.put(some())
        assert index.count().documents == 3


def test_former_names_work_and_warn(bundle: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "s.db", TINY) as index:
        index.put(documents(5, {3}))
    refused: list[Refused] = []
    counted: list[tuple[int, int]] = []
    with Store.open(tmp_path / "s.db") as store, Encoder.open(bundle) as encoder:
        wanted = reindex.Reindexing(
            binding_of(encoder.manifest, bundle), store.rule, store.keep_full
        )
        with pytest.warns(DeprecationWarning, match="embed_again .*: use recode"):
            embed_again = ingest.embed_again
        done = embed_again(store, encoder, wanted, lambda *n: counted.append(n), refused)
        assert store.binding.code_id == encoder.manifest.code_id
    assert (done, [one.id for one in refused]) == (5, ["3"])
    assert counted[-1] == (5, 5)
    with pytest.warns(DeprecationWarning, match="REINDEX_DOCUMENTS goes with the next minor"):
        assert ingest.REINDEX_DOCUMENTS == 64
