"""HTML pages that open anywhere: one file, without scripts or network, for light and dark screens."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from edge_mrl_export.pages.plots import Panel, inline

__all__ = ["Page"]

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#222;--soft:#555;--rule:#ddd;--line-0:#c2410c;
--line-1:#1d4ed8;--line-2:#15803d;--line-3:#7e22ce;--line-4:#0f766e;--line-5:#a16207}
@media(prefers-color-scheme:dark){:root{--paper:#141414;--ink:#eaeaea;--soft:#adadad;--rule:#3a3a3a;
--line-0:#fb923c;--line-1:#7aa5ff;--line-2:#4ade80;--line-3:#c99bfd;--line-4:#2dd4bf;--line-5:#facc15}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1rem;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.2rem;margin:2rem 0 .3rem}
.how,figcaption{color:var(--soft);margin:.3rem 0;font-size:.9rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3rem .5rem;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600}.facts td+td,.figures td+td,.figures th+th{text-align:right}
.facts td:first-child{width:45%;overflow-wrap:normal}
.figures td,.figures th{white-space:nowrap;overflow-wrap:normal}td{font-variant-numeric:tabular-nums}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem}
figure{margin:.5rem 0;max-width:36rem}svg{display:block;width:100%;height:auto}
pre{white-space:pre-wrap;border:1px solid var(--rule);padding:.6rem;font-size:.9rem}
""".replace("\n", "")


class Page:
    """A page, built from top to bottom.

    Args:
        title: Its heading.
        lead: A first paragraph: what the page is.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self._title = title
        self._parts: list[str] = []
        if lead:
            self.text(lead)

    def heading(self, text: str, how: str = "") -> None:
        """A section's heading, and a note such as how its figures were measured."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")
        if how:
            self.note(how)

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph in small letters."""
        self._parts.append(f"<p class=how>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Commands to type."""
        self._parts.append(f"<pre><code>{html.escape(text)}</code></pre>")

    def facts(self, rows: Iterable[tuple[str, str]]) -> None:
        """A table of names and values."""
        body = "".join(f"<tr>{_cell(name)}{_cell(value)}</tr>" for name, value in rows)
        self._parts.append(f"<table class=facts>{body}</table>")

    def figures(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table of numbers; if it is too wide for the window, it can be scrolled."""
        head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        self._parts.append(
            f"<div class=wide tabindex=0><table class=figures><tr>{head}</tr>{body}</table></div>"
        )

    def plots(self, panels: Iterable[Panel], caption: str = "") -> None:
        """Charts, next to each other if there is room."""
        drawn = "".join(f"<figure>{inline(panel)}</figure>" for panel in panels)
        self._parts.append(f"<div class=plots>{drawn}</div>")
        if caption:
            self.note(caption)

    def html(self) -> str:
        """The whole file."""
        title = html.escape(self._title)
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
            f'<title>{title}</title><link rel="icon" href="data:,"><style>{_STYLE}</style>'
            f"<h1>{title}</h1>{''.join(self._parts)}</html>\n"
        )


def _cell(text: str) -> str:
    return f"<td>{html.escape(text)}</td>"
