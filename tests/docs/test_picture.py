"""The README's picture can be read, in light and in dark mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.support.browser import Browser

PICTURE = (ROOT / "docs" / "picture.svg").read_text("utf-8")
#: WCAG 2.2, 1.4.3, asks for this contrast.
CONTRAST = 4.5
#: Words that stand outside of the box whose middle they share, or outside of the picture.
OUTSIDE = """[...document.querySelectorAll('text')].filter(text => {
  const inner = text.getBBox(), x = inner.x + inner.width / 2, y = inner.y + inner.height / 2;
  return [...document.querySelectorAll('rect')].some(rect => {
    const box = rect.getBBox();
    const holds = box.x < x && x < box.x + box.width && box.y < y && y < box.y + box.height;
    return holds && (inner.x < box.x || inner.x + inner.width > box.x + box.width);
  });
}).map(text => text.textContent)"""


@pytest.mark.test
@pytest.mark.parametrize(("dark", "paper"), [(False, "#ffffff"), (True, "#0d1117")])
def test_words_of_the_picture_fit_and_stand_out(
    *, dark: bool, paper: str, browser: Browser, tmp_path: Path
) -> None:
    assert PICTURE.count(f".card {{ fill: {paper}") == 1
    page = tmp_path / "page.html"
    page.write_text(f'<body style="background: {paper}">{PICTURE}</body>', "utf-8")
    seen = browser.visit(page.as_uri(), dark=dark)
    assert seen.errors == []
    assert seen.requests == []
    assert seen.evaluate(OUTSIDE) == []
    assert seen.weakest_contrast >= CONTRAST
