"""The tables by which the core finds words, as Python 3.11 has them: other versions of Java differ.

python -m android_demo.tools.words --write
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from android_demo.tools.kotlin import ROOT

__all__ = ["TABLES", "UNICODE", "tables"]

TABLES = ROOT / "android_demo/core/src/main/resources/org/edgemrl/store/words.txt"
#: The version of Unicode of the oldest Python that edge-mrl supports, 3.11.
UNICODE = "14.0.0"
_OLD = unicodedata.ucd_3_2_0
_SURROGATES = range(0xD800, 0xE000)
_HANGUL = range(0xAC00, 0xD7A4)


def tables() -> str:
    """All tables, a line for each entry. Code points are hexadecimal.

    ``d``: a character and its decomposition. ``p``: two characters and the one that they compose. ``c``:
    a combining class and its ranges. These have the characters of Unicode 3.2, all others stay as they
    are. ``w``: ranges of characters of words. ``f``: a character and what it is without case.
    """
    return "".join(f"{' '.join(line)}\n" for line in _lines())


def _lines() -> Iterator[Sequence[str]]:
    points = [point for point in range(sys.maxunicode + 1) if point not in _SURROGATES]
    old = [point for point in points if _OLD.category(chr(point)) != "Cn"]
    yield from _decompositions(old)
    yield from _compositions(old)
    classes: dict[int, list[int]] = {}
    for point in old:
        if (found := unicodedata.combining(chr(point))) != 0:
            classes.setdefault(found, []).append(point)
    for found, some in sorted(classes.items()):
        yield "c", str(found), *_ranges(some)
    yield "w", *_ranges(filter(_is_word, points))
    for point in points:
        if (folded := chr(point).casefold()) != chr(point):
            yield "f", _hex(point), *map(_hex, map(ord, folded))


def _decompositions(points: Sequence[int]) -> Iterator[Sequence[str]]:
    for point in points:
        if point not in _HANGUL and (parts := _OLD.normalize("NFKD", chr(point))) != chr(point):
            yield "d", _hex(point), *map(_hex, map(ord, parts))


def _compositions(points: Sequence[int]) -> Iterator[Sequence[str]]:
    for point in points:
        parts = unicodedata.decomposition(chr(point)).split()
        if point in _HANGUL or len(parts) != 2 or parts[0].startswith("<"):
            continue
        pair = [int(part, 16) for part in parts]
        if _OLD.normalize("NFC", "".join(map(chr, pair))) == chr(point):
            yield "p", *map(_hex, pair), _hex(point)


def _is_word(point: int) -> bool:
    return chr(point).isalnum() or chr(point) == "_"


def _ranges(points: Iterable[int]) -> Iterator[str]:
    for _, group in groupby(enumerate(points), key=lambda pair: pair[1] - pair[0]):
        some = [point for _, point in group]
        yield f"{_hex(some[0])}-{_hex(some[-1])}"


def _hex(point: int) -> str:
    return f"{point:x}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", required=True)
    parser.parse_args(arguments)
    if unicodedata.unidata_version != UNICODE:
        raise SystemExit(f"this Python has Unicode {unicodedata.unidata_version}, not {UNICODE}")
    TABLES.parent.mkdir(parents=True, exist_ok=True)
    TABLES.write_text(tables(), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
