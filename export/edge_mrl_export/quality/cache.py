"""A cache of vectors, so that a second measurement of the same texts is quick."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_mrl.cli import Progress
from edge_mrl.errors import UsageError

__all__ = ["Cache"]

Float = NDArray[np.float32]

#: Texts between two commits to the cache, and two steps of the progress bar.
STEP = 256
#: Hashes asked for at a time; SQLite's oldest limit on variables is 999.
ASKED = 500


class Cache:
    """Vectors by model and text, in a SQLite file.

    Args:
        folder: Folder of the file; None to cache nothing.
        quiet: Show no progress.
    """

    def __init__(self, folder: Path | None, *, quiet: bool = False) -> None:
        self._path = None if folder is None else folder / "vectors.db"
        self._quiet = quiet

    @classmethod
    def usual(cls, *, quiet: bool = False) -> Cache:
        """A cache in the user's cache folder (XDG Base Directory Specification)."""
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(base) / "edge-mrl", quiet=quiet)

    def vectors(
        self,
        key: str,
        width: int,
        texts: Sequence[str],
        encode: Callable[[list[str]], Iterable[Float]],
        *,
        label: str,
    ) -> Float:
        """float32[n, width]: cached vectors, and vectors by ``encode``, which are then cached.

        Args:
            key: Identifies the model and how it is used.
            width: Dimensions.
            texts: What to encode; equal texts are encoded once.
            encode: Encodes texts, and yields their vectors in order, in parts of any size.
            label: What the progress bar says.
        """
        names = [_name(f"{key}\0{text}") for text in texts]
        known = self._read(names, width)
        missing = {n: t for n, t in zip(names, texts, strict=True) if n not in known}
        # Texts of similar length together: less padding.
        order = sorted(missing, key=lambda name: len(missing[name]))
        with Progress(label, len(order), quiet=self._quiet or not order) as bar:
            for start in range(0, len(order), STEP):
                some = order[start : start + STEP]
                parts = np.concatenate(list(encode([missing[name] for name in some])))
                fresh = dict(zip(some, parts.astype(np.float32), strict=True))
                self._write(fresh)
                known |= fresh
                bar.advance(len(some))
        return np.stack([known[name] for name in names])

    def _read(self, names: Sequence[bytes], width: int) -> dict[bytes, Float]:
        if self._path is None or not self._path.exists():
            return {}
        found: dict[bytes, Float] = {}
        with closing(self._connect()) as database:
            for start in range(0, len(names), ASKED):
                some = names[start : start + ASKED]
                marks = ",".join("?" * len(some))
                query = f"SELECT name, vector FROM vectors WHERE name IN ({marks})"  # noqa: S608 - marks only
                rows = database.execute(query, some)
                found |= {name: np.frombuffer(data, "<f4") for name, data in rows}
        return {name: vector for name, vector in found.items() if len(vector) == width}

    def _write(self, fresh: dict[bytes, Float]) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = [(name, vector.astype("<f4").tobytes()) for name, vector in fresh.items()]
        with closing(self._connect()) as database, database:
            database.executemany(
                "INSERT OR REPLACE INTO vectors (name, vector) VALUES (?, ?)", rows
            )

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(str(self._path), timeout=60)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (name BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            database.close()
            raise UsageError(
                f"the cache {self._path} cannot be used ({error}): delete it, or pass --no-cache"
            ) from error
        return database


def _name(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
