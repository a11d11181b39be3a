"""The browser that pages are tested with: it sees what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.browser import Browser

pytestmark = pytest.mark.test
HEAD = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'


def page(body: str) -> str:
    return "data:text/html," + quote(f"{HEAD}{body}")


def test_good_page_has_nothing_to_report(browser: Browser, tmp_path: Path) -> None:
    seen = browser.visit(page("<p>Words</p>"), width=390)
    assert (seen.errors, seen.requests, seen.text) == ([], [], "Words")
    assert seen.scroll_width == 390
    assert seen.smallest_text == 16
    assert seen.weakest_contrast == pytest.approx(21)
    assert seen.screenshot(tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_faults_are_seen(browser: Browser) -> None:
    faults = (
        '<p style="width:900px;color:#999">wide</p><svg width="100" viewBox="0 0 200 100">'
        '<text y="50" font-size="12">small</text></svg><img src="http://127.0.0.1:9/a.png">'
        "<script>console.error('said'); missing()</script>"
    )
    seen = browser.visit(page(faults), width=390)
    assert seen.requests == ["http://127.0.0.1:9/a.png"]
    told = " ".join(seen.errors)
    assert "said" in told
    assert "missing is not defined" in told
    assert "ERR_" in told
    assert seen.scroll_width > 900
    assert seen.smallest_text == pytest.approx(6)
    assert seen.weakest_contrast == pytest.approx(2.85, abs=0.01)


def test_page_is_used_by_mouse_and_keys(browser: Browser) -> None:
    form = "<input><button onclick=\"document.title = document.querySelector('input').value\">go"
    seen = browser.visit(page(form), dark=True)
    assert seen.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is True
    seen.type("input", "typed")
    seen.click("button")
    seen.wait("document.title === 'typed'")
    with pytest.raises(RuntimeError, match="no such thing"):
        seen.evaluate("(() => { throw new Error('no such thing') })()")
