"""Wrap the prose of Markdown pages: ``python -m tests.docs.wrap README.md docs/store.md``.

Tables, code, headings, HTML and the generated part of docs/cli.md stay as they are.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PROSE", "wrap"]

#: Longest line of prose.
PROSE = 120
#: Stands for a space at which no line may end.
KEPT = "\0"
LIST = re.compile(r"^(\s*)([-*+]|\d+\.) +")
GENERATED = "<!-- Below:"


def wrap(page: str) -> str:
    """A page with the lines of its paragraphs and lists at most 120 characters long."""
    return "\n".join(_lines(page.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    paragraph: list[str] = []
    fenced = generated = False
    first = rest = ""
    for line in lines:
        fence = line.lstrip().startswith("```")
        generated = generated or line.startswith(GENERATED)
        item = LIST.match(line)
        if fence or fenced or generated or _stays(line, inside=bool(paragraph)):
            yield from _paragraph(paragraph, first, rest)
            yield line
            paragraph = []
            fenced ^= fence
        elif item:
            yield from _paragraph(paragraph, first, rest)
            first, rest = item.group(), " " * len(item.group())
            paragraph = [line[item.end() :]]
        else:
            if not paragraph:
                first = rest = line[: len(line) - len(line.lstrip())]
            paragraph.append(line)
    yield from _paragraph(paragraph, first, rest)


def _stays(line: str, *, inside: bool) -> bool:
    """Whether a line is no prose: empty, a heading, a table, HTML, a picture or indented code."""
    text = line.strip()
    code = line.startswith("    ") and not inside
    return not text or text.startswith(("#", "|", "<", "![")) or code


def _paragraph(lines: list[str], first: str, rest: str) -> list[str]:
    text = " ".join(" ".join(lines).split())
    # Code and addresses stay in one piece, and no line begins with what Markdown takes for a list.
    for piece in (r"`[^`]+`", r"\]\([^)]*\)"):
        text = re.sub(piece, lambda found: found.group().replace(" ", KEPT), text)
    text = re.sub(r" (?=[-+*#>|] |\d+[.)] )", KEPT, text)
    options = {"break_long_words": False, "break_on_hyphens": False}
    wrapped = textwrap.wrap(text, PROSE, initial_indent=first, subsequent_indent=rest, **options)
    return [line.replace(KEPT, " ") for line in wrapped]


def main() -> None:
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(wrap(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
