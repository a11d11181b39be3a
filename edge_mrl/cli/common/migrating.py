"""A store of an earlier version is brought to the present one: commands say so, and how far it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_mrl.cli.common.progress import Progress

__all__ = ["showing_migrations"]


@contextmanager
def showing_migrations(*, quiet: bool) -> Iterator[None]:
    """Show on standard error the migrations that take long, of stores that are opened meanwhile.

    Args:
        quiet: Show nothing.
    """
    logger = logging.getLogger("edge_mrl.store")
    level, shown = logger.level, _Shown(quiet=quiet)
    logger.addHandler(shown)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(shown)
        logger.setLevel(level)
        shown.close()


class _Shown(logging.Handler):
    """Shows the records of migrations (``edge_mrl.store.schema.report``) as a progress bar."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__()
        self._quiet = quiet
        self._bar: Progress | None = None
        self._version = self._done = 0
        self._named: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record; others than those of migrations are not shown."""
        now: dict[str, Any] = record.__dict__
        if "total" not in now:
            return
        name = Path(now["path"]).name
        if self._bar is None or now["version"] != self._version:
            self._end()
            label = f"bringing {name} to version {now['version']}"
            self._bar = Progress(label, now["total"], quiet=self._quiet)
            self._bar.__enter__()
            self._version, self._done = now["version"], 0
        if name not in self._named:
            self._named.add(name)
            self._bar.write(
                f"{name} was written by an earlier edge-mrl, and is brought to the present version once; "
                "if that is interrupted, it stays as it was, and the next command begins again"
            )
        self._bar.advance(now["done"] - self._done)
        self._done = now["done"]
        if self._done == now["total"]:
            self._end()

    def close(self) -> None:
        """End a bar of a migration that has not ended."""
        self._end(whole=False)
        super().close()

    def _end(self, *, whole: bool = True) -> None:
        if self._bar is not None:
            self._bar.__exit__(None if whole else KeyboardInterrupt, None, None)
            self._bar = None
