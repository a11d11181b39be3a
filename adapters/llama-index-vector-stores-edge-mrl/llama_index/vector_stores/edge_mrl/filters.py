"""LlamaIndex's filters as edge-mrl's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

__all__ = ["translate"]

Filter = dict[str, Any]


def _contains(key: str, value: Any) -> Filter:
    """A list that has the value, or a text that has it within."""
    within = [{key: {"$contains": value}}] if isinstance(value, str) else []
    return {"$or": [{key: {"$eq": value}}, *within]}


def _empty(key: str, _: Any) -> Filter:
    """No such name, an empty list, null, or an empty text."""
    return {"$or": [{key: {"$exists": False}}, {key: {"$in": [None, ""]}}]}


_OPERATORS: dict[FilterOperator, Callable[[str, Any], Filter]] = {
    FilterOperator.EQ: lambda key, value: {key: {"$eq": value}},
    FilterOperator.NE: lambda key, value: {key: {"$ne": value}},
    FilterOperator.GT: lambda key, value: {key: {"$gt": value}},
    FilterOperator.GTE: lambda key, value: {key: {"$gte": value}},
    FilterOperator.LT: lambda key, value: {key: {"$lt": value}},
    FilterOperator.LTE: lambda key, value: {key: {"$lte": value}},
    FilterOperator.IN: lambda key, value: {key: {"$in": value}},
    FilterOperator.NIN: lambda key, value: {key: {"$nin": value}},
    FilterOperator.ANY: lambda key, value: {key: {"$in": value}},
    FilterOperator.ALL: lambda key, value: {"$and": [{key: {"$eq": one}} for one in value]},
    FilterOperator.TEXT_MATCH: lambda key, value: {key: {"$contains": value}},
    FilterOperator.CONTAINS: _contains,
    FilterOperator.IS_EMPTY: _empty,
}


def translate(filters: MetadataFilters | None) -> Filter:
    """A filter for ``edge_mrl.Index``; {} for none.

    Raises:
        ValueError: edge-mrl has no such operator.
    """
    if filters is None or not filters.filters:
        return {}
    parts = [
        translate(one) if isinstance(one, MetadataFilters) else _one(one) for one in filters.filters
    ]
    if filters.condition == FilterCondition.OR:
        return {"$or": parts}
    if filters.condition == FilterCondition.NOT:
        return {"$not": {"$or": parts}}
    return {"$and": parts}


def _one(given: MetadataFilter) -> Filter:
    if given.operator not in _OPERATORS:
        raise ValueError(f"edge-mrl has no operator {given.operator.value}")
    return _OPERATORS[given.operator](given.key, given.value)
