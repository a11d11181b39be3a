"""A progress bar for people who watch a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Self, TextIO

__all__ = ["Progress"]

#: Seconds between two drawings: a terminal on a slow serial line must not slow the work down.
REDRAW_S = 0.1
BAR_CHARS = 24


class Progress:
    """Shows how far a task is, if the stream is a terminal.

    Use it as a context manager. When the task ends, the line stays, with the time that it took.

    Args:
        label: What is done, in one or two words.
        total: Units of work in total. If it is None or 0, there is no bar, only the time.
        quiet: Show nothing, not even messages.
        stream: Where to write (default: standard error).
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._label = label
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._shown = not quiet and self._stream.isatty()
        self._done = 0
        self._note = ""
        self._width = 0
        self._started = self._drawn = time.monotonic()

    def advance(self, steps: int = 1, *, note: str | None = None) -> None:
        """Count ``steps`` more units as done; ``note`` replaces the text after the bar."""
        self._done += steps
        if note is not None:
            self._note = note
        now = time.monotonic()
        if self._shown and now - self._drawn >= REDRAW_S:
            self._drawn = now
            self._draw()

    def write(self, message: str) -> None:
        """Print a message on a line of its own above the bar, on a terminal or not."""
        if self._quiet:
            return
        self._wipe()
        print(message, file=self._stream, flush=True)
        if self._shown:
            self._draw()

    def print(self, text: str) -> None:
        """Print a result at once, on standard output, whatever ``quiet`` says; the bar goes on below."""
        self._wipe()
        print(text, flush=True)
        if self._shown:
            self._draw()

    def __enter__(self) -> Self:
        if self._shown:
            self._draw()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._shown:
            return
        if kind is None and self._total:
            self._done = self._total
        self._draw()
        print(file=self._stream, flush=True)
        self._shown = False

    def _draw(self) -> None:
        parts = [self._label]
        if self._total:
            share = min(1.0, self._done / self._total)
            filled = int(share * BAR_CHARS)
            parts.append(f"[{'#' * filled}{'.' * (BAR_CHARS - filled)}] {share:4.0%}")
        if self._note:
            parts.append(self._note)
        parts.append(f"{time.monotonic() - self._started:.1f} s")
        # One column less than the terminal has, or the cursor wraps and each drawing is a new line.
        line = "  ".join(parts)[: max(10, shutil.get_terminal_size().columns - 1)]
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def _wipe(self) -> None:
        if self._shown and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0
