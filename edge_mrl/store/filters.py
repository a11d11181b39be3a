"""Filters on metadata: the query documents that MongoDB, Chroma and Pinecone have, as SQL.

A filter becomes one SELECT over the ``fields`` table, with every name and value as a parameter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edge_mrl.documents import metadata_problem, shorten, text_problem, value_problem
from edge_mrl.errors import UsageError
from edge_mrl.store.keywords.expression import match_expression

__all__ = ["TEXT", "Field", "compile_filter", "field_rows", "kind_of"]

#: How a value is compared: only with values of its own kind, so that "2" never equals 2.
NULL, BOOL, NUMBER, TEXT = range(4)
#: SQLite allows 500 parts in a compound SELECT, and its parser has a stack of 100, which 12 levels
#: of negation fill; people write far fewer.
MAX_CONDITIONS = 200
MAX_DEPTH = 8

#: SQL and its parameters.
Query = tuple[str, list[Any]]
Field = tuple[str, int, Any]

_COMPARE = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_LEAF = "SELECT document FROM fields WHERE name = ?"
_EVERYTHING: Query = ("SELECT key AS document FROM documents", [])
_HELP = (
    'expected {"name": value}, with $eq $ne $in $nin $gt $gte $lt $lte $contains $exists $not for a '
    'name, $and $or $not around whole filters, and {"$match": words} for the text'
)


def field_rows(metadata: Mapping[str, Any]) -> list[Field]:
    """The comparable values in metadata, as rows (name, kind, value) without repetition.

    Objects within are reached by dotted names; a list counts as each of its values. Metadata beyond the
    limits of ``edge_mrl.documents``, as older versions stored it, has no rows.
    """
    if not metadata or metadata_problem(metadata) is not None:
        return []
    return sorted(set(_walk("", metadata)), key=repr)


def compile_filter(where: Mapping[str, Any]) -> Query:
    """Turn a filter into ``SELECT document ...`` with its parameters.

    Args:
        where: ``{"lang": "en", "year": {"$gte": 2020}, "$or": [{"tag": "a"}, {"tag": "b"}]}``: all
            conditions hold. ``$ne``, ``$nin`` and ``$not`` also match documents without the name. ``{}``
            matches all documents. Integers of 64 bits and floats are compared exactly.
            ``{"title": {"$contains": "ferry"}}`` matches texts that have this text in them, in the same
            letter case. ``{"$match": "ferry times"}`` matches documents whose text has all these words,
            found as a keyword search finds them, with ``"phrases"`` and ``prefix*``.

    Raises:
        UsageError: ``where`` is not such a filter.
    """
    if isinstance(where, Mapping) and not where:
        return _EVERYTHING
    conditions = [0]
    return _all_of(_filter(where, 1, conditions))


def _walk(name: str, value: Any) -> Iterator[Field]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _walk(name, inner)
    else:
        yield (name, *kind_of(value))


def kind_of(value: Any) -> tuple[int, Any]:
    """A value's kind, and the value as it is compared within its kind."""
    if value is None:
        return NULL, 0
    if isinstance(value, bool):
        return BOOL, int(value)
    if isinstance(value, int):
        return NUMBER, int(value)
    if isinstance(value, float):
        return NUMBER, float(value)
    return TEXT, str(value)


def _filter(where: Any, depth: int, conditions: list[int]) -> Iterator[Query]:
    if not isinstance(where, Mapping) or not where:
        raise UsageError(f"filter {shorten(where)}: {_HELP}")
    if depth > MAX_DEPTH:
        raise UsageError(f"a filter is nested more than {MAX_DEPTH} levels deep: make it flatter")
    for name, value in where.items():
        _count(conditions)
        if not isinstance(name, str):
            raise UsageError(f"filter name {shorten(name)}: expected a string")
        if (problem := text_problem(name)) is not None:
            raise UsageError(f"filter name {problem}")
        yield _condition(name, value, depth, conditions)


def _condition(name: str, value: Any, depth: int, conditions: list[int]) -> Query:
    if name in ("$and", "$or"):
        if not _is_list(value) or not value:
            raise UsageError(f"filter {name}: expected a list of filters, got {shorten(value)}")
        parts = [_all_of(_filter(part, depth + 1, conditions)) for part in value]
        return _all_of(parts) if name == "$and" else _compound(parts, "UNION")
    if name == "$not":
        return _none_of(_all_of(_filter(value, depth + 1, conditions)))
    if name == "$match":
        return _has_words(value)
    if name.startswith("$"):
        raise UsageError(f"filter {name!r} is not an operator: {_HELP}")
    if isinstance(value, Mapping):
        return _all_of(_operators(name, value, depth, conditions))
    return _equal(name, value)


