"""What one run of ``edge-mrl index`` reads, and what it must remember of it."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import count
from edge_mrl.sources import BadLineError, RunFacts, as_name, kind_of, read_documents

if TYPE_CHECKING:
    from edge_mrl.cli.common.progress import Progress
    from edge_mrl.documents import Document
    from edge_mrl.ingest import Stored
    from edge_mrl.sources import Places, Scan

__all__ = ["Run"]

#: Bad lines that are named one by one; a file of them would fill the screen.
MOST_NAMED = 20


class Run:
    """One run: hashes of ids, 8 bytes each, and files that could not be read.

    Args:
        places: Where the paths are.
        scan: The files that were found.
        skip_bad: Whether lines that are no documents are left out.
        encoding: The encoding of files that are not UTF-8.
        query: What to read of a database, which is the only file; None to read files.

    Attributes:
        skipped: Reasons by path, of files that could not be read.
        bad_lines: Lines that were left out.
        noted: What was said of files that were read, by path.
        committed: Documents that are stored.
    """

    def __init__(
        self,
        places: Places,
        scan: Scan,
        *,
        skip_bad: bool,
        encoding: str | None,
        query: str | None = None,
    ) -> None:
        self.places = places
        self.scan = scan
        self.skipped: dict[str, str] = {}
        self.bad_lines: list[str] = []
        self.noted: dict[str, str] = {}
        self.committed = 0
        self.total_bytes = sum(file.size_bytes for file in scan.files)
        self._skip_bad = skip_bad
        self._encoding = encoding
        self._query = query
        self._ids = array("Q")
        self._unread: set[str] = set()
        self._filled: set[str] = set()
        self._bar: Progress | None = None
        # Bytes that were read, that are committed, and that the bar shows.
        self._read = self._done = self._shown = 0

    def watch(self, bar: Progress) -> None:
        """Show progress and warnings on a bar, those of the search for files first."""
        self._bar = bar
        for problem in self.scan.problems:
            bar.write(f"edge-mrl: warning: {problem.path}: {problem.why}")

    def documents(self) -> Iterator[Document]:
        """Read all files."""
        for file in self.scan.files:
            several = file.parsed or kind_of(file.path) == "lines"

            def skip(path: str, why: str, source: str = file.source) -> None:
                self.skipped[path] = why
                self._unread.add(source)
                self._warn(f"{path}: skipped, {why}")

            def bad(error: BadLineError, source: str = file.source) -> None:
                self._unread.add(source)
                self.bad_lines.append(str(error))
                if len(self.bad_lines) <= MOST_NAMED:
                    self._warn(f"{error}: skipped")

            bad_line = bad if self._skip_bad else None
            if self._query is not None:
                from edge_mrl.sources import read_rows

                several = True
                read = read_rows(file.path, self._query, source=file.source, bad=bad_line)
            else:
                read = read_documents(
                    [file],
                    skipped=skip,
                    advance=self._advance,
                    encoding=self._encoding,
                    bad_line=bad_line,
                    noted=self._note,
                )
            for document in read:
                self._ids.append(_hash(document.id))
                if several:
                    self._filled.add(file.source)
                yield document

    def commit(self, stored: Stored) -> None:
        """Note what was committed."""
        self.committed = stored.documents
        self._done = self._read
        self._show(self._done)

    def embedded(self, passages: int, total: int) -> None:
        """Show how far the present batch is."""
        self._show(self._done + (self._read - self._done) * passages // max(total, 1))

    def named_and_skipped(self) -> bool:
        """Whether a file could not be read that was named itself, and not found in a folder."""
        named = (place.given for place in self.places.places if place.kind == "file")
        return any(as_name(os.path.normpath(path)) in self.skipped for path in named)

    @property
    def repeated(self) -> int:
        """Documents whose id was read before in this run."""
        import numpy as np

        return len(self._ids) - len(np.unique(np.frombuffer(self._ids, np.uint64)))

    def facts(self) -> RunFacts:
        """What tells whether documents that were not read are gone."""
        sources = {file.source for file in self.scan.files}
        if self._query is None:
            return RunFacts(self._seen(), sources, self._unread, self._filled)
        from edge_mrl.sources import namespace_of

        only = namespace_of(min(sources), self._query)
        return RunFacts(self._seen(), sources, self._unread, self._filled, only)

    def _seen(self) -> Callable[[str], bool]:
        import numpy as np

        there = np.unique(np.frombuffer(self._ids, np.uint64)) if self._ids else None

        def seen(name: str) -> bool:
            if there is None:
                return False
            value = np.uint64(_hash(name))
            at = int(np.searchsorted(there, value))
            return at < len(there) and bool(there[at] == value)

        return seen

    def _advance(self, size_bytes: int) -> None:
        self._read += size_bytes
        self._show(self._shown)

    def _show(self, position: int) -> None:
        if self._bar is not None:
            step, self._shown = position - self._shown, max(position, self._shown)
            self._bar.advance(max(step, 0), note=count(self.committed, "document"))

    def _note(self, path: str, what: str) -> None:
        self.noted[path] = what
        if len(self.noted) <= MOST_NAMED:
            self._warn(f"{path}: {what}")

    def _warn(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(f"edge-mrl: warning: {text}")


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
