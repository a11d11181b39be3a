"""What every page must be, seen in a real browser."""

from __future__ import annotations

from pathlib import Path

from tests.support.browser import Browser, Page

#: Widths of a phone and of a desk, in CSS pixels.
WIDTHS = (390, 1280)
#: The smallest letters that are easily read, in CSS pixels: labels of charts.
SMALLEST_PX = 11
#: WCAG 2.2, success criterion 1.4.3.
CONTRAST = 4.5


def look(browser: Browser, path: Path) -> Page:
    """See a page on a phone and a desk, by day and by night, without a network; the last of them."""
    for width in WIDTHS:
        for dark in (False, True):
            page = browser.visit(path.resolve().as_uri(), width=width, dark=dark, offline=True)
            assert page.errors == []
            assert page.requests == []
            assert page.scroll_width <= width
            assert page.smallest_text >= SMALLEST_PX
            assert page.weakest_contrast >= CONTRAST
    return page
