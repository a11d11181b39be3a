"""What is embedded for a passage: its text, with the headings above it where a store's rule says so.

A paragraph often leaves out what its heading says. With the headings before it, the vector knows; the
passage itself stays a part of the document's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_mrl.encode.passages import WITH_HEADINGS, heading_tokens
from edge_mrl.markdown import Outline, is_markdown

if TYPE_CHECKING:
    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.encode.encoder import Encoder

__all__ = ["embedded_texts"]

#: Stands between headings, and between them and the passage.
BETWEEN, BEFORE_TEXT = " > ", "\n"


def embedded_texts(
    encoder: Encoder, document: Document, spans: Sequence[tuple[int, int]], rule: PassageRule
) -> list[str]:
    """The texts that are embedded for a document's passages.

    Args:
        encoder: Its tokenizer counts the tokens of headings.
        document: Its id says whether it is Markdown.
        spans: Offsets (start, end) of its passages in characters, as ``split_document`` gives them.
        rule: Says whether headings belong to it, and how long passages are.

    Returns:
        For each passage its text. Where the rule has headings, and the document is Markdown, the titles
        of the headings above it come first, without those that stand in it: ``A > B``, and a line break.
        They take at most an eighth of the longest passage; of longer ones the outermost are left out.
    """
    texts = [document.text[start:end] for start, end in spans]
    if rule.splitter != WITH_HEADINGS or not is_markdown(document.id):
        return texts
    outline, room = Outline(document.text), heading_tokens(rule)
    known: dict[tuple[str, ...], str] = {(): ""}
    for number, (start, end) in enumerate(spans):
        above = outline.above(start, end, inside=False)
        if above not in known:
            known[above] = _line(encoder, above, room)
        texts[number] = known[above] + texts[number]
    return texts


def _line(encoder: Encoder, above: tuple[str, ...], room: int) -> str:
    """As many of the headings as there is room for, the innermost first; "" if there is none."""
    lines = [BETWEEN.join(above[first:]) + BEFORE_TEXT for first in range(len(above))]
    special = len(encoder.tokenize([""], kind="document")[0])
    counts = [len(ids) - special for ids in encoder.tokenize(lines, kind="document")]
    return next((line for line, count in zip(lines, counts, strict=True) if count <= room), "")
