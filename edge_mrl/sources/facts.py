"""What a file's document has as metadata: where the file is, its title, and when it was changed."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge_mrl.documents import Document, metadata_problem
from edge_mrl.markdown import first_title, is_markdown
from edge_mrl.sources.kinds import TEXT_SUFFIXES, is_parsed, kind_of, markup_of, suffix_of

if TYPE_CHECKING:
    from edge_mrl.sources.files import SourceFile

__all__ = ["file_document", "line_in_file", "with_facts"]

#: Facts that are always the file's. What a note itself says under these names is kept under OWN.
OF_FILE = ("path", "folder", "mtime")
OWN = "own"
#: In so many bytes is all front matter that is read.
HEAD_BYTES = 1 << 18
#: From this year on, times as texts have the order of times.
FOUR_DIGITS = 1_000


def file_document(source: SourceFile, text: str, noted: Callable[[str], None]) -> Document:
    """The document of a text file; a note's front matter becomes its metadata.

    Args:
        source: The file.
        text: What it holds.
        noted: Called with what should be said of the file.
    """
    own: Mapping[str, Any] = {}
    if is_markdown(source.below):
        from edge_mrl.sources.frontmatter import front_matter

        found = front_matter(text)
        if found.problem is not None:
            noted(f"its front matter is read as text: {found.problem}")
        text, own = text[found.end :], found.metadata
        if not isinstance(own.get("title"), str) and (title := first_title(text)):
            own = {**own, "title": title}
    metadata = with_facts(source, own)
    if (problem := metadata_problem(metadata)) is not None:  # facts made it too large
        noted(f"its front matter is left out: {problem}")
        metadata = with_facts(source, {})
    return Document(source.source, text, metadata, source=source.source)


def line_in_file(path: str, text: str, at: int) -> int | None:
    """The line of a file in which a place of its document is, counted from 1.

    Args:
        path: The file.
        text: The document's text, which lacks the file's front matter.
        at: The place in the text, in characters.

    Returns:
        None for files whose lines are not those of their text, or that cannot be read.
    """
    if kind_of(path) != "text" or markup_of(path) is not None:
        return None
    if suffix_of(path) not in TEXT_SUFFIXES and is_parsed(path):  # the readers of others take time
        return None
    above = 0
    if is_markdown(path):
        try:
            with open(path, "rb") as file:
                head = (
                    file.read(HEAD_BYTES).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
                )
        except OSError:
            return None
        if head.startswith(("---", "+++")):
            from edge_mrl.sources.frontmatter import front_matter

            above = head.count("\n", 0, front_matter(head).end)
    return above + text.count("\n", 0, at) + 1


def with_facts(source: SourceFile, own: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """Metadata with the facts of its file.

    Args:
        source: The file.
        own: What the document itself says.
        whole: Whether the document is the whole file, and not a row or a message of it. Rows have no
            time, and their own values stay where they are.
    """
    folder, _, name = source.below.rpartition("/")
    place = {"path": source.below, "folder": folder}
    if not whole:
        return {**place, **own}
    facts: dict[str, Any] = {**place, "title": os.path.splitext(name)[0]}
    if (changed := _changed(source.path)) is not None:
        facts["mtime"] = changed
    apart = {name: own[name] for name in OF_FILE if name in own}
    if apart:
        apart |= {OWN: own[OWN]} if OWN in own else {}
        own = {name: value for name, value in own.items() if name not in apart} | {OWN: apart}
    return {**facts, **own}


def _changed(path: str) -> str | None:
    """When a file was changed, as "2026-11-27T16:43:55Z"; None if that cannot be told."""
    from datetime import UTC, datetime

    try:
        at = datetime.fromtimestamp(int(os.stat(path).st_mtime), UTC)
    except (OSError, ValueError, OverflowError):
        return None
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at.year >= FOUR_DIGITS else None
