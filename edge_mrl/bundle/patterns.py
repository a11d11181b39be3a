"""Regular expressions of tokenizers that no text can make slow.

Tokenizers match with a backtracking engine. A pattern such as ``(a+)+$`` takes time that doubles with
each character. Accepted is what cannot: alternatives that are sequences of single characters and
classes, in which nothing can fail behind a repetition without an upper limit. Each match then takes time
that grows with its length only. Some alternatives of well-known tokenizers are none of these; they are
listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from edge_mrl.errors import TokenizerError, brief

__all__ = ["check_pattern"]

MOST_CHARS, MOST_ALTERNATIVES = 4000, 100
#: Most repetitions of a bounded repetition, and most of such repetitions before something that can fail:
#: together the most steps at one place of a text.
MOST_TIMES, MOST_VARYING = 16, 2
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
#: Alternatives of GPT-2, of GPT-4 (also Llama 3, Qwen) and of GPT-4o. Where they fail, the alternative
#: behind them takes all that they tried, so that nothing is tried twice.
_KNOWN = frozenset(
    {
        r"\s+(?!\S)",
        r"\s*[\r\n]+",
        r"\s*[\r\n]",
        *(f"{_BEFORE}{_UPPER}*{_LOWER}+{end}" for end in ("", f"{_CONTRACTIONS}?")),
        *(f"{_BEFORE}{_UPPER}+{_LOWER}*{end}" for end in ("", f"{_CONTRACTIONS}?")),
    }
)
#: A class has classes inside it at most once: ``[^(\s|[.,!?])]``.
_CLASS = r"\[(?:\\.|[^\[\]\\]|\[(?:\\.|[^\[\]\\])*\])+\]"
_ESCAPE = r"\\(?:[pP]\{\^?\w{1,40}\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[sSdDwWrntfv]|[^\w\s]|[ ])"
_ATOM = re.compile(rf"{_CLASS}|{_ESCAPE}|[^\\()\[\]{{}}*+?^$|]", re.DOTALL)
_TIMES = re.compile(r"([*+?])|\{(\d{1,4})(,?)(\d{0,4})\}")
_GROUP = re.compile(r"\((?:\?:|\?i:)?")
_BEHAVES_OTHERWISE = re.compile(r"&&|\[:")  # intersections of classes; POSIX brackets


@dataclass(frozen=True, slots=True)
class _Step:
    """A part of an alternative: how many characters it takes at least, and at most (None: no limit)."""

    least: int
    most: int | None


def check_pattern(pattern: str) -> int:
    """Check a tokenizer's regular expression.

    Args:
        pattern: In the syntax of Oniguruma.

    Returns:
        Characters of its shortest match, at least 1.

    Raises:
        TokenizerError: A text could make it slow, or it matches nothing at all, everywhere.
    """
    if len(pattern) > MOST_CHARS or _BEHAVES_OTHERWISE.search(pattern):
        raise _refused(pattern)
    alternatives = list(_split(pattern))
    if len(alternatives) > MOST_ALTERNATIVES:
        raise _refused(pattern)
    return min(1 if part in _KNOWN else _shortest(part, pattern) for part in alternatives)


def _refused(pattern: str) -> TokenizerError:
    return TokenizerError(
        f"tokenizer.json cannot be opened: a text could make the pattern {brief(pattern, 120)!r} very "
        "slow, or it is of a kind that is not known here; use a tokenizer with a simpler one"
    )


def _split(pattern: str) -> Iterator[str]:
    """The alternatives outside of groups and classes."""
    start, at, depth = 0, 0, 0
    while at < len(pattern):
        match = _ATOM.match(pattern, at)
        if match:
            at = match.end()
            continue
        char = pattern[at]
        depth += (char == "(") - (char == ")")
        if char == "|" and depth == 0:
            yield pattern[start:at]
            start = at + 1
        at += 1
    yield pattern[start:]


def _shortest(part: str, pattern: str) -> int:
    steps = list(_steps(part.removeprefix("^"), pattern))
    least = sum(step.least for step in steps)
    varying = 0
    for place, step in enumerate(steps):
        can_fail = any(later.least for later in steps[place + 1 :])
        if step.most is None and can_fail:
            raise _refused(pattern)
        if step.most != step.least and can_fail:
            varying += 1
    if not least or varying > MOST_VARYING:
        raise _refused(pattern)
    return least


def _steps(part: str, pattern: str) -> Iterator[_Step]:
    at = 0
    while at < len(part):
        atom = _ATOM.match(part, at)
        if atom:
            least, most, at = 1, 1, atom.end()
        else:
            least, most, at = _group(part, at, pattern)
        times = _TIMES.match(part, at)
        if times:
            at = times.end()
            low, high = _bounds(times, pattern)
            if atom is None and (low, high) != (0, 1):
                raise _refused(pattern)
            yield _Step(low * least, None if high is None else high * most)
        else:
            yield _Step(least, most)


def _bounds(times: re.Match[str], pattern: str) -> tuple[int, int | None]:
    if times[1]:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[times[1]]
    low = int(times[2])
    high = low if not times[3] else int(times[4]) if times[4] else None
    if max(low, high or 0) > MOST_TIMES or (high is not None and high < low):
        raise _refused(pattern)
    return low, high


def _group(part: str, at: int, pattern: str) -> tuple[int, int, int]:
    """A group of alternatives of single characters: least and most characters, and where it ends."""
    opening = _GROUP.match(part, at)
    if opening is None:
        raise _refused(pattern)
    at, lengths, length = opening.end(), [], 0
    while True:
        atom = _ATOM.match(part, at)
        if atom:
            length, at = length + 1, atom.end()
            continue
        if part[at : at + 1] not in ("|", ")"):
            raise _refused(pattern)
        lengths.append(length)
        length, at = 0, at + 1
        if part[at - 1] == ")":
            return min(lengths), max(lengths), at
