"""Printing results: JSON for programs; numbers, sizes, times and tables for people."""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["count", "duration", "print_json", "size", "snippet", "table"]


def print_json(value: Any) -> None:
    """Print one JSON object on a line; characters that the output cannot encode are escaped."""
    plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    print(json.dumps(value, ensure_ascii=plain, allow_nan=False))


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 document", "1,234 documents"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(size_bytes: float) -> str:
    """A size in B, kB, MB or GB of 1,000 each."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def duration(seconds: float) -> str:
    """A time in ms, s or min."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def snippet(text: str, *, chars: int) -> str:
    """The start of a text on one line, at most ``chars`` long, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * chars]).split())
    return line if len(line) <= chars else f"{line[: chars - 3].rstrip()}..."


def table(rows: list[tuple[str, str]]) -> str:
    """Names and values in two columns, one pair per line."""
    return "\n".join(f"{name:<10}{value}" for name, value in rows)
