"""LlamaIndex ships no conformance tests: here is what it asks of an embedding, and an index over it."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.embeddings.edge_mrl import EdgeMRLEmbedding

from edge_mrl import Encoder, UsageError

BUNDLE = os.environ["EDGE_MRL_BUNDLE"]
TEXTS = [f"The ferry number {n} leaves at dawn." for n in range(30)]


@pytest.mark.parametrize("dim", [None, 8])
def test_vectors_are_those_of_the_encoder(dim: int | None) -> None:
    embedding = EdgeMRLEmbedding(BUNDLE, dim=dim)
    assert isinstance(embedding, BaseEmbedding)
    with Encoder.open(BUNDLE) as encoder:
        documents = encoder.encode_document(TEXTS, dim=dim).tolist()
        question = encoder.encode_query("a ferry", dim=dim).tolist()
    assert np.allclose(embedding.get_text_embedding_batch(TEXTS), documents, atol=1e-5)
    assert embedding.get_text_embedding(TEXTS[0]) == pytest.approx(documents[0], abs=1e-5)
    assert embedding.get_query_embedding("a ferry") == question
    found = asyncio.run(embedding.aget_text_embedding_batch(TEXTS))
    assert np.allclose(found, documents, atol=1e-5)
    assert asyncio.run(embedding.aget_query_embedding("a ferry")) == question
    embedding.close()
    assert embedding.get_query_embedding("a ferry") == question


def test_it_is_written_and_read_by_its_name() -> None:
    embedding = EdgeMRLEmbedding(BUNDLE, dim=4)
    again = EdgeMRLEmbedding.from_dict(embedding.to_dict())
    assert (again.bundle, again.dim, again.class_name()) == (BUNDLE, 4, "EdgeMRLEmbedding")
    assert len(again.get_text_embedding("a cat")) == 4


def test_an_index_finds_the_text_itself() -> None:
    nodes = [TextNode(text=text, id_=str(n)) for n, text in enumerate(TEXTS)]
    index = VectorStoreIndex(nodes, embed_model=EdgeMRLEmbedding(BUNDLE))
    found = index.as_retriever(similarity_top_k=3).retrieve(TEXTS[7])
    assert len(found) == 3


def test_what_the_bundle_cannot_give_is_refused() -> None:
    with pytest.raises(UsageError, match="expected at most"):
        EdgeMRLEmbedding(BUNDLE, dim=24).get_query_embedding("a cat")
