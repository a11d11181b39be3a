"""What `tokenizers` knows of characters, as one file that the core in Kotlin reads.

A phone's own Unicode tables change with its version, and ids must not. So every code point is asked of
the library here, by its own normalizers and pre-tokenizers: `python -m android_demo.tools.unicode_tables`
writes the file anew.

The file is a list of numbers (LEB128): ranges of flags, combining classes, four maps of characters, and
the characters that others are composed to. Places of code points are written as the distance from the
end of the one before.
"""

from __future__ import annotations

import base64
import json
import struct
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["FLAGS", "TABLES", "make"]

TABLES = (
    Path(__file__).resolve().parents[1] / "core/src/main/resources/org/edgemrl/tokenize/unicode.bin"
)
MAGIC = b"EMRLUNI1"
#: Code points that a text can have, in order.
POINTS = [*range(0xD800), *range(0xE000, 0x110000)]
HANGUL = range(0xAC00, 0xD7A4)
#: A character that nothing here changes, makes, or joins to another.
APART = "\u3402"
#: Classes of Oniguruma, whose own tables patterns are matched with.
CLASSES = {
    "Lu": r"\p{Lu}",
    "Ll": r"\p{Ll}",
    "Lt": r"\p{Lt}",
    "Lm": r"\p{Lm}",
    "Lo": r"\p{Lo}",
    "M": r"\p{M}",
    "N": r"\p{N}",
    "P": r"\p{P}",
    "S": r"\p{S}",
    "s": r"\s",
    "w": r"\w",
    "d": r"\d",
}
#: How a character joins its neighbours to one that users see as one (UAX 29).
JOINING = ("extends", "prepends", "control")
#: Bits of a code point, in order; Unicode.kt has the same names.
FLAGS = (
    "removed",
    "blank",
    "ideograph",
    "space",
    "punctuation",
    "mark",
    "combining",
    *CLASSES,
    *JOINING,
)


def make() -> bytes:
    """The bytes of the file, as the installed `tokenizers` knows characters."""
    from tokenizers import normalizers

    out = bytearray(MAGIC)
    flags = _flags()
    _ranges(out, flags)
    decomposed = _mapped(normalizers.NFD())
    _pairs(out, _classes(decomposed))
    compatible = {
        point: text
        for point, text in _mapped(normalizers.NFKD()).items()
        if decomposed.get(point, chr(point)) != text
    }
    lower = _mapped(normalizers.Lowercase())
    for table in (lower, decomposed, compatible):
        _map(out, {point: text for point, text in table.items() if point not in HANGUL})
    _places(out, _composed(decomposed))
    return bytes(out)


def _mapped(normalizer: Any) -> dict[int, str]:
    """What becomes of each code point that does not stay as it is."""
    text = APART + APART.join(map(chr, POINTS)) + APART
    parts = normalizer.normalize_str(text).split(APART)[1:-1]
    at = POINTS.index(ord(APART))  # this one is a separator itself: two empty parts
    assert parts[at : at + 2] == ["", ""]
    del parts[at + 1]
    parts[at] = APART
    assert len(parts) == len(POINTS)
    return {point: part for point, part in zip(POINTS, parts, strict=True) if part != chr(point)}


