"""``edge-mrl index --watch``: keep a store up to date with its files until the command is ended."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from edge_mrl.errors import EdgeMrlError, GateError, UsageError

if TYPE_CHECKING:
    from edge_mrl.sources import Look

__all__ = ["Once", "watch"]

#: What a pass is: reads all files, or only those of these paths; returns its exit code.
Once: TypeAlias = Callable[[argparse.Namespace, Collection[str] | None], int]
#: A file that is being written is read once it is the same at two looks, or after so many.
SETTLE_S, MOST_LOOKS = 0.2, 10
#: On some systems an interrupt does not end a longer wait.
MOST_S = 0.5


def watch(args: argparse.Namespace, once: Once) -> int:
    """Index, and then again what changes, until SIGTERM (0) or an interrupt.

    Between two passes the store is closed, so that other programs can write it. A pass that fails is
    tried again at the next look. A folder that is gone is waited for; nothing is deleted because of it.

    Raises:
        UsageError: A path cannot be watched, or the first pass cannot be made.
        KeyboardInterrupt: The command was interrupted.
    """
    if "-" in args.paths:
        raise UsageError("--watch works with files and folders, not with standard input")
    end = threading.Event()
    working = True

    def ended(*_: object) -> None:
        end.set()
        if working:  # what is committed is safe, and the rest is for the next run
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, ended)
    try:
        seen = _look(args)
        once(args, None)
        working = False
        _say(args, "watching for changes; Ctrl-C ends")
        for _ in _times(args, end):
            working = True
            seen = _pass(args, once, seen, end)
            working = False
    except (KeyboardInterrupt, Exception):
        # An interrupt inside of a library's code may come out as an error of that library.
        if not end.is_set():
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _pass(args: argparse.Namespace, once: Once, seen: Look, end: threading.Event) -> Look:
    """Look, and index what has changed; returns what is in the store now."""
    from edge_mrl.sources import Look

    now = _settled(args, seen, end)
    for path in sorted(now.missing - seen.missing):
        _say(args, f"{path} is not there: waiting for it")
    now = now.after(seen)
    changed = {name for name, found in now.files.items() if seen.files.get(name) != found}
    gone = args.prune and seen.files.keys() - now.files.keys()
    if changed or gone:
        try:
            once(args, None if gone or args.sql is not None else changed)
        except GateError as error:
            _say(args, f"warning: {error}")
        except (EdgeMrlError, OSError) as error:
            _say(args, f"warning: {error}; trying again")
            return Look(seen.files, now.missing)
    return now


def _settled(args: argparse.Namespace, seen: Look, end: threading.Event) -> Look:
    """What is there, once it stays the same for a moment."""
    now = _look(args)
    for _ in range(MOST_LOOKS):
        if now.files == seen.files or end.wait(SETTLE_S):
            break
        last, now = now, _look(args)
        if now.files == last.files:
            break
    return now


def _look(args: argparse.Namespace) -> Look:
    from edge_mrl.sources import Search, look_at

    rows = args.sql is not None
    search = Search(include=args.include, as_text=args.as_text or rows)
    return look_at(args.paths, search, beside="-wal" if rows else "")


def _times(args: argparse.Namespace, end: threading.Event) -> Iterator[None]:
    """When to look: after each interval, and at once where watchfiles tells of changes."""
    from edge_mrl.sources import folders_of

    try:
        library: Any = importlib.import_module("watchfiles")
    except ImportError:
        library = None
    while not end.is_set():
        there = folders_of(args.paths)
        if library is None or len(there) < len(args.paths):
            left = args.interval
            while left > 0 and not end.wait(min(MOST_S, left)):
                left -= MOST_S
            if not end.is_set():
                yield
            continue
        try:
            for _ in library.watch(
                *there,
                stop_event=end,
                rust_timeout=max(1, int(1000 * args.interval)),
                yield_on_timeout=True,
                raise_interrupt=True,
            ):
                yield
                if len(folders_of(args.paths)) < len(there):
                    break
        except (OSError, RuntimeError) as error:  # no watches left, or a file system without them
            _say(args, f"note: looking every {args.interval:g} s ({error})")
            library = None


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(f"edge-mrl: {text}", file=sys.stderr, flush=True)
