"""Haystack's tests for document stores, and what is ours alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from haystack import Document, Pipeline
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing.document_store import (
    CountDocumentsByFilterTest,
    DeleteByFilterTest,
    DocumentStoreBaseTests,
)
from haystack_integrations.components.embedders.edge_mrl import (
    EdgeMRLDocumentEmbedder,
    EdgeMRLTextEmbedder,
)
from haystack_integrations.components.retrievers.edge_mrl import EdgeMRLRetriever
from haystack_integrations.document_stores.edge_mrl import EdgeMRLDocumentStore

from edge_mrl import Encoder, Index

BUNDLE = os.environ["EDGE_MRL_BUNDLE"]


@pytest.fixture(name="document_store")
def opened(tmp_path: Path) -> Iterator[EdgeMRLDocumentStore]:
    store = EdgeMRLDocumentStore(str(tmp_path / "s.db"), BUNDLE)
    yield store
    store.close()


class TestStore(DocumentStoreBaseTests, DeleteByFilterTest, CountDocumentsByFilterTest):
    @pytest.fixture(name="document_store")
    def store_of_the_class(self, tmp_path: Path) -> Iterator[EdgeMRLDocumentStore]:
        store = EdgeMRLDocumentStore(str(tmp_path / "s.db"), BUNDLE)
        yield store
        store.close()

    def test_write_documents(self, document_store: EdgeMRLDocumentStore) -> None:
        """Haystack leaves the default to the store, and asks that this test is written anew."""
        documents = [Document(content="a"), Document(content=None, meta={"x": [1, {"y": None}]})]
        assert document_store.write_documents(documents) == 2
        assert document_store.filter_documents() == documents
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents(documents)


def test_a_pipeline_finds_and_is_written_to_a_file(document_store: EdgeMRLDocumentStore) -> None:
    document_store.write_documents(
        [Document(content="a ferry", meta={"n": 1}), Document(content="a cat", meta={"n": 2})]
    )
    pipeline = Pipeline()
    pipeline.add_component("retriever", EdgeMRLRetriever(document_store, top_k=5, mode="keyword"))
    again = Pipeline.loads(pipeline.dumps())
    for one in (pipeline, again):
        (found,) = one.run({"retriever": {"query": "ferry"}})["retriever"]["documents"]
        assert (found.content, found.meta) == ("a ferry", {"n": 1})
        assert found.score is not None
        unfit = {"field": "meta.n", "operator": ">", "value": 1}
        asked = {"retriever": {"query": "ferry", "filters": unfit}}
        assert one.run(asked)["retriever"]["documents"] == []
    again.get_component("retriever").document_store.close()


def test_embedders_give_the_vectors_of_the_encoder() -> None:
    given = [Document(content="a ferry"), Document(content="a cat")]
    embedded = EdgeMRLDocumentEmbedder(BUNDLE, dim=8).run(given)["documents"]
    question = EdgeMRLTextEmbedder(BUNDLE).run("a ferry")["embedding"]
    with Encoder.open(BUNDLE) as encoder:
        expected = encoder.encode_document(["a ferry", "a cat"], dim=8).tolist()
        assert [one.embedding for one in embedded] == expected
        assert question == encoder.encode_query("a ferry").tolist()
    assert [one.embedding for one in given] == [None, None]


def test_documents_of_other_programs_are_read(document_store: EdgeMRLDocumentStore) -> None:
    from edge_mrl import Document as Own

    with Index.open(document_store.path, BUNDLE) as index:
        index.put([Own("x", "a ferry", {"lang": "en"})])
    assert document_store.filter_documents() == [
        Document(id="x", content="a ferry", meta={"lang": "en"})
    ]
    assert document_store.write_documents([Document(id="x")], DuplicatePolicy.SKIP) == 0
