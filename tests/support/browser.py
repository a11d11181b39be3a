"""A real browser, headless, to look at pages as people do.

    with Browser.open() as browser:
        page = browser.visit("file:///...", width=390)
        assert page.errors == [] and page.requests == [] and page.scroll_width <= 390
        page.click("button")
        page.wait("document.title == 'done'")
        page.screenshot(Path("page.png"))

The machine's own Chromium or Chrome is taken, or Debian's chromium-headless-shell, fetched by apt and
unpacked into a cache folder without root. It is driven over a pipe by the DevTools protocol
(chromedevtools.github.io/devtools-protocol), so nothing has to be installed for that.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.debian import UnavailableError, fetch_missing, unpack

__all__ = ["Browser", "Page", "UnavailableError", "find_browser"]

#: Names of the machine's own; a path in this variable comes before them.
VARIABLE = "EDGE_MRL_BROWSER"
CACHE_VARIABLE = "EDGE_MRL_BROWSER_CACHE"
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PACKAGE = "chromium-headless-shell"
TIMEOUT_S = 60.0
#: A page that has loaded may still be busy; it is at rest after so long without a message.
QUIET_S = 0.15
HEIGHT = 844
PHONE = 600
#: The pipes' numbers are fixed: the browser reads from 3 and writes to 4.
STARTER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root in a container has no other way, and the pages are ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--hide-scrollbars",
)


def find_browser() -> tuple[Path, dict[str, str]]:
    """The program, and the environment that it needs beyond the usual.

    Raises:
        UnavailableError: There is none here, and none can be fetched; the message says why.
    """
    named = os.environ.get(VARIABLE)
    for name in (named,) if named else NAMES:
        found = shutil.which(name)
        if found:
            return Path(found), {}
    if named:
        raise UnavailableError(f"{VARIABLE} names {named}, which is no program")
    if not sys.platform.startswith("linux"):
        raise UnavailableError(f"no Chromium here; {VARIABLE} may name one")
    return _unpacked()


def _unpacked() -> tuple[Path, dict[str, str]]:
    """Debian's browser in the cache; fetched if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    chosen = os.environ.get(CACHE_VARIABLE)
    root = Path(chosen).resolve() if chosen else Path(base).resolve() / "edge-mrl" / "browser"
    program = root / "usr" / "lib" / "chromium" / "chromium-headless-shell"
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / "browser.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes: one fetches
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=root.parent, prefix="building-") as scratch:
                for deb in fetch_missing(Path(scratch) / "apt", PACKAGE):
                    unpack(deb, Path(scratch) / "root")
                (Path(scratch) / "root").replace(root)
    libraries = [*root.glob("usr/lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu/pulseaudio")]
    return program, {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}


