"""Haystack's filters as edge-mrl's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from haystack.errors import FilterError

__all__ = ["translate"]

Filter = dict[str, Any]


def _equal(name: str, value: Any) -> Filter:
    if value is None:
        return {"$or": [{name: {"$exists": False}}, {name: {"$eq": None}}]}
    return {name: {"$eq": value}}


def _unequal(name: str, value: Any) -> Filter:
    return {"$not": _equal(name, value)}


def _ordered(operator: str) -> Callable[[str, Any], Filter]:
    def compare(name: str, value: Any) -> Filter:
        if value is None:  # nothing is more or less than nothing
            return {"$and": [{name: {"$exists": True}}, {name: {"$exists": False}}]}
        if isinstance(value, str):
            try:
                datetime.fromisoformat(value)
            except ValueError as error:
                raise FilterError(f"{value!r} is no number and no time to compare with") from error
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise FilterError(f"{value!r} is no number and no time to compare with")
        return {name: {operator: value}}

    return compare


def _among(operator: str) -> Callable[[str, Any], Filter]:
    def compare(name: str, value: Any) -> Filter:
        if not isinstance(value, list):
            raise FilterError(f"{value!r} is no list: `in` and `not in` take one")
        return {name: {operator: value}}

    return compare


_OPERATORS: dict[str, Callable[[str, Any], Filter]] = {
    "==": _equal,
    "!=": _unequal,
    ">": _ordered("$gt"),
    ">=": _ordered("$gte"),
    "<": _ordered("$lt"),
    "<=": _ordered("$lte"),
    "in": _among("$in"),
    "not in": _among("$nin"),
}


def translate(filters: Mapping[str, Any] | None) -> Filter:
    """A filter for ``edge_mrl.Index``; {} for none.

    Raises:
        FilterError: It is no filter of Haystack's, or edge-mrl cannot compare so.
    """
    if not filters:
        return {}
    if "field" in filters:
        return _comparison(filters)
    if "operator" not in filters or "conditions" not in filters:
        raise FilterError(f"{filters!r}: expected field, or operator and conditions")
    parts = [translate(one) for one in filters["conditions"]]
    if not all(parts):
        raise FilterError(f"{filters!r} has an empty condition")
    match filters["operator"]:
        case "AND":
            return {"$and": parts}
        case "OR":
            return {"$or": parts}
        case "NOT":
            return {"$not": {"$and": parts}}
    raise FilterError(f"operator {filters['operator']!r}: expected AND, OR or NOT")


def _comparison(filters: Mapping[str, Any]) -> Filter:
    if "operator" not in filters or "value" not in filters:
        raise FilterError(f"{filters!r}: expected field, operator and value")
    if filters["operator"] not in _OPERATORS:
        raise FilterError(f"edge-mrl has no operator {filters['operator']!r}")
    name = str(filters["field"])
    if name in ("id", "content", "embedding", "blob", "score"):
        raise FilterError(f"edge-mrl filters by meta, not by {name}")
    return _OPERATORS[filters["operator"]](name.removeprefix("meta."), filters["value"])
