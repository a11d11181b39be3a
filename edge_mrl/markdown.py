"""Markdown by structure: blocks that belong together, and the headings above any place.

A reader of lines, by the rules of CommonMark (https://spec.commonmark.org/0.31.2/) for what stands at
the left margin: headings, fenced code, lists, tables (GitHub's), comments, and paragraphs. It takes one
pass, and every text has blocks.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Block", "Outline", "first_title", "is_markdown", "read_blocks"]

#: What the names of Markdown files end with.
SUFFIXES = (".md", ".markdown")
#: A heading, a fence or the line below a table's head is shorter than this.
MOST_CHARS = 1_000
#: Characters of a heading that are shown.
TITLE_CHARS = 120

_LINE = re.compile(r"[^\n]*(?:\n|$)")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})(.*)$")
_ITEM = re.compile(r" {0,3}(?:[-+*]|[0-9]{1,9}[.)])(?:[ \t]|$)")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_BAR = re.compile(r"[ \t]*\|?[ \t:-]*-[ \t:|-]*$")
#: What lines that begin a block by their signs begin with; only a table's has a bar instead.
_SIGNS = frozenset("#=-`~+*<0123456789")
#: Spaces from which a line is code, and not a fence or a heading, outside of lists.
CODE_INDENT = 4


@dataclass(slots=True)
class Block:
    """Lines of a text that belong together, with the empty lines below them.

    Attributes:
        start: Offset of the first, in characters.
        end: Offset behind the last.
        kind: "heading", "paragraph", "list", "table", "code" or "comment".
        level: Of a heading, 1 to 6; else 0.
        title: Of a heading, without its signs.
    """

    start: int
    end: int
    kind: str = "paragraph"
    level: int = 0
    title: str = ""


def is_markdown(name: str) -> bool:
    """Whether a document is Markdown, by its id or the name of its file."""
    return name.lower().endswith(SUFFIXES)


def read_blocks(text: str) -> list[Block]:
    """The blocks of a text, in order. Together they cover it; [] for one without a sign."""
    reader = _Reader(text)
    for start, line in _lines(text):
        reader.take(start, line)
    return reader.done()


def first_title(text: str) -> str | None:
    """The first heading of level 1; without one, the first heading; None without any."""
    found = None
    for block in read_blocks(text):
        if block.level == 1 and block.title:
            return block.title
        if block.level and block.title and found is None:
            found = block.title
    return found


class Outline:
    """The headings of a text, asked for by place.

    Attributes:
        blocks: The blocks of the text, in order.
    """

    def __init__(self, text: str) -> None:
        self.blocks = read_blocks(text)
        self._starts = [block.start for block in self.blocks]
        self._above: list[tuple[Block, ...]] = []
        above: tuple[Block, ...] = ()
        for block in self.blocks:
            if block.level:
                above = (*(one for one in above if one.level < block.level), block)
            self._above.append(above)

    def at(self, position: int) -> tuple[str, ...]:
        """The headings that a place stands below, from the outermost, with one that begins there."""
        return _titles(self._blocks_above(position))

    def above(self, start: int, end: int, *, inside: bool = True) -> tuple[str, ...]:
        """The headings above the first text of a part that is no heading itself, from the outermost.

        Args:
            start: Where the part begins, in characters.
            end: Where it ends.
            inside: Whether those count that stand in the part itself.
        """
        position = max(start, self._spoken(start, end))
        found = self._blocks_above(position)
        return _titles(found if inside else [block for block in found if block.start < start])

    def _spoken(self, start: int, end: int) -> int:
        """Where the first block of a part begins that is no heading; its end if there is none."""
        for block in self.blocks[max(bisect_right(self._starts, start) - 1, 0) :]:
            if block.start >= end:
                break
            if not block.level:
                return block.start
        return end - 1

    def _blocks_above(self, position: int) -> tuple[Block, ...]:
        number = bisect_right(self._starts, position) - 1
        return self._above[number] if number >= 0 else ()


def _titles(blocks: Sequence[Block]) -> tuple[str, ...]:
    return tuple(block.title for block in blocks if block.title)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    while at < len(text):
        match = _LINE.match(text, at)
        end = len(text) if match is None else match.end()
        yield at, text[at:end].rstrip("\r\n")
        at = end


class _Reader:
    """Makes blocks of lines."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._blocks: list[Block] = []
        self._open = False  # whether the last block may go on with this line
        self._fence = ""
        self._comment = False

    def done(self) -> list[Block]:
        """All blocks."""
        ends = [block.start for block in self._blocks[1:]] + [len(self._text)]
        for block, end in zip(self._blocks, ends, strict=False):
            block.end = end
        if self._blocks:
            self._blocks[0].start = 0
        elif self._text:
            self._blocks.append(Block(0, len(self._text)))
        return self._blocks

    def take(self, start: int, line: str) -> None:
        """The next line."""
        last = self._blocks[-1] if self._blocks else None
        if self._fence:
            self._fence = "" if _closes(line, self._fence) else self._fence
        elif self._comment:
            self._comment = "-->" not in line
        elif not line.strip():
            self._open = False
        elif last is not None and last.kind == "list" and self._in_list(line):
            self._open, self._fence = True, _opens(line, most=len(line))
        elif not self._marked(start, line, last):
            if not self._open or last is None:
                self._blocks.append(Block(start, start))
            self._open = True

    def _marked(self, start: int, line: str, last: Block | None) -> bool:
        """Take a line that begins a block by its own signs; whether it does."""
        if line.lstrip(" \t")[0] not in _SIGNS and "|" not in line:
            return False
        short = line if len(line) < MOST_CHARS else ""
        atx = _ATX.match(short)
        if atx is not None:
            title = re.sub(r"(?:^|[ \t]+)#+$", "", short[atx.end() :].strip())
            self._add(Block(start, start, "heading", len(atx[1]), _shown(title)))
            return True
        paragraph = self._open and last is not None and last.kind == "paragraph"
        under = _SETEXT.match(short) if paragraph else None
        if under is not None and last is not None:
            last.kind, last.level = "heading", 1 if under[1][0] == "=" else 2
            last.title = _shown(self._text[last.start : start])
            self._open = False
            return True
        if paragraph and last is not None and "|" in short and _BAR.match(short):
            last.kind = "table"
            return True
        fence = _opens(short, most=CODE_INDENT - 1)
        if fence:
            self._add(Block(start, start, "code"))
            self._fence = fence
            return True
        if _ITEM.match(short) and not _RULE.match(short):
            self._add(Block(start, start, "list"), goes_on=True)
            return True
        if line.lstrip().startswith("<!--"):
            self._add(Block(start, start, "comment"))
            self._comment = "-->" not in line
            return True
        return False

    def _add(self, block: Block, *, goes_on: bool = False) -> None:
        self._blocks.append(block)
        self._open = goes_on

    def _in_list(self, line: str) -> bool:
        """Whether a line belongs to the list above it: an item, or indented, or without a gap."""
        if _RULE.match(line[:MOST_CHARS]) or _ATX.match(line):
            return False
        if _ITEM.match(line) or line.startswith(("  ", "\t")):
            return True
        return self._open and not _opens(line, most=CODE_INDENT - 1)


def _opens(line: str, *, most: int) -> str:
    """The fence that a line opens; "" if it opens none."""
    match = _FENCE.match(line) if len(line) < MOST_CHARS else None
    if match is None or len(match[1]) > most or (match[2][0] == "`" and "`" in match[3]):
        return ""
    return match[2]


def _closes(line: str, fence: str) -> bool:
    inner = line.strip()
    return len(inner) >= len(fence) and not inner.strip(fence[0])


def _shown(title: str) -> str:
    """A heading on one line, without signs that a person does not see."""
    plain = re.sub(r"\[([^\]\[]{0,200})\]\([^()\s]{0,500}\)", r"\1", title[:MOST_CHARS])
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in plain).split())
    line = line.replace("**", "").replace("`", "").strip()
    return line if len(line) <= TITLE_CHARS else f"{line[: TITLE_CHARS - 3].rstrip()}..."
