"""LlamaIndex ships no conformance tests: here is what it asks of a vector store, and an index over it.

Filters are compared with those of LlamaIndex's own store in memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_index.vector_stores.edge_mrl import EdgeMRLVectorStore

from edge_mrl import Encoder

BUNDLE = os.environ["EDGE_MRL_BUNDLE"]
ABOUT: list[dict[str, Any]] = [
    {"lang": "en", "year": 2020, "tags": ["a", "b"], "title": "Ferry times"},
    {"lang": "en", "year": 2021, "tags": ["b"], "title": ""},
    {"lang": "fr", "year": 2022, "tags": []},
    {"lang": "de", "tags": ["a", "b", "c"], "title": "Die Katze"},
]
TEXTS = [
    "The ferry leaves at dawn.",
    "The ferry leaves at dusk.",
    "Le chat dort.",
    "A bird and a dog.",
]
F = FilterOperator


def node(number: int, document: str = "notes") -> TextNode:
    about = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(
        text=TEXTS[number], id_=str(number), metadata=ABOUT[number], relationships=about
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EdgeMRLVectorStore]:
    opened = EdgeMRLVectorStore.open(tmp_path / "s.db", BUNDLE)
    assert opened.add([node(n, "odd" if n % 2 else "even") for n in range(4)]) == list("0123")
    yield opened
    opened.close()


def ids(found: Any) -> set[str]:
    return {one.node_id for one in found}


def test_nodes_come_back_as_they_were(store: EdgeMRLVectorStore) -> None:
    found = sorted(store.get_nodes(), key=lambda one: one.node_id)
    assert [one.to_dict() for one in found] == [
        node(n, "odd" if n % 2 else "even").to_dict() for n in range(4)
    ]
    assert ids(store.get_nodes(["1", "9"])) == {"1"}
    assert store.get_nodes([]) == []


def test_an_empty_store_answers_nothing(tmp_path: Path) -> None:
    empty = EdgeMRLVectorStore.open(tmp_path / "s.db", BUNDLE)
    assert empty.query(VectorStoreQuery(query_str="a cat", similarity_top_k=3)).ids == []
    empty.close()


@pytest.mark.parametrize(
    "mode", ["DEFAULT", "TEXT_SEARCH", "SPARSE", "HYBRID", "SEMANTIC_HYBRID", "MMR"]
)
def test_modes(store: EdgeMRLVectorStore, mode: str) -> None:
    asked = VectorStoreQuery(
        query_str="ferry", similarity_top_k=2, mode=VectorStoreQueryMode[mode], mmr_threshold=1.0
    )
    found = store.query(asked)
    assert len(found.ids or []) == len(found.nodes or []) == len(found.similarities or []) == 2
    if mode in ("TEXT_SEARCH", "SPARSE"):
        assert set(found.ids or []) == {"0", "1"}
    assert asyncio.run(store.aquery(asked)).ids == found.ids
    assert sorted(found.similarities or [], reverse=True) == found.similarities


def test_a_vector_finds_what_the_words_find(store: EdgeMRLVectorStore) -> None:
    with Encoder.open(BUNDLE) as encoder:
        vector = encoder.encode_query("the ferry").tolist()
    by_vector = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=4))
    by_words = store.query(VectorStoreQuery(query_str="the ferry", similarity_top_k=4))
    assert by_vector.ids == by_words.ids
    hybrid = VectorStoreQuery(query_embedding=vector, mode=VectorStoreQueryMode.HYBRID)
    with pytest.raises(ValueError, match="needs query_str"):
        store.query(hybrid)
    with pytest.raises(ValueError, match="no mode"):
        store.query(VectorStoreQuery(query_str="x", mode=VectorStoreQueryMode.SVM))


FILTERS = [
    ("lang", F.EQ, "en"),
    ("year", F.EQ, 2020),
    ("lang", F.NE, "en"),
    ("year", F.NE, 2020),
    ("year", F.GT, 2020),
    ("year", F.GTE, 2021),
    ("year", F.LT, 2021),
    ("year", F.LTE, 2021),
    ("lang", F.IN, ["en", "fr"]),
    ("lang", F.NIN, ["en", "fr"]),
    ("tags", F.ANY, ["a", "c"]),
    ("tags", F.ALL, ["a", "b"]),
    ("tags", F.CONTAINS, "b"),
    ("title", F.TEXT_MATCH, "Ferry"),
    ("title", F.IS_EMPTY, None),
    ("tags", F.IS_EMPTY, None),
]


def expected(filters: MetadataFilters) -> set[str]:
    """What LlamaIndex's own store in memory would find."""
    matches = build_metadata_filter_fn(lambda name: ABOUT[int(name)], filters)
    return {name for name in "0123" if matches(name)}


