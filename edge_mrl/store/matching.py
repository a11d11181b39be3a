"""Filters on metadata, compared with a document itself: what is damaged in their index is no answer."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_mrl.store.filters import TEXT, Field, field_rows, kind_of

__all__ = ["matches"]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def matches(where: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Whether a document's metadata match a filter, by the rules of ``filters.compile_filter``.

    Args:
        where: A filter that ``compile_filter`` takes. One with ``$match`` asks for words of the text, of
            which metadata say nothing: all metadata match it.
        metadata: The document's.
    """
    return _asks_for_words(where) or _all(where, field_rows(metadata))


def _asks_for_words(where: Mapping[str, Any]) -> bool:
    if "$match" in where:
        return True
    parts = [*where.get("$and", ()), *where.get("$or", ())]
    if "$not" in where:
        parts.append(where["$not"])
    return any(map(_asks_for_words, parts))


def _all(where: Mapping[str, Any], rows: Sequence[Field]) -> bool:
    return all(_condition(name, value, rows) for name, value in where.items())


def _condition(name: str, value: Any, rows: Sequence[Field]) -> bool:
    if name == "$and":
        return all(_all(part, rows) for part in value)
    if name == "$or":
        return any(_all(part, rows) for part in value)
    if name == "$not":
        return not _all(value, rows)
    there = [(kind, inner) for known, kind, inner in rows if known == name]
    return _holds(value if isinstance(value, Mapping) else {"$eq": value}, there)


def _holds(operators: Mapping[str, Any], there: Sequence[tuple[int, Any]]) -> bool:
    return all(_operator(sign, value, there) for sign, value in operators.items())


def _operator(sign: str, value: Any, there: Sequence[tuple[int, Any]]) -> bool:
    if sign == "$exists":
        return bool(there) is value
    if sign == "$not":
        return not _holds(value, there)
    if sign in ("$in", "$nin"):
        return any(kind_of(one) in there for one in value) == (sign == "$in")
    if sign in ("$eq", "$ne"):
        return (kind_of(value) in there) == (sign == "$eq")
    kind, bound = kind_of(value)
    if sign == "$contains":
        return any(known == TEXT and bound in inner for known, inner in there)
    compare = _COMPARE[sign]
    return any(known == kind and compare(inner, bound) for known, inner in there)
