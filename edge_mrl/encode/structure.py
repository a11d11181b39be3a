"""Splitting Markdown into passages by its structure.

A passage is made of whole blocks: paragraphs, lists, tables and code, with the heading above them. A
section begins a new passage, unless what was gathered so far is so short that it would say little. What
is too long for a passage is cut: lists between items, code and tables between lines, and paragraphs by
tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from edge_mrl.documents import shorten
from edge_mrl.encode.passages import (
    SPLITTER,
    WITH_HEADINGS,
    Cutting,
    heading_tokens,
    split_passages,
)
from edge_mrl.errors import UsageError
from edge_mrl.markdown import Block, is_markdown, read_blocks

if TYPE_CHECKING:
    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.encode.encoder import Encoder

__all__ = ["split_document"]

#: Sections of less than a fourth of a passage are joined with the next one.
SMALL = 4
_ITEM = re.compile(r"^[ \t]*(?:[-+*]|[0-9]{1,9}[.)])[ \t]", re.MULTILINE)
_LINE = re.compile(r"^", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Unit:
    """Part of a text that is not cut any more.

    Attributes:
        start: Its offset, in characters.
        end: Its end.
        section: Whether a section begins with it.
        whole: Whether it is a passage of its own, because it was cut by tokens.
    """

    start: int
    end: int
    section: bool = False
    whole: bool = False


def split_document(
    encoder: Encoder, document: Document, rule: PassageRule
) -> list[tuple[int, int]]:
    """Split a document into passages as a store's rule says.

    Args:
        encoder: Its tokenizer counts the tokens.
        document: Its id says whether it is Markdown.
        rule: Most tokens in a passage, their overlap, and the splitter.

    Returns:
        Offsets (start, end) of each passage in characters (code points), in order. Together the
        passages cover the text. [] for a text without tokens.

    Raises:
        UsageError: It is Markdown, and a newer version has split the store's.
    """
    if rule.splitter == "tokens" or not is_markdown(document.id):
        return split_passages(encoder, document.text, rule)
    if rule.splitter not in (SPLITTER, WITH_HEADINGS):
        raise UsageError(
            f"the store's Markdown is split by {shorten(rule.splitter)}, which this version does not "
            "know: use the edge-mrl that made it, or `edge-mrl reindex --again`"
        )
    most = rule.max_tokens - heading_tokens(rule)
    rule = replace(rule, max_tokens=most, overlap=min(rule.overlap, most - 1))
    cutting = Cutting(encoder, document.text, rule)
    if not cutting.count(0, len(document.text)):
        return []
    return _with_tokens(cutting, _joined(cutting, _units(cutting)))


def _units(cutting: Cutting) -> Iterator[_Unit]:
    """Blocks, each with the headings above it; what is too long is in parts."""
    text, most = cutting.text, cutting.rule.max_tokens
    above: int | None = None
    for block in read_blocks(text):
        if block.level:
            above = block.start if above is None else above
            continue
        start, section = (block.start, False) if above is None else (above, True)
        above = None
        if cutting.count(start, block.end) <= most:
            yield _Unit(start, block.end, section)
        else:
            yield from _parts(cutting, start, block, section=section)
    if above is not None:
        yield from _cut(cutting, above, len(text), section=True)


def _parts(cutting: Cutting, start: int, block: Block, *, section: bool) -> Iterator[_Unit]:
    """A block that is too long, with its headings: between items, between lines, or by tokens."""
    marks = {"list": _ITEM, "code": _LINE, "table": _LINE}.get(block.kind)
    if marks is None:
        yield from _cut(cutting, start, block.end, section=section)
        return
    borders = [found.start() for found in marks.finditer(cutting.text, block.start, block.end)]
    if (
        block.kind == "code"
        and len(borders) > 1
        and not _shown(cutting.text[borders[-1] : block.end])
    ):
        borders.pop()  # a fence alone says nothing
    borders = [start, *(at for at in borders if block.start < at < block.end), block.end]
    for first, after in pairwise(borders):
        inner = Block(first, after, "code")
        lines = cutting.count(first, after) > cutting.rule.max_tokens and block.kind == "list"
        if lines:
            yield from _parts(cutting, first, inner, section=section)
        else:
            yield from _cut(cutting, first, after, section=section)
        section = False


def _shown(line: str) -> str:
    """What a line says beside the signs of a fence."""
    return line.strip().strip("`~")


def _cut(cutting: Cutting, start: int, end: int, *, section: bool) -> Iterator[_Unit]:
    """A part of the text as one unit, or by tokens."""
    if cutting.count(start, end) <= cutting.rule.max_tokens:
        yield _Unit(start, end, section)
        return
    for first, after in cutting.between_words(start, end):
        yield _Unit(first, after, section, whole=True)


def _joined(cutting: Cutting, units: Iterator[_Unit]) -> Iterator[tuple[int, int]]:
    """Neighbours together, as far as they fit into a passage."""
    most = cutting.rule.max_tokens
    start = end = 0
    for unit in units:
        held = cutting.count(start, end)
        apart = unit.whole or cutting.count(start, unit.end) > most
        if end > start and (apart or (unit.section and held >= max(most // SMALL, 1))):
            yield start, end
            start = end
        if unit.whole:
            yield unit.start, unit.end
            start = end = unit.end
        else:
            end = unit.end
    if end > start:
        yield start, end


def _with_tokens(cutting: Cutting, spans: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    """The passages; one without a token is joined with the one before it, or else the next."""
    found: list[tuple[int, int]] = []
    empty: int | None = None
    for start, end in spans:
        if cutting.count(start, end):
            found.append((start if empty is None else empty, end))
            empty = None
        elif found:
            found[-1] = (found[-1][0], end)
        else:
            empty = start if empty is None else empty
    return found
