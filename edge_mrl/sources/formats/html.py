"""HTML: the text that a person reads, block by block."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_mrl.sources.formats.registry import Part, Unreadable
from edge_mrl.sources.text import NotText, decode

__all__ = ["html_text", "read_html"]

#: Elements that end a line; all others run on.
_BLOCKS = frozenset(
    {
        *(
            "address",
            "article",
            "aside",
            "blockquote",
            "body",
            "br",
            "caption",
            "dd",
            "details",
            "div",
        ),
        *("dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4"),
        *("h5", "h6", "header", "hr", "li", "main", "nav", "ol", "option", "p", "pre", "section"),
        *("summary", "table", "td", "th", "tr", "ul"),
    }
)
_UNSEEN = frozenset({"head", "script", "style", "template", "noscript", "svg", "math", "iframe"})
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
#: Elements that hold no others, or that the next of their kind closes.
_CLOSED_BY_OTHERS = frozenset(
    {
        *(
            "area",
            "base",
            "br",
            "col",
            "dd",
            "dt",
            "embed",
            "hr",
            "img",
            "input",
            "li",
            "link",
            "meta",
        ),
        *("option", "p", "param", "source", "td", "th", "tr", "track", "wbr"),
    }
)
#: The parser takes time that grows with the square of this: 0.05 s for so many.
MOST_DEEP = 5000
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]+)""", re.IGNORECASE)
#: Bytes in which a page says its encoding.
_HEAD_BYTES = 2048


def read_html(path: str, encoding: str | None) -> Iterable[Part]:
    """The page as one document, with its title."""
    text, title = html_text(_decoded(Path(path).read_bytes(), encoding))
    yield Part(text, metadata={"title": title} if title else {})


def html_text(page: str) -> tuple[str, str]:
    """The text of a page, and its title or "".

    Raises:
        Unreadable: There is no text.
    """
    from selectolax.lexbor import LexborHTMLParser

    if _depth(page) > MOST_DEEP:
        raise Unreadable(f"has elements more than {MOST_DEEP:,} deep")
    tree = LexborHTMLParser(page)
    found = tree.css_first("title")
    title = " ".join(found.text().split()) if found is not None else ""
    parts: list[str] = []
    # Closing is a mark on the stack: a page may be nested deeper than Python recurses.
    waiting: list[Any] = [tree.body] if tree.body is not None else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            parts.append(node)
        elif node.tag == "-text":
            parts.append(re.sub(r"\s+", " ", node.text_content or ""))
        elif node.tag not in _UNSEEN and not node.tag.startswith(("-", "_")):
            ends = "\n" if node.tag in _BLOCKS else ""
            parts.append(ends)
            waiting.append(ends)
            inner = []
            child = node.child
            while child is not None:
                inner.append(child)
                child = child.next
            waiting.extend(reversed(inner))
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    text = "\n".join(line for line in lines if line)
    if not text:
        raise Unreadable("holds no text")
    return text, title


def _depth(page: str) -> int:
    """How deep elements lie in each other, at most."""
    depth = deepest = 0
    for end, name in _TAG.findall(page):
        if name.lower() not in _CLOSED_BY_OTHERS:
            depth = depth + 1 if not end else max(0, depth - 1)
            deepest = max(deepest, depth)
    return deepest


def _decoded(data: bytes, encoding: str | None) -> str:
    try:
        return decode(data, encoding)
    except NotText as error:
        found = _CHARSET.search(data[:_HEAD_BYTES])
        if encoding is not None or found is None:
            raise Unreadable(str(error)) from error
    try:
        return data.decode(found[1].decode("ascii"), "replace")
    except LookupError as error:
        raise Unreadable(f"says that it is in {found[1]!r}, which is no encoding") from error
