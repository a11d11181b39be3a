"""Links between the pages lead somewhere, and every page can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links
from tests.docs.wrap import GENERATED, PROSE, wrap

INDEX = ROOT / "docs" / "index.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text("utf-8")), f"{page.name} links to {link}"


def test_the_index_names_every_page() -> None:
    named = {(INDEX.parent / link).resolve() for link in links(INDEX.read_text("utf-8"))}
    missing = [page.name for page in PAGES if page.resolve() not in named | {INDEX.resolve()}]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_prose_are_short_enough_to_compare(page: Path) -> None:
    text = page.read_text("utf-8").split(GENERATED)[0]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in prose.splitlines() if not line.lstrip().startswith("|")]
    assert [line for line in lines if len(line) > PROSE] == [], f"python -m tests.docs.wrap {page}"


def test_wrapping_leaves_everything_but_prose() -> None:
    words = " ".join(["word"] * 30)
    prose = f"- {words}\n  `{words}`"
    page = f"# {words}\n\n{prose}\n\n| {words} |\n|---|\n\n```text\n{words}\n```\n\n    {words}\n"
    wrapped = wrap(page)
    assert wrapped.split() == page.split()
    assert wrap(wrapped) == wrapped
    lines = wrapped.splitlines()
    assert max(map(len, lines[2:4])) <= PROSE
    assert lines[3].startswith("  word")
    for kept in (f"# {words}", f"| {words} |", words, f"    {words}"):
        assert kept in lines


def test_broken_links_are_noticed() -> None:
    text = "# One `a` thing\n[x](docs/none.md) ![y](y.svg)\n```\n[z](z)\n```\n"
    assert links(text) == ["docs/none.md", "y.svg"]
    assert anchors(text) == {"one-a-thing"}
