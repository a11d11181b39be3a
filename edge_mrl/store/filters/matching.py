"""Filters on metadata, compared with a document itself: what is damaged in their index is no answer."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_mrl.store.filters.values import TEXT, Field, field_rows, kind_of

__all__ = ["matches"]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def matches(where: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Whether a document's metadata match a filter, by the rules of ``compiling.compile_filter``.

    Args:
        where: A filter that ``compile_filter`` takes. Of ``$match``, which asks for words of the text,
            metadata say nothing: what depends on it counts as a match.
        metadata: The document's.
    """
    return _all(where, field_rows(metadata)) is not False


def _all(where: Mapping[str, Any], rows: Sequence[Field]) -> bool | None:
    """Whether all conditions hold; None if the words of the text decide."""
    return _joined([_condition(name, value, rows) for name, value in where.items()], every=True)


def _joined(parts: Sequence[bool | None], *, every: bool) -> bool | None:
    """Whether every part holds, or any; None if that depends on parts that are not known."""
    if (not every) in parts:
        return not every
    return None if None in parts else every


def _condition(name: str, value: Any, rows: Sequence[Field]) -> bool | None:
    if name == "$match":
        return None
    if name in ("$and", "$or"):
        return _joined([_all(part, rows) for part in value], every=name == "$and")
    if name == "$not":
        inner = _all(value, rows)
        return None if inner is None else not inner
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
