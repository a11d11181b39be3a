"""Pairs of queries and the documents that answer them, to fit a head to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from edge_mrl.errors import UsageError

__all__ = ["read_pairs"]

FEWEST_PAIRS = 32
#: Keys of a pair, in the order that they are looked for.
PAIR_KEYS = (("query", "document"), ("anchor", "positive"), ("question", "answer"))


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Read queries, each with a document that answers it.

    Args:
        path: ``.jsonl`` with an object a line (``query`` and ``document``, or ``anchor`` and
            ``positive``, or ``question`` and ``answer``), or ``.tsv`` with two columns.

    Raises:
        UsageError: There is no such file, a line is malformed, or there are too few pairs.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the pairs {path}: {error}") from error
    parse: Callable[[str], tuple[str, str] | None]
    parse = _tab_pair if path.suffix.lower() == ".tsv" else _json_pair
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        pair = parse(line)
        if pair is None or not all(text.strip() for text in pair):
            keys = " or ".join(f"{left!r} and {right!r}" for left, right in PAIR_KEYS)
            raise UsageError(
                f"{path}, line {number}: expected a JSON object with the texts {keys} "
                "(.jsonl), or two columns (.tsv)"
            )
        pairs.append(pair)
    if len(pairs) < FEWEST_PAIRS:
        raise UsageError(f"{path} has {len(pairs)} pairs, expected at least {FEWEST_PAIRS}")
    return pairs


def _tab_pair(line: str) -> tuple[str, str] | None:
    cells = line.split("\t")
    return (cells[0], cells[1]) if len(cells) == 2 else None


def _json_pair(line: str) -> tuple[str, str] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    for left, right in PAIR_KEYS:
        texts = value.get(left), value.get(right)
        if isinstance(texts[0], str) and isinstance(texts[1], str):
            return texts[0], texts[1]
    return None