def _count(conditions: list[int]) -> None:
    conditions[0] += 1
    if conditions[0] > MAX_CONDITIONS:
        raise UsageError(
            f"a filter has more than {MAX_CONDITIONS} conditions: use $in for a list of values"
        )


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _operators(
    name: str, operators: Mapping[str, Any], depth: int, conditions: list[int]
) -> Iterator[Query]:
    if not operators:
        raise UsageError(f"filter {name!r} has an empty condition: {_HELP}")
    if depth > MAX_DEPTH:
        raise UsageError(f"a filter is nested more than {MAX_DEPTH} levels deep: make it flatter")
    for operator, value in operators.items():
        _count(conditions)
        yield _operator(name, (operator, value), depth, conditions)


def _operator(name: str, pair: tuple[str, Any], depth: int, conditions: list[int]) -> Query:
    operator, value = pair
    simple: dict[str, Callable[[str, Any], Query]] = {
        "$eq": _equal,
        "$contains": _contains,
        "$in": _any_of,
        "$exists": _exists,
    }
    if operator in simple:
        return simple[operator](name, value)
    if operator in _COMPARE:
        kind, bound = kind_of(_scalar(name, value))
        if kind not in (NUMBER, TEXT):
            raise UsageError(f"filter {name!r} {operator}: expected a number or a string")
        return f"{_LEAF} AND kind = ? AND value {_COMPARE[operator]} ?", [name, kind, bound]
    if operator == "$ne":
        return _none_of(_equal(name, value))
    if operator == "$nin":
        return _none_of(_any_of(name, value))
    if operator == "$not" and isinstance(value, Mapping):
        return _none_of(_all_of(_operators(name, value, depth + 1, conditions)))
    raise UsageError(f"filter {name!r}: {shorten(operator)} is not an operator: {_HELP}")


def _equal(name: str, value: Any) -> Query:
    kind, bound = kind_of(_scalar(name, value))
    return f"{_LEAF} AND kind = ? AND value = ?", [name, kind, bound]


def _contains(name: str, value: Any) -> Query:
    if not isinstance(value, str) or not value or text_problem(value) is not None:
        raise UsageError(f"filter {name!r} $contains: expected a text, got {shorten(value)}")
    return f"{_LEAF} AND kind = ? AND instr(value, ?) > 0", [name, TEXT, value]


def _has_words(value: Any) -> Query:
    expression = match_expression(value, every=True) if isinstance(value, str) else ""
    if not expression:
        raise UsageError(f"filter $match: expected words, got {shorten(value)}")
    return "SELECT rowid AS document FROM keywords WHERE keywords MATCH ?", [expression]


def _any_of(name: str, values: Any) -> Query:
    if not _is_list(values):
        raise UsageError(f"filter {name!r}: expected a list of values, got {shorten(values)}")
    kinds: dict[int, list[Any]] = {}
    for value in values:
        kind, bound = kind_of(_scalar(name, value))
        kinds.setdefault(kind, []).append(bound)
    if not kinds:
        return f"{_LEAF} AND 0", [name]
    # One parameter however long the list: builds of SQLite may allow no more than 999.
    member = _LEAF + " AND kind = ? AND value IN (SELECT value FROM json_each(?))"  # noqa: S608 - own text
    return _compound(
        [(member, [name, kind, json.dumps(bounds)]) for kind, bounds in kinds.items()], "UNION"
    )


def _exists(name: str, value: Any) -> Query:
    if not isinstance(value, bool):
        raise UsageError(f"filter {name!r} $exists: expected true or false, got {shorten(value)}")
    there = (_LEAF, [name])
    return there if value else _none_of(there)


def _all_of(parts: Iterator[Query] | list[Query]) -> Query:
    return _compound(list(parts), "INTERSECT")


def _none_of(query: Query) -> Query:
    return _compound([_EVERYTHING, query], "EXCEPT")


def _compound(parts: list[Query], operator: str) -> Query:
    if len(parts) == 1:
        return parts[0]
    selects = [f"SELECT document FROM ({sql})" for sql, _ in parts]  # noqa: S608 - own text
    return f" {operator} ".join(selects), [value for _, values in parts for value in values]


def _scalar(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        if (problem := value_problem(value)) is not None:
            raise UsageError(f"filter {name!r}: the value is {problem}")
        return value
    raise UsageError(f"filter {name!r}: expected a string, number, true, false or null; {_HELP}")
