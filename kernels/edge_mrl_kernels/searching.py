"""Comparisons of codes. Arrays are passed as addresses; who calls answers for their sizes and layouts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from edge_mrl_kernels.calls import ROOM, checked

__all__ = ["Searching", "declare"]


class _Part(ctypes.Structure):
    _fields_ = (("bits", ctypes.c_void_p), ("stride", ctypes.c_size_t), ("rows", ctypes.c_size_t))


class Searching:
    """The part of the library that searches; see emrl.h for what the arrays hold.

    Attributes:
        name: The kernels' name.
    """

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self._library = library
        self._name = name.encode()

    def hamming(
        self, parts: Sequence[tuple[int, int, int]], query: int, words: int, *, capped: bool
    ) -> _Hamming:
        """Hamming distances of all rows to a query.

        Args:
            parts: For each part the address of its bits, the rows from one word's to the next one's, and
                how many rows there are.
            query: The address of uint64[words].
            words: 64-bit words of a code.
            capped: Whether what all but the last of four words count is limited.
        """
        return _Hamming(self._library, self._name, parts, (query, words, capped))

    def closest(
        self, distances: int, size: int, rows: int, *, most: int, width: int, found: int
    ) -> int:
        """Write the rows within the least distance that ``width`` rows have at least; returns how many.

        Args:
            distances: The address of numbers of ``size`` bytes, one for each row.
            size: 1 or 2.
            rows: How many there are.
            most: No distance that counts is larger.
            width: How many rows are wanted.
            found: The address of int64[3 * width].
        """
        count = ctypes.c_size_t()
        with checked() as outcome:
            outcome.code = self._library.emrl_closest(
                *(self._name, distances, size, rows, most, width, found),
                *(ctypes.byref(count), outcome.text, ROOM),
            )
        return count.value

    def gather(self, table: tuple[int, int, int], which: int, count: int, copies: int) -> None:
        """Copy rows of a table.

        Args:
            table: Its address, rows, and bytes of a row.
            which: The address of int64[count], numbers of rows.
            count: How many are wanted.
            copies: The address of room for them.
        """
        with checked() as outcome:
            outcome.code = self._library.emrl_gather(
                *(*table, which, count, copies), outcome.text, ROOM
            )

    def checks(self, codes: int, rows: int, words: int, others: tuple[int, int, int, int]) -> None:
        """Check values of rows.

        Args:
            codes: The address of uint64[rows, words].
            rows: How many there are.
            words: 64-bit words of a row's code.
            others: The addresses of keys, numbers and factors, and of uint32[rows] for the checks.
        """
        self._library.emrl_checks(codes, rows, words, *others)

    def cosines(
        self, query: int, dim: int, bits: int, codes: tuple[int, int, int], cosines: int
    ) -> None:
        """Cosines of a query and codes.

        Args:
            query: The address of int8[dim].
            dim: Dimensions of a code.
            bits: 8 or 4.
            codes: The codes' address, the bytes of a row, and the number of rows.
            cosines: The address of float64[rows].
        """
        with checked() as outcome:
            outcome.code = self._library.emrl_cosines(
                *(self._name, query, dim, bits, *codes, cosines), outcome.text, ROOM
            )

    def weigh(self, query: int, words: int, bits: tuple[int, int, int], sums: int) -> None:
        """Sums of products of a query and codes that are kept as planes of bits.

        Args:
            query: The address of uint64[8, words].
            words: 64-bit words of a plane.
            bits: The address of uint64[planes * words, rows], planes, and rows.
            sums: The address of int64[rows].
        """
        with checked() as outcome:
            outcome.code = self._library.emrl_weigh(
                *(self._name, query, words, *bits, sums), outcome.text, ROOM
            )


class _Hamming:
    """Parts and a query; called with the address of the distances and the number of rows."""

    def __init__(
        self,
        library: ctypes.CDLL,
        name: bytes,
        parts: Sequence[tuple[int, int, int]],
        query: tuple[int, int, bool],
    ) -> None:
        self._library = library
        self._arguments = (
            name,
            (_Part * len(parts))(*(_Part(*part) for part in parts)),
            len(parts),
            *query,
        )

    def __call__(self, distances: int, rows: int) -> None:
        with checked() as outcome:
            outcome.code = self._library.emrl_hamming(
                *self._arguments, distances, rows, outcome.text, ROOM
            )


def declare(library: ctypes.CDLL) -> None:
    """Say which arguments the functions take."""
    size, pointer, text = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
    library.emrl_hamming.argtypes = [
        *(text, ctypes.POINTER(_Part), size, pointer, size, ctypes.c_int),
        *(pointer, size, text, size),
    ]
    library.emrl_closest.argtypes = [
        *(text, pointer, ctypes.c_int, size, ctypes.c_uint32, size, pointer),
        *(ctypes.POINTER(size), text, size),
    ]
    library.emrl_gather.argtypes = [pointer, size, size, pointer, size, pointer, text, size]
    library.emrl_checks.argtypes = [pointer, size, size, pointer, pointer, pointer, pointer]
    library.emrl_checks.restype = None
    library.emrl_cosines.argtypes = [
        *(text, pointer, size, ctypes.c_int, pointer, size, size, pointer, text, size)
    ]
    library.emrl_weigh.argtypes = [*(text, pointer, size, pointer, size, size, pointer, text, size)]
