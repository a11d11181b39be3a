"""Front matter of Markdown: facts about a note, above its text, in YAML or TOML.

YAML is read by a strict reader of the part that notes use: names and values, lists, mappings within, and
texts of several lines. The same file has the same metadata on every device, whichever packages are there.
Anchors, aliases and tags, by which small files grow without bound, are refused, as is all else that it
does not know.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_mrl.documents import MAX_INTEGER, metadata_problem
from edge_mrl.errors import reason

__all__ = ["FrontMatter", "front_matter"]

#: Longer front matter is text.
MOST_CHARS = 1 << 16
#: The line above, and the lines that end it.
_FENCES = {"---": ("---", "..."), "+++": ("+++",)}
_LINE = re.compile(r"[^\n]*\n?")


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What stands above a note.

    Attributes:
        end: Where the note's own text begins, in characters; 0 if all of it is text.
        metadata: The facts by name; values that JSON lacks, such as dates, are texts.
        problem: Why what looks like front matter is taken for text, in words; None if nothing does.
    """

    end: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def front_matter(text: str) -> FrontMatter:
    """Read the front matter of a note. What cannot be read stays in its text."""
    first = _LINE.match(text)
    fence = first[0].rstrip() if first is not None and first.end() <= len("---") + 64 else ""
    if first is None or fence not in _FENCES:
        return FrontMatter()
    begin = at = first.end()
    while at < min(len(text), MOST_CHARS):
        line = _LINE.match(text, at)
        if line is None or line.end() > MOST_CHARS:
            break
        if line[0].rstrip() in _FENCES[fence]:
            return _read(fence, text[begin:at], line.end())
        at = line.end()
    return FrontMatter()  # a line drawn above a text


def _read(fence: str, inner: str, end: int) -> FrontMatter:
    from edge_mrl.sources.yaml import YamlError, read_yaml

    try:
        found = read_yaml(inner) if fence == "---" else _read_toml(inner)
    except (YamlError, ValueError, RecursionError) as error:
        return FrontMatter(problem=reason(error))
    if found is None:
        return FrontMatter(end)
    if not isinstance(found, dict):
        return FrontMatter(problem=f"it is {type(found).__name__}, expected names and values")
    metadata = {str(name): _as_json(value) for name, value in found.items()}
    problem = metadata_problem(metadata)
    return FrontMatter(problem=problem) if problem else FrontMatter(end, metadata)


def _read_toml(inner: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(inner.replace("\r\n", "\n"))


def _as_json(value: Any) -> Any:
    """The value; dates and times, infinite numbers and integers beyond 64 bits as texts."""
    if isinstance(value, dict):
        return {str(name): _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    odd = isinstance(value, float) and not math.isfinite(value)
    large = isinstance(value, int) and abs(value) > MAX_INTEGER
    return str(value) if odd or large else value
