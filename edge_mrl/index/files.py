"""Files into an index, as ``edge-mrl index`` reads them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.ingest import PutOptions, Stored
    from edge_mrl.store import Store

__all__ = ["TakesFiles"]

#: Where files that are skipped are named, unless the caller wants to know of them.
LOGGER = "edge_mrl.sources"


class TakesFiles:
    """What an index does with files."""

    if TYPE_CHECKING:

        @property
        def store(self) -> Store:
            """The store itself."""

        def put(self, documents: Iterable[Document], **options: Unpack[PutOptions]) -> Stored:
            """Store documents."""

    def put_files(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        include: Iterable[str] = (),
        encoding: str | None = None,
        skipped: Callable[[str, str], None] | None = None,
        **options: Unpack[PutOptions],
    ) -> Stored:
        """Store the documents of files and folders, with the ids and metadata of ``edge-mrl index``.

        Args:
            paths: One, or several: files, folders, patterns, or NAME=PATH.
            include: Patterns of names that are read from folders too, as text, such as "*.log".
            encoding: The encoding of files that are not UTF-8 and have no byte order mark; None skips
                them.
            skipped: Called with the path and the reason for each file or folder that cannot be read, and
                with "*.png" for kinds of files that are not. By default they are warnings of the logger
                ``edge_mrl.sources``.
            **options: As for ``put``.

        Raises:
            UsageError: A path is not there, or a file that is named holds markup that nothing reads.
            BadLineError: A line of JSON Lines is not a document. The documents before it are stored.
            RefusedDocumentsError: Documents were left out; all others were stored.
        """
        from edge_mrl.sources import Places, Search, find_in_roots, note_roots, read_documents

        told = _warn if skipped is None else skipped
        some = [paths] if isinstance(paths, str | os.PathLike) else paths
        places = Places(self.store)
        places.resolve([os.fspath(path) for path in some])
        scan = find_in_roots(places, Search(include=include))
        note_roots(self.store, places)
        for problem in scan.problems:
            told(problem.path, problem.why)
        for suffix, number in scan.left_out.items():
            told(f"*{suffix}", f"{number:,} such files are not read")
        documents = read_documents(scan.files, skipped=told, encoding=encoding, noted=told)
        return self.put(documents, **options)


def _warn(path: str, why: str) -> None:
    logging.getLogger(LOGGER).warning("%s: %s", path, why)
