"""What a reader is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Reader"]


@dataclass(frozen=True, slots=True)
class Reader:
    """One reader.

    Attributes:
        seeds: Valid files, made in a folder.
        read: Reads a file in that folder, and compares what it can; raises what is documented.
        allowed: The errors that are.
        cost: How many times as long as the fastest one round takes; it gets so many rounds less.
    """

    seeds: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], None]
    allowed: tuple[type[BaseException], ...]
    cost: int = 1
