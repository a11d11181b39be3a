"""Hits for people: where each is, below which headings, and the sentence that answers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import snippet

if TYPE_CHECKING:
    from edge_mrl.index import Index
    from edge_mrl.search import Hit, Results, Words

__all__ = ["print_hits"]

SNIPPET_LINES = 2
#: Before a snippet, and free at the end of its lines.
INDENT = 12
#: Shown for documents that other devices sent without their texts.
TEXT_ELSEWHERE = "(the text is on another device)"
#: Hits whose sentences the model may weigh.
WEIGHED = 3

_BOLD, _PATH, _FAINT, _PLAIN = "\x1b[1m", "\x1b[36m", "\x1b[2m", "\x1b[0m"


def print_hits(index: Index, query: str, hits: Results, *, mode: str) -> None:
    """Print hits, two or three lines each.

    The line is behind the path, as editors and other programs want it. On a terminal, words of the
    question are marked where a search went by words.
    """
    from edge_mrl.search import Words

    width = shutil.get_terminal_size().columns
    colour = _in_colour()
    paths, words = _paths(index, hits), Words(query)
    starts = _starts(index, query, hits, mode=mode, room=SNIPPET_LINES * (width - INDENT))
    lines = _lines(index, hits, paths, starts)
    for rank, hit in enumerate(hits, start=1):
        place = paths.get(hit.id, hit.id) + (f":{lines[hit.id]}" if hit.id in lines else "")
        above = "".join(f" > {title}" for title in _headings(index, hit, starts[hit.id]))
        place, above = snippet(place, chars=width), snippet(above, chars=width)
        if colour:
            place = f"{_PATH}{place}{_PLAIN}"
            above = f"{_FAINT} {above}{_PLAIN}" if above else ""
        else:
            above = f" {above}" if above else ""
        print(f"{rank:>3}  {hit.score:.3f}  {place}{above}")
        line = _shown(hit, starts[hit.id], SNIPPET_LINES * (width - INDENT))
        print(" " * INDENT + (_marked(line, words) if colour and mode != "vector" else line))


def _in_colour() -> bool:
    """Whether to use colour: on a terminal that has it, unless NO_COLOR is set (https://no-color.org)."""
    dull = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not dull


def _paths(index: Index, hits: Results) -> dict[str, str]:
    """Paths of hits by id, where a document is a file on this machine."""
    from edge_mrl.sources import shown_path
    from edge_mrl.store import read_roots

    roots = read_roots(index.store)
    here = os.path.realpath(".")
    found = {hit.id: shown_path(roots, hit.id, folder=here) for hit in hits}
    return {
        name: path for name, path in found.items() if path is not None and os.path.lexists(path)
    }


def _starts(index: Index, query: str, hits: Results, *, mode: str, room: int) -> dict[str, int]:
    """Where in their passages the sentences that answer begin; 0 where all of a passage is shown."""
    from edge_mrl.search import Words, sentence_by_model, sentence_by_words

    long = [hit for hit in hits if len(hit.text) > room]
    chosen: dict[str, tuple[int, int] | None] = {}
    if mode == "vector":
        first = long[:WEIGHED]
        found = sentence_by_model([hit.text for hit in first], query, index.encoder)
        chosen = {hit.id: span for hit, span in zip(first, found, strict=True)}
    words = Words(query)
    for hit in long:
        if chosen.get(hit.id) is None:
            chosen[hit.id] = sentence_by_words(hit.text, words)
    starts = {name: span[0] for name, span in chosen.items() if span is not None}
    return {hit.id: starts.get(hit.id, _body(hit)) for hit in hits}


def _body(hit: Hit) -> int:
    """Where the text of a passage begins, below its headings."""
    from edge_mrl.search import sentences

    spans = sentences(hit.text) if hit.headings else []
    return spans[0][0] if spans else 0


def _headings(index: Index, hit: Hit, start: int) -> tuple[str, ...]:
    """The headings above the sentence that is shown, which may be below further ones than its passage."""
    if not hit.headings or not start:
        return hit.headings
    from edge_mrl.markdown import Outline

    document = index.get([hit.id]).get(hit.id)
    if document is None:
        return hit.headings
    return Outline(document.text[: hit.end]).at(hit.start + start)


def _lines(
    index: Index, hits: Results, paths: Mapping[str, str], starts: Mapping[str, int]
) -> dict[str, int]:
    """In which lines of their files the sentences begin."""
    from edge_mrl.sources import line_in_file

    wanted = {hit.id: hit.start + starts[hit.id] for hit in hits if hit.id in paths and hit.text}
    found = index.get(list(wanted))
    lines = {
        name: line_in_file(paths[name], found[name].text, at)
        for name, at in wanted.items()
        if name in found
    }
    return {name: line for name, line in lines.items() if line is not None}


def _shown(hit: Hit, start: int, chars: int) -> str:
    if not hit.text:
        return TEXT_ELSEWHERE
    left_out = start > _body(hit)
    text = snippet(hit.text[start : _next_heading(hit, start)], chars=chars - 4 * left_out)
    return f"... {text}" if left_out else text


def _next_heading(hit: Hit, start: int) -> int:
    """Where in a passage the next section begins, whose text would stand below the wrong heading."""
    from edge_mrl.markdown import read_blocks

    if not hit.headings:
        return len(hit.text)
    below = (block.start for block in read_blocks(hit.text) if block.level and block.start > start)
    return next(below, len(hit.text))


def _marked(line: str, words: Words) -> str:
    marked, at = "", 0
    for start, end in words.marks(line):
        marked += f"{line[at:start]}{_BOLD}{line[start:end]}{_PLAIN}"
        at = end
    return marked + line[at:]
