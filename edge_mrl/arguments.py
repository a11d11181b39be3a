"""Checks of what callers pass: whatever else it is than what was expected, the error says so.

Without them, an odd value would surface far inside, as an error of numpy's, SQLite's or Python's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from edge_mrl.documents import id_problem, shorten
from edge_mrl.errors import UsageError

__all__ = [
    "MOST",
    "check_call",
    "check_flag",
    "check_number",
    "check_text",
    "check_whole",
    "each_id",
    "each_text",
    "path_of",
]

#: The most documents or passages that may be asked for: as many as a store can have.
MOST = 2**32


def check_whole(name: str, value: object, *, least: int = 1) -> None:
    """Check that a value is a whole number in range; True and False are none.

    Raises:
        UsageError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name} is {shorten(value)}, expected a whole number")
    if int(value) < least:
        raise UsageError(f"{name} is {shorten(int(value))}, expected at least {least}")
    if int(value) > MOST:
        raise UsageError(f"{name} is {shorten(int(value))}, expected at most {MOST:,}")


def check_number(name: str, value: Any) -> None:
    """Check that a value is a number from 0 to 2**32.

    Raises:
        UsageError: It is not.
    """
    number = not isinstance(value, bool) and isinstance(value, Real)
    if not number or not 0 <= value <= MOST:  # a NaN is not, either
        raise UsageError(f"{name} is {shorten(value)}, expected a number from 0 to {MOST:,}")


def check_flag(name: str, value: object) -> None:
    """Check that a value is True or False.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {shorten(value)}, expected True or False")


def check_call(name: str, value: Callable[..., object] | None) -> None:
    """Check that a value can be called, or is None.

    Raises:
        UsageError: It is not.
    """
    if value is not None and not callable(value):
        raise UsageError(f"{name} is {shorten(value)}, expected a function")


def check_text(name: str, value: object) -> None:
    """Check that a value is a text.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(value, str):
        raise UsageError(f"{name} is {shorten(value)}, expected a text (str)")


def each_text(name: str, values: Iterable[str]) -> Iterator[str]:
    """Texts one by one.

    Raises:
        TypeError: ``values`` is a single string.
        UsageError: It is no iterable, or one of them is no text.
    """
    for value in _each(name, values):
        check_text(f"one of {name}", value)
        yield value


def each_id(ids: Iterable[str]) -> Iterator[str]:
    """Ids of documents one by one.

    Raises:
        TypeError: ``ids`` is a single string.
        UsageError: It is no iterable, or one of them cannot be an id.
    """
    for value in _each("ids", ids):
        if (problem := id_problem(value)) is not None:
            raise UsageError(f"document id {shorten(value)}: {problem}")
        yield value


def path_of(name: str, value: str | os.PathLike[str]) -> Path:
    """A path as an object.

    Raises:
        UsageError: It is no path, or the system cannot have it.
    """
    try:
        text = os.fspath(value)
        os.fsencode(text)
    except (TypeError, ValueError):
        text = None
    if not isinstance(text, str) or "\0" in text:
        raise UsageError(f"{name} is {shorten(value)}, expected a path")
    return Path(text)


def _each(name: str, values: Iterable[str]) -> Iterator[str]:
    if isinstance(values, str | bytes):
        raise TypeError(f"{name} is a single string: pass a list of strings")
    if not isinstance(values, Iterable):
        raise UsageError(f"{name} is {shorten(values)}, expected a list of strings")
    yield from values
