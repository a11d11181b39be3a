"""Vectors written chunk by chunk: as .npy or as JSON Lines; a file appears once it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.encode import Encoding

__all__ = ["JsonLines", "Npy", "Writer", "replacing"]

#: Size of the .npy header, a multiple of 64 with room for any number of rows: it is written again
#: once that number is known.
NPY_HEADER_BYTES = 128


class Writer(Protocol):
    """Takes vectors chunk by chunk."""

    def write(self, encoding: Encoding) -> None:
        """Write the vectors of some more texts."""

    def finish(self) -> None:
        """Complete the output once all vectors are written."""


class Npy:
    """One array, int8[n, dim] or float32[n, D], for ``numpy.load``; it can be memory-mapped.

    Args:
        file: A seekable file, at its start.
        which: "coarse" or "full".
        width: Dimensions of a vector.
    """

    def __init__(self, file: BinaryIO, *, which: str, width: int) -> None:
        self._file = file
        self._which = which
        self._width = width
        self._rows = 0
        self._write_header()

    def write(self, encoding: Encoding) -> None:
        """Append rows."""
        rows = getattr(encoding, self._which)
        self._file.write(
            rows.astype("<f4" if self._which == "full" else "i1", copy=False).tobytes()
        )
        self._rows += len(rows)

    def finish(self) -> None:
        """Put the number of rows into the header."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        kind = "<f4" if self._which == "full" else "|i1"
        shape = f"({self._rows}, {self._width})"
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
        length = NPY_HEADER_BYTES - 10
        start = b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little")
        self._file.write(start + header.ljust(length - 1).encode("ascii") + b"\n")


class JsonLines:
    """One object a line: ``index`` (of the text, from 0), ``coarse`` (integers), ``full`` (floats).

    Args:
        file: Where to write.
        which: "coarse" or "full" for one of them; None for all that the bundle gives.
    """

    def __init__(self, file: BinaryIO, *, which: str | None) -> None:
        self._file = file
        self._which = which
        self._rows = 0

    def write(self, encoding: Encoding) -> None:
        """Write lines and flush them."""
        for row in range(len(encoding)):
            parts = [f'"index": {self._rows}']
            if self._which != "full":
                parts.append(f'"coarse": {encoding.coarse[row].tolist()}')
            if self._which != "coarse" and encoding.full is not None:
                parts.append(f'"full": [{_floats(encoding.full[row])}]')
            self._file.write(f"{{{', '.join(parts)}}}\n".encode("ascii"))
            self._rows += 1
        self._file.flush()

    def finish(self) -> None:
        """Do nothing: each line is complete."""


def _floats(vector: NDArray[np.float32]) -> str:
    # Nine digits give back every float32 exactly.
    return ", ".join(f"{value:.9g}" for value in vector.tolist())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside it, and rename it into place if no error occurs."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
