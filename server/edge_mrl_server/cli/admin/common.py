"""What the nouns of ``edge-mrl admin`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from edge_mrl_server.storage import Database

__all__ = ["Actions", "FileActions", "Outcome", "Subjects", "in_percent"]

#: Exit code, what ``--json`` prints, and lines of text.
Outcome = tuple[int, dict[str, Any], list[str]]
#: What runs for a subject and its verb, if it has one.
Actions = dict[tuple[str, str | None], Callable[["Database", argparse.Namespace], Outcome]]
#: The same for what works on the database's files, and opens it by itself, or not at all.
FileActions = dict[tuple[str, str | None], Callable[[argparse.Namespace], Outcome]]


class _Verb(Protocol):
    def __call__(self, name: str, text: str, *, tenant: bool = True) -> argparse.ArgumentParser: ...


class Subjects:
    """What can be administered, and what can be done with it; each takes the options of all."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument(
            "--database",
            default="edge-mrl-server.db",
            metavar="FILE|URL",
            help="SQLite file, or postgresql://... (default: edge-mrl-server.db)",
        )
        self._common.add_argument(
            "--json", action="store_true", help="print one JSON object instead of text"
        )

    def alone(self, name: str, text: str) -> argparse.ArgumentParser:
        """A subject without verbs."""
        return self._subjects.add_parser(name, help=text, parents=[self._common])

    def add(self, name: str, text: str | None) -> _Verb:
        """A subject, listed if it has a text; returns what adds a verb to it."""
        made = (
            self._subjects.add_parser(name, help=text) if text else self._subjects.add_parser(name)
        )
        verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")

        def verb(name: str, text: str, *, tenant: bool = True) -> argparse.ArgumentParser:
            parser = verbs.add_parser(name, help=text, parents=[self._common])
            if tenant:
                parser.add_argument("tenant", metavar="TENANT", help="name of the tenant")
            return parser

        return verb


@contextmanager
def in_percent(
    what: str, *, quiet: bool, unit: Callable[[int], str] = "{:,}".format
) -> Iterator[Callable[[int, int], None]]:
    """Show progress; gives what is called with how much is done and how much there is.

    Args:
        what: What goes on.
        quiet: Whether to show nothing.
        unit: How an amount is written.
    """
    from edge_mrl.cli import Progress

    with Progress(what, 100, quiet=quiet) as bar:
        shown = 0

        def note(done: int, total: int) -> None:
            nonlocal shown
            percent = 100 * done // max(total, 1)
            bar.advance(max(percent - shown, 0), note=f"{unit(done)} of {unit(total)}")
            shown = max(percent, shown)

        yield note
