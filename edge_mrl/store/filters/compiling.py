"""Filters on metadata: the query documents that MongoDB, Chroma and Pinecone have, as SQL.

A filter becomes a tree of conditions, and the tree SQL with every name and value as a parameter: either
one SELECT of all documents that match (``compile_filter``), or a condition on a document that is at hand
(``compile_condition``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge_mrl.documents import shorten, text_problem, value_problem
from edge_mrl.errors import UsageError
from edge_mrl.store.filters.values import NUMBER, TEXT, kind_of
from edge_mrl.store.keywords.expression import match_expression

__all__ = [
    "Condition",
    "Group",
    "Leaf",
    "Query",
    "asks_for_words",
    "compile_condition",
    "compile_filter",
    "holds",
    "parse",
    "select",
]

#: SQLite allows 500 parts in a compound SELECT, and its parser has a stack of 100, which 12 levels
#: of negation fill; people write far fewer.
MAX_CONDITIONS = 200
MAX_DEPTH = 8

#: A longer list of values is looked up as a set of documents, not value by value.
MOST_SOUGHT = 8

#: SQL and its parameters.
Query = tuple[str, list[Any]]

_COMPARE = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_LEAF = "SELECT document FROM fields WHERE name = ?"
_EVERYTHING: Query = ("SELECT key AS document FROM documents", [])
_COMPOUND = {"all": "INTERSECT", "any": "UNION", "none": "EXCEPT"}
_HELP = (
    'expected {"name": value}, with $eq $ne $in $nin $gt $gte $lt $lte $contains $exists $not for a '
    'name, $and $or $not around whole filters, and {"$match": words} for the text'
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One condition.

    Attributes:
        query: Selects the documents for which it holds.
        sought: Whether the index of ``fields`` tells at once if it holds for one document: it is a
            condition on rows of ``fields``, with a name and with values that are equal to given ones.
    """

    query: Query
    sought: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions that hold together.

    Attributes:
        how: "all" of the parts hold, "any" of them, or "none".
        parts: At least one.
    """

    how: Literal["all", "any", "none"]
    parts: Sequence[Leaf | Group]


Condition = Leaf | Group


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
    condition = parse(where)
    return _EVERYTHING if condition is None else select(condition)


def compile_condition(where: Mapping[str, Any], key: str) -> Query:
    """Turn a filter into a condition on one document, for statements that have found it otherwise.

    What it costs grows with the documents that it is asked about, not with those that match: a name that
    equals a value is sought for each of them. Other conditions (ranges, ``$contains``, ``$exists``,
    ``$match``) are looked up once as a set, if they are reached.

    Args:
        where: See ``compile_filter``.
        key: SQL for the document's key.

    Raises:
        UsageError: ``where`` is not such a filter.
    """
    condition = parse(where)
    return ("1", []) if condition is None else holds(condition, key)


def asks_for_words(where: Mapping[str, Any]) -> bool:
    """Whether a filter that ``compile_filter`` takes has ``$match``, of which metadata say nothing."""
    if "$match" in where:
        return True
    parts = [*where.get("$and", ()), *where.get("$or", ())]
    if "$not" in where:
        parts.append(where["$not"])
    return any(map(asks_for_words, parts))


def parse(where: Any) -> Condition | None:
    """The tree of a filter's conditions; None for ``{}``, which all documents match.

    Raises:
        UsageError: It is not a filter, see ``compile_filter``.
    """
    if isinstance(where, Mapping) and not where:
        return None
    return _all_of(_filter(where, 1, [0]))


def _filter(where: Any, depth: int, conditions: list[int]) -> Iterator[Condition]:
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


def _condition(name: str, value: Any, depth: int, conditions: list[int]) -> Condition:
    if name in ("$and", "$or"):
        if not _is_list(value) or not value:
            raise UsageError(f"filter {name}: expected a list of filters, got {shorten(value)}")
        parts = [_all_of(_filter(part, depth + 1, conditions)) for part in value]
        return _all_of(parts) if name == "$and" else _any_of(parts)
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
) -> Iterator[Condition]:
    if not operators:
        raise UsageError(f"filter {name!r} has an empty condition: {_HELP}")
    if depth > MAX_DEPTH:
        raise UsageError(f"a filter is nested more than {MAX_DEPTH} levels deep: make it flatter")
    for operator, value in operators.items():
        _count(conditions)
        yield _operator(name, (operator, value), depth, conditions)


def _operator(name: str, pair: tuple[str, Any], depth: int, conditions: list[int]) -> Condition:
    operator, value = pair
    simple: dict[str, Callable[[str, Any], Condition]] = {
        "$eq": _equal,
        "$contains": _contains,
        "$in": _one_of,
        "$exists": _exists,
    }
    if operator in simple:
        return simple[operator](name, value)
    if operator in _COMPARE:
        kind, bound = kind_of(_scalar(name, value))
        if kind not in (NUMBER, TEXT):
            raise UsageError(f"filter {name!r} {operator}: expected a number or a string")
        return _leaf(f"kind = ? AND value {_COMPARE[operator]} ?", name, kind, bound)
    if operator == "$ne":
        return _none_of(_equal(name, value))
    if operator == "$nin":
        return _none_of(_one_of(name, value))
    if operator == "$not" and isinstance(value, Mapping):
        return _none_of(_all_of(_operators(name, value, depth + 1, conditions)))
    raise UsageError(f"filter {name!r}: {shorten(operator)} is not an operator: {_HELP}")


def _equal(name: str, value: Any) -> Condition:
    kind, bound = kind_of(_scalar(name, value))
    return _leaf("kind = ? AND value = ?", name, kind, bound, sought=True)


def _contains(name: str, value: Any) -> Condition:
    if not isinstance(value, str) or not value or text_problem(value) is not None:
        raise UsageError(f"filter {name!r} $contains: expected a text, got {shorten(value)}")
    return _leaf("kind = ? AND instr(value, ?) > 0", name, TEXT, value)


def _has_words(value: Any) -> Condition:
    expression = match_expression(value, every=True) if isinstance(value, str) else ""
    if not expression:
        raise UsageError(f"filter $match: expected words, got {shorten(value)}")
    return Leaf(("SELECT rowid AS document FROM keywords WHERE keywords MATCH ?", [expression]))


def _one_of(name: str, values: Any) -> Condition:
    if not _is_list(values):
        raise UsageError(f"filter {name!r}: expected a list of values, got {shorten(values)}")
    kinds: dict[int, list[Any]] = {}
    for value in values:
        kind, bound = kind_of(_scalar(name, value))
        kinds.setdefault(kind, []).append(bound)
    if not kinds:
        return _leaf("0", name)
    # One parameter however long the list: builds of SQLite may allow no more than 999.
    member = "kind = ? AND value IN (SELECT value FROM json_each(?))"
    return _any_of(
        [
            _leaf(member, name, kind, json.dumps(bounds), sought=len(bounds) <= MOST_SOUGHT)
            for kind, bounds in kinds.items()
        ]
    )


def _exists(name: str, value: Any) -> Condition:
    if not isinstance(value, bool):
        raise UsageError(f"filter {name!r} $exists: expected true or false, got {shorten(value)}")
    there = Leaf((_LEAF, [name]))
    return there if value else _none_of(there)


def _leaf(condition: str, name: str, *values: Any, sought: bool = False) -> Leaf:
    return Leaf((f"{_LEAF} AND {condition}", [name, *values]), sought)


def _all_of(parts: Iterable[Condition]) -> Condition:
    return _group("all", list(parts))


def _any_of(parts: Sequence[Condition]) -> Condition:
    return _group("any", parts)


def _none_of(part: Condition) -> Condition:
    return Group("none", [part])


def _group(how: Literal["all", "any"], parts: Sequence[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else Group(how, parts)


def select(condition: Condition) -> Query:
    """All documents for which a condition holds."""
    if isinstance(condition, Leaf):
        return condition.query
    parts = [select(part) for part in condition.parts]
    if condition.how == "none":
        parts.insert(0, _EVERYTHING)
    selects = [f"SELECT document FROM ({sql})" for sql, _ in parts]  # noqa: S608 - own text
    return f" {_COMPOUND[condition.how]} ".join(selects), _values(parts)


def holds(condition: Condition, key: str) -> Query:
    """Whether a condition holds for one document.

    Args:
        condition: The condition.
        key: SQL for the document's key.
    """
    if isinstance(condition, Leaf):
        sql, values = condition.query
        if condition.sought:
            return f"EXISTS ({sql} AND document = {key})", values
        # The sign keeps a table that is searched by ``key`` from being searched for each document.
        return f"+{key} IN ({sql})", values
    # What is sought decides first, so that a set is looked up only where it has to be.
    ordered = sorted(condition.parts, key=lambda part: not _is_sought(part))
    parts = [holds(part, key) for part in ordered]
    joined = (" OR " if condition.how == "any" else " AND ").join(f"({sql})" for sql, _ in parts)
    return f"NOT ({joined})" if condition.how == "none" else joined, _values(parts)


def _is_sought(condition: Condition) -> bool:
    """Whether the index of ``fields`` tells at once if a condition holds for one document."""
    if isinstance(condition, Leaf):
        return condition.sought
    return all(map(_is_sought, condition.parts))


def _values(parts: Sequence[Query]) -> list[Any]:
    return [value for _, values in parts for value in values]


def _scalar(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        if (problem := value_problem(value)) is not None:
            raise UsageError(f"filter {name!r}: the value is {problem}")
        return value
    raise UsageError(f"filter {name!r}: expected a string, number, true, false or null; {_HELP}")