class Browser:
    """A running browser; use as a context manager."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path, to: int, back: int) -> None:
        self._process, self._home, self._to, self._from = process, home, to, back
        self._buffer = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []

    @classmethod
    def open(cls) -> Self:
        """Start it, with a profile of its own that is gone afterwards.

        Raises:
            UnavailableError: There is no browser; it comes from ``find_browser``.
        """
        program, environment = find_browser()
        home = Path(tempfile.mkdtemp(prefix="edge-mrl-browser-"))
        down, up = os.pipe(), os.pipe()
        # High numbers, so that none is overwritten before it is moved to 3 or 4.
        inner = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (down[0], up[1])]
        command = [sys.executable, "-c", STARTER, *map(str, inner), str(program), *FLAGS]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, f"--user-data-dir={home / 'profile'}"],
                pass_fds=inner,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment, "HOME": str(home), "XDG_CONFIG_HOME": str(home)},
            )
        for fd in (*inner, down[0], up[1]):
            os.close(fd)
        return cls(process, home, down[1], up[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._to)  # it ends when nobody speaks to it
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)
        shutil.rmtree(self._home, ignore_errors=True)

    def visit(
        self, url: str, *, width: int = 1280, dark: bool = False, offline: bool = False
    ) -> Page:
        """Open an address in a new page, and wait until it has loaded and is at rest.

        Args:
            url: ``file:``, ``http:`` or ``data:``.
            width: Of the window in CSS pixels; below 600 it is a phone with touch.
            dark: What the page is told of the user's preferred colours.
            offline: Cut the page off from every network.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, url)
        page.prepare(width=width, dark=dark, offline=offline)
        return page

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            reply = self._read(deadline - time.monotonic())
            if reply is None:
                raise TimeoutError(f"the browser does not answer {method}: {self._log()}")
            if reply.get("id") != self._number:
                self._events.append(reply)
            elif "error" in reply:
                raise RuntimeError(f"{method}: {reply['error']['message']}")
            else:
                result: dict[str, Any] = reply["result"]
                return result

    def events(self, session: str, wait_s: float = 0.0) -> list[dict[str, Any]]:
        """What a page has said since the last call; at most ``wait_s`` is waited for a first word."""
        while (event := self._read(wait_s)) is not None:
            self._events.append(event)
            wait_s = 0.0
        own = [e for e in self._events if e.get("sessionId") == session]
        self._events = [e for e in self._events if e.get("sessionId") != session]
        return own

    def _read(self, wait_s: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + max(wait_s, 0)
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return None
            data = os.read(self._from, 2**20)
            if not data:
                raise RuntimeError(f"the browser ended: {self._log()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _log(self) -> str:
        return (self._home / "log").read_text("utf-8", "replace")[-2000:]


class Page:
    """An open page.

    Attributes:
        url: Its address.
        errors: What the console called an error or warned of, exceptions, and loads that failed.
        requests: Addresses that were asked for beyond the page's own; ``data:`` is none.
    """

    def __init__(self, browser: Browser, session: str, url: str) -> None:
        self._browser, self._session, self.url = browser, session, url
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False

    def prepare(self, *, width: int, dark: bool, offline: bool) -> None:
        """Settle how it is seen, go to its address, and wait for it."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        phone = width < PHONE
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=HEIGHT,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        if offline:
            speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
            self._call("Network.emulateNetworkConditions", offline=True, **speed)
        self._call("Page.navigate", url=self.url)
        deadline = time.monotonic() + TIMEOUT_S
        while not self._loaded:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.url} does not load: {self.errors}")
            self.collect(0.2)
        while self.collect(QUIET_S):
            pass

    def collect(self, wait_s: float = 0.0) -> int:
        """Take in what has happened, and say how much that was."""
        events = self._browser.events(self._session, wait_s)
        for event in events:
            self._take(event["method"], event.get("params", {}))
        return len(events)

    def _take(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.errors.append(" ".join(str(a.get("value")) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            asked = params["request"]["url"]
            if asked != self.url and not asked.startswith("data:"):
                self.requests.append(asked)
        elif method == "Network.loadingFailed":
            self.errors.append(f"{params.get('errorText')}")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; a promise is waited for.

        Raises:
            RuntimeError: It threw; the message is its own.
        """
        result = self._call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        self.collect()
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return result["result"].get("value")

    def click(self, selector: str) -> None:
        """Click the first element that a CSS selector finds, by the mouse, where it is seen."""
        at = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect(); "
            f"return [r.x + r.width / 2, r.y + r.height / 2] }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": at[0], "y": at[1], "button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, **where)
        self.collect(QUIET_S)

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field and type."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)
        self.collect()

    def wait(self, condition: str, limit_s: float = 10.0) -> None:
        """Wait until an expression of JavaScript is true.

        Raises:
            TimeoutError: It did not become so.
        """
        deadline = time.monotonic() + limit_s
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition} stayed false; the page says {self.text[:500]!r}")
            self.collect(0.05)

    @property
    def text(self) -> str:
        """The words as they are shown."""
        return str(self.evaluate("document.body.innerText"))

    @property
    def scroll_width(self) -> int:
        """Pixels that the page is wide; more than the window's mean that it scrolls sideways."""
        return int(self.evaluate("document.documentElement.scrollWidth"))

    @property
    def smallest_text(self) -> float:
        """Height in CSS pixels of the smallest letters on the page, as scaled, drawings included."""
        return float(self.evaluate(SMALLEST))

    @property
    def weakest_contrast(self) -> float:
        """Least contrast of text to what is behind it, 1 to 21 (WCAG 2.2, 1.4.3 asks for 4.5)."""
        return float(self.evaluate(CONTRAST))

    def screenshot(self, path: Path) -> Path:
        """Write the whole page as PNG."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)


#: Every element that has words of its own and is shown.
_SHOWN = """
const shown = [...document.querySelectorAll('body *')].filter(e =>
  [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
  && e.getClientRects().length && getComputedStyle(e).visibility !== 'hidden'
  && !['STYLE', 'SCRIPT', 'TITLE', 'DESC'].includes(e.tagName.toUpperCase()));
"""
SMALLEST = f"""(() => {{ {_SHOWN}
return Math.min(...shown.map(e => {{
  const size = parseFloat(getComputedStyle(e).fontSize);
  const drawing = e.ownerSVGElement && e.getScreenCTM();
  return drawing ? size * Math.hypot(drawing.a, drawing.b) : size;
}})) }})()"""
CONTRAST = f"""(() => {{ {_SHOWN}
const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => {{
  const [x, y, z] = [r, g, b].map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * x + .7152 * y + .0722 * z;
}};
const behind = e => {{
  for (; e; e = e.parentElement) {{
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c;
  }}
  return matchMedia('(prefers-color-scheme: dark)').matches
    && getComputedStyle(document.documentElement).colorScheme.includes('dark')
    ? [18, 18, 18] : [255, 255, 255];
}};
return Math.min(...shown.map(e => {{
  const style = getComputedStyle(e);
  const pair = [light(parse(e.ownerSVGElement ? style.fill : style.color)), light(behind(e))];
  return (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
}})) }})()"""
