"""The values in metadata that filters compare, as rows of the ``fields`` table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_mrl.documents import metadata_problem

__all__ = ["NUMBER", "TEXT", "Field", "field_rows", "kind_of"]

#: How a value is compared: only with values of its own kind, so that "2" never equals 2.
NULL, BOOL, NUMBER, TEXT = range(4)

#: A name with one of its values: name, kind, value.
Field = tuple[str, int, Any]


def field_rows(metadata: Mapping[str, Any]) -> list[Field]:
    """The comparable values in metadata, as rows (name, kind, value) without repetition.

    Objects within are reached by dotted names; a list counts as each of its values. Metadata beyond the
    limits of ``edge_mrl.documents``, as older versions stored it, has no rows.
    """
    if not metadata or metadata_problem(metadata) is not None:
        return []
    return sorted(set(_walk("", metadata)), key=repr)


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


def _walk(name: str, value: Any) -> Iterator[Field]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _walk(name, inner)
    else:
        yield (name, *kind_of(value))