def _flags() -> dict[int, int]:
    from tokenizers import Regex, normalizers, pre_tokenizers

    found = dict.fromkeys(POINTS, 0)

    def add(name: str, points: Iterable[int]) -> None:
        for point in points:
            found[point] |= 1 << FLAGS.index(name)

    off = {"clean_text": False, "handle_chinese_chars": False}
    bert: Callable[..., Any] = normalizers.BertNormalizer
    clean = _mapped(bert(**off | {"clean_text": True}, strip_accents=False, lowercase=False))
    add("removed", (point for point, text in clean.items() if text == ""))
    add("blank", [*(point for point, text in clean.items() if text == " "), ord(" ")])
    spaced = bert(**off | {"handle_chinese_chars": True}, strip_accents=False, lowercase=False)
    # The separator is one of these itself.
    parts = spaced.normalize_str("0" + "0".join(map(chr, POINTS)) + "0")
    add("ideograph", (ord(part[1]) for part in parts.split("0") if part[:1] == " " != part))
    marks = bert(**off, strip_accents=True, lowercase=False)
    for name, normalizer in (("mark", marks), ("combining", normalizers.StripAccents())):
        add(name, (point for point, text in _mapped(normalizer).items() if not text))
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str("0" + "0".join(map(chr, POINTS)))
    places = [place for _, place in split if place[1] - place[0] == 1 and place[0] % 2]
    add("punctuation", (POINTS[start // 2] for start, _ in places))
    covered = bytearray(2 * len(POINTS))
    for _, (start, end) in split:
        covered[start:end] = b"\1" * (end - start)
    add("space", (POINTS[i // 2] for i in range(1, len(covered), 2) if not covered[i]))
    text = "".join(map(chr, POINTS))
    for name, pattern in CLASSES.items():
        rest = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text)
        last = 0
        for _, (start, end) in [*rest, ("", (len(text), len(text)))]:
            add(name, POINTS[last:start])
            last = end
    for name, points in _joining().items():
        add(name, points)
    return found


def _joining() -> dict[str, list[int]]:
    """How characters join: seen from what a map of characters makes of an "a" or of U+0301 among them.

    The map is asked for a whole grapheme first: what it knows of its beginning takes the place of all.
    """
    units = [0] * 1024
    units[0] = 0x100 << 10
    units[0x100 ^ 0x61] = 0x200 << 10 | 1 << 8 | 0x61
    units[0x100 ^ 0x61 ^ 0x200] = 0
    units[0x100 ^ 0xCC] = 0x300 << 10 | 0xCC
    units[0x100 ^ 0xCC ^ 0x300 ^ 0x81] = 0x200 << 10 | 1 << 8 | 0x81
    units[0x100 ^ 0xCC ^ 0x300 ^ 0x81 ^ 0x200] = 2
    data = struct.pack("<I1024I", 4096, *units) + b"X\0Y\0"
    normalize = _precompiled(data).normalize_str
    points = [point for point in POINTS if point not in (ord("a"), 0x301, 0x302, ord("\n"))]
    forms: dict[str, tuple[str, Callable[[str], str]]] = {
        "extends": ("a*", lambda _: "X"),
        "prepends": ("*a\u0302", lambda char: f"{char}X\u0302"),
        "control": ("*\u0301\u0302", lambda char: f"{char}Y"),
    }
    found = {}
    for name, (form, joined) in forms.items():
        parts = normalize("".join(form.replace("*", chr(p)) + "\n" for p in points)).split("\n")
        found[name] = [p for p, part in zip(points, parts, strict=False) if part == joined(chr(p))]
    found["extends"] += [0x301, 0x302]
    found["control"] += [ord("\n")]
    return found


def _precompiled(data: bytes) -> Any:
    """The normalizer of a map of characters, which is made only as a part of a tokenizer's file."""
    from tokenizers import Tokenizer

    part = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}
    model = {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"}
    return Tokenizer.from_str(json.dumps({"normalizer": part, "model": model})).normalizer


def _classes(decomposed: dict[int, str]) -> dict[int, int]:
    """Combining classes: numbers whose order is that of Unicode's classes."""
    from tokenizers import normalizers

    nfd = normalizers.NFD()
    highest = "\u0345"
    alone = [point for point in POINTS if point not in decomposed]
    parts = nfd.normalize_str("".join(APART + highest + chr(point) for point in alone))
    marks = [
        point
        for point, part in zip(alone, _apart(parts, 2), strict=True)
        if part != highest + chr(point)
    ]
    known = {unicodedata.combining(chr(point)): chr(point) for point in marks}
    known.pop(0, None)
    reps = sorted(known.items())
    below = nfd.normalize_str("".join(APART + r + chr(m) for m in marks for _, r in reps))
    swapped = iter(_apart(below, 2))
    found = {ord(highest): 240}
    for mark in marks:
        lower = [number for number, rep in reps if next(swapped) != rep + chr(mark)]
        # It lies below all of these: its class is the one before them.
        rest = [number for number, _ in reps if number not in lower]
        found[mark] = max(rest)
    _check_classes(found)
    return found


def _check_classes(found: dict[int, int]) -> None:
    """Each pair of neighbouring classes is ordered, and each class has one rank."""
    for point, number in found.items():
        known = unicodedata.combining(chr(point))
        assert known in (0, number), hex(point)


def _apart(text: str, length: int) -> Iterator[str]:
    for at in range(0, len(text), length + 1):
        assert text[at] == APART
        yield text[at + 1 : at + 1 + length]


def _composed(decomposed: dict[int, str]) -> list[int]:
    """Characters that NFC makes of their parts, Hangul apart."""
    from tokenizers import normalizers

    nfc = normalizers.NFC()
    return [
        point
        for point, text in sorted(decomposed.items())
        if point not in HANGUL and nfc.normalize_str(text) == chr(point)
    ]


def _number(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _ranges(out: bytearray, flags: dict[int, int]) -> None:
    runs: list[list[int]] = []
    for point, value in flags.items():
        if runs and runs[-1][1] == point and runs[-1][2] == value:
            runs[-1][1] += 1
        elif value:
            runs.append([point, point + 1, value])
    _number(out, len(runs))
    last = 0
    for start, end, value in runs:
        for number in (start - last, end - start, value):
            _number(out, number)
        last = end


def _pairs(out: bytearray, values: dict[int, int]) -> None:
    _number(out, len(values))
    last = 0
    for point, value in sorted(values.items()):
        _number(out, point - last)
        _number(out, value)
        last = point


def _map(out: bytearray, values: dict[int, str]) -> None:
    _number(out, len(values))
    last = 0
    for point, text in sorted(values.items()):
        for number in (point - last, len(text), *map(ord, text)):
            _number(out, number)
        last = point


def _places(out: bytearray, points: list[int]) -> None:
    _number(out, len(points))
    last = 0
    for point in points:
        _number(out, point - last)
        last = point


def main() -> None:
    """Write the file."""
    TABLES.parent.mkdir(parents=True, exist_ok=True)
    TABLES.write_bytes(make())
    print(f"{TABLES}: {TABLES.stat().st_size} bytes")


if __name__ == "__main__":
    main()
