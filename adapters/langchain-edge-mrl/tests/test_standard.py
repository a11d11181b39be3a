"""LangChain's standard tests, all of them, and what is ours alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import VectorStore
from langchain_edge_mrl import EdgeMRLEmbeddings, EdgeMRLRetriever, EdgeMRLVectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

BUNDLE = os.environ["EDGE_MRL_BUNDLE"]
NOTES = [
    Document("The ferry leaves at dawn.", id="ferry", metadata={"lang": "en", "n": 1}),
    Document("The ferry leaves at dusk.", id="dusk", metadata={"lang": "en", "n": 2}),
    Document("Le chat dort.", id="chat", metadata={"lang": "fr", "n": 3}),
    Document("A cat and a dog and a bird.", id="pets", metadata={"lang": "en", "n": 4}),
]


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    embeddings_class = EdgeMRLEmbeddings
    embedding_model_params = {"bundle": BUNDLE}


class TestEmbeddings(EmbeddingsIntegrationTests):
    embeddings_class = EdgeMRLEmbeddings
    embedding_model_params = {"bundle": BUNDLE}


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        with EdgeMRLVectorStore.open(tmp_path / "s.db", BUNDLE) as store:
            yield store


class TestRetriever(RetrieversIntegrationTests):
    retriever_constructor = EdgeMRLRetriever
    retriever_query_example = "the ferry"

    @pytest.fixture(autouse=True)
    def filled(self, tmp_path: Path) -> None:
        self.path = tmp_path / "s.db"
        with EdgeMRLVectorStore.open(self.path, BUNDLE) as store:
            store.add_documents(NOTES)

    @property
    def retriever_constructor_params(self) -> dict[str, object]:
        return {"store": str(self.path)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EdgeMRLVectorStore]:
    with EdgeMRLVectorStore.open(tmp_path / "s.db", BUNDLE) as opened:
        opened.add_documents(NOTES)
        yield opened


def test_searches_by_vector_find_what_searches_by_words_of_it_find(
    store: EdgeMRLVectorStore,
) -> None:
    vector = store.embeddings.embed_query("the ferry")
    found = store.similarity_search_by_vector(vector, k=3)
    assert found == store.similarity_search("the ferry", k=3)
    assert store.max_marginal_relevance_search("the ferry", k=3, lambda_mult=1.0) == found
    assert store.max_marginal_relevance_search_by_vector(vector, k=3, lambda_mult=1.0) == found
    diverse = store.max_marginal_relevance_search("the ferry", k=4, lambda_mult=0.0)
    assert {d.id for d in diverse} == {d.id for d in NOTES}


@pytest.mark.parametrize("filter", [None, {}, {"lang": "fr"}, {"n": {"$gte": 3}}])
async def test_filters(store: EdgeMRLVectorStore, filter: dict[str, object] | None) -> None:
    expected = {"fr": {"chat"}, 3: {"chat", "pets"}}
    wanted = {d.id for d in NOTES}
    if filter:
        (value,) = filter.values()
        wanted = expected["fr" if value == "fr" else 3]
    assert {d.id for d in store.similarity_search("ferry", k=9, filter=filter)} == wanted
    kept = store.as_retriever(search_kwargs={"filter": filter, "k": 9})
    assert {d.id for d in await kept.ainvoke("ferry")} == wanted


def test_scores_are_cosines(store: EdgeMRLVectorStore) -> None:
    (best, score), *others = store.similarity_search_with_score(NOTES[0].page_content, k=4)
    assert best.id == "ferry"
    assert 0.5 < score <= 1.001
    assert all(score >= other for _, other in others)
    relevant = store.similarity_search_with_relevance_scores(NOTES[0].page_content, k=4)
    assert all(0 <= one <= 1 for _, one in relevant)


def test_an_index_of_langchain_cleans_up(store: EdgeMRLVectorStore) -> None:
    records = InMemoryRecordManager("notes")
    records.create_schema()
    store.delete()
    options = {"cleanup": "full", "source_id_key": "lang", "key_encoder": "sha256"}
    assert index(NOTES, records, store, **options)["num_added"] == 4
    done = index(NOTES[:1], records, store, **options)
    assert (done["num_skipped"], done["num_deleted"]) == (1, 3)
    assert [d.page_content for d in store.similarity_search("cat", k=9)] == [NOTES[0].page_content]


def test_from_texts_and_passages(tmp_path: Path) -> None:
    long = "The cat sleeps. " * 200
    texts, path = [long, "a ferry"], tmp_path / "s.db"
    embedding = EdgeMRLEmbeddings(bundle=BUNDLE)
    with EdgeMRLVectorStore.from_texts(texts, embedding, ids=["a", "b"], path=path) as store:
        assert [d.page_content for d in store.get_by_ids(["a", "x"])] == [long]
    with pytest.raises(TypeError, match="path is missing"):
        EdgeMRLVectorStore.from_texts(texts, embedding)
    retriever = EdgeMRLRetriever(store=str(path), k=1)
    (found,) = retriever.invoke("cat")
    place = found.metadata
    assert found.page_content == long[place["start"] : place["end"]]
    assert len(found.page_content) < len(long)
    retriever.close()
    (whole,) = EdgeMRLRetriever(store=str(path), k=1, whole=True).invoke("cat")
    assert whole.page_content == long


def test_dimensions() -> None:
    assert len(EdgeMRLEmbeddings(bundle=BUNDLE, dim=8).embed_query("a cat")) == 8