@pytest.mark.parametrize(("key", "operator", "value"), FILTERS)
def test_operators_are_those_of_llama_index(
    store: EdgeMRLVectorStore, key: str, operator: FilterOperator, value: Any
) -> None:
    one = MetadataFilter(key=key, operator=operator, value=value)
    for condition in FilterCondition:
        filters = MetadataFilters(filters=[one], condition=condition)
        assert ids(store.get_nodes(filters=filters)) == expected(filters)
        asked = VectorStoreQuery(query_str="a", similarity_top_k=9, filters=filters)
        assert set(store.query(asked).ids or []) == expected(filters)


@pytest.mark.parametrize("condition", list(FilterCondition))
def test_conditions(store: EdgeMRLVectorStore, condition: FilterCondition) -> None:
    parts = [
        MetadataFilter(key=key, operator=operator, value=value) for key, operator, value in FILTERS
    ]
    for first in parts:
        for second in parts[::3]:
            both = MetadataFilters(filters=[first, second], condition=condition)
            assert ids(store.get_nodes(filters=both)) == expected(both)
    nested = MetadataFilters(
        filters=[MetadataFilters(filters=parts[:2], condition=condition), parts[4]],
        condition=FilterCondition.OR,
    )
    inner = expected(MetadataFilters(filters=parts[:2], condition=condition))
    outer = expected(MetadataFilters(filters=[parts[4]]))
    assert ids(store.get_nodes(filters=nested)) == inner | outer


def test_an_operator_that_is_not_there_is_refused(store: EdgeMRLVectorStore) -> None:
    odd = MetadataFilter(key="lang", operator=F.TEXT_MATCH_INSENSITIVE, value="EN")
    with pytest.raises(ValueError, match="text_match_insensitive"):
        store.get_nodes(filters=MetadataFilters(filters=[odd]))


def test_ids_and_documents_limit_a_query(store: EdgeMRLVectorStore) -> None:
    asked = VectorStoreQuery(query_str="a", similarity_top_k=9, doc_ids=["odd"])
    assert set(store.query(asked).ids or []) == {"1", "3"}
    asked = VectorStoreQuery(query_str="a", similarity_top_k=9, node_ids=["1", "2"])
    assert set(store.query(asked).ids or []) == {"1", "2"}


def test_deleting(store: EdgeMRLVectorStore) -> None:
    store.delete("odd")
    assert ids(store.get_nodes()) == {"0", "2"}
    store.delete("odd")
    asyncio.run(store.adelete_nodes(["0", "9"]))
    assert ids(store.get_nodes()) == {"2"}
    store.delete_nodes()
    assert ids(store.get_nodes()) == {"2"}
    asyncio.run(store.aclear())
    assert asyncio.run(store.aget_nodes()) == []


def test_an_index_over_it(tmp_path: Path) -> None:
    store = EdgeMRLVectorStore.open(tmp_path / "s.db", BUNDLE)
    embed = MockEmbedding(embed_dim=1)
    context = StorageContext.from_defaults(vector_store=store)
    nodes = [node(n) for n in range(4)]
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=embed)
    found = index.as_retriever(similarity_top_k=1, vector_store_query_mode="text_search").retrieve(
        "chat"
    )
    assert [one.node.node_id for one in found] == ["2"]
    options = {"vector_store_query_mode": "mmr", "vector_store_kwargs": {"mmr_threshold": 0.2}}
    assert len(index.as_retriever(similarity_top_k=3, **options).retrieve("chat")) == 3
    index.delete_ref_doc("notes")
    assert store.get_nodes() == []
    store.close()
    again = EdgeMRLVectorStore.open(tmp_path / "s.db")
    assert VectorStoreIndex.from_vector_store(again, embed_model=embed).vector_store is again
    again.close()
