"""Calls of the library: codes and messages become exceptions."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ROOM", "ForeignGraphError", "KernelError", "Outcome", "checked"]

#: Bytes of a message.
ROOM = 500
_FOREIGN, _MEMORY = 1, 3


class KernelError(Exception):
    """The library refuses what it was given; the message says why."""


class ForeignGraphError(KernelError):
    """The graph is none that the kernels know: another engine may run it."""


class Outcome:
    """What a call returned, and where it writes what is wrong."""

    def __init__(self) -> None:
        self.code = 0
        self.text = ctypes.create_string_buffer(ROOM)


@contextmanager
def checked() -> Iterator[Outcome]:
    """Raise what the call within returned, if it is an error."""
    outcome = Outcome()
    yield outcome
    if not outcome.code:
        return
    message = outcome.text.value.decode("utf-8", "replace")
    if outcome.code == _MEMORY:
        raise MemoryError(message)
    raise (ForeignGraphError if outcome.code == _FOREIGN else KernelError)(message)
