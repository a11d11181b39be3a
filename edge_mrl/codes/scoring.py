"""Cosines between int8 queries and stored codes, without unpacking what can be compared packed.

Dot products are sums of whole numbers and exact, so that every way of computing them gives the same
scores. int8 and int4 codes are multiplied in float32, int4 codes as halves of bytes. Codes that are kept
as planes of bits are compared bit by bit: with the query's own eight bits as planes, a dot product is a
weighted sum of 8 * P population counts for each word (bit-sliced scalar quantisation, as in RaBitQ; Gao
and Long, SIGMOD 2024). Many queries at once are multiplied with them in float32, too.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.codes.kinds import PLANES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from edge_mrl.codes.packing import Packing

    Weigh = Callable[[NDArray[np.uint64], NDArray[np.uint64], int], NDArray[np.int64]]

__all__ = ["Scorer", "planes_of"]

WORD_BITS = 64
#: Up to this many dimensions, the product of two codes is below 2**24: exact in float32, in any order of
#: the sum.
FLOAT32_EXACT_DIM = 1040
#: Values that are turned into floats at a time: 1 MB, which the caches of most cores hold.
FLOATS_AT_A_TIME = 2**18
#: Words of a plane that are counted at a time.
WORDS_AT_A_TIME = 2**13
#: Queries that are compared with planes bit by bit. At 256 dimensions of 2 bits a query takes 0.15 us a
#: row so; to make floats of the row takes 1 us, and each query then 0.01 us.
MOST_BY_BITS = 8
#: The worth of an int8 code's bits in two's complement, from the lowest.
_WORTH = (1, 2, 4, 8, 16, 32, 64, -128)


def planes_of(packed: NDArray[np.uint8], dim: int, planes: int) -> NDArray[np.uint64]:
    """The words of codes that are kept as planes.

    Args:
        packed: uint8[n, planes * ceil(dim / 8)].
        dim: Dimensions of the code.
        planes: Planes of the code.

    Returns:
        uint64[planes * ceil(dim / 64), n]: the words of the upper plane, then those of the next; 8 bytes
        to a word, little-endian, zeros behind the last dimension.
    """
    size, words, count = -(-dim // 8), -(-dim // WORD_BITS), len(packed)
    padded = np.zeros((count, planes, 8 * words), np.uint8)
    padded[:, :, :size] = packed[:, : planes * size].reshape(count, planes, size)
    rows = padded.reshape(count, planes * 8 * words).view("<u8")
    return np.ascontiguousarray(rows.T)


class Scorer:
    """Queries that are ready to be compared with stored codes of one packing.

    Args:
        queries: int8[q, dim].
        packing: How the stored codes are packed.
        weigh: What sums the products of a query's bits, uint64[8, w], and of codes that lie in planes,
            uint64[planes * w, n], as int64[n]; None for numpy.
    """

    def __init__(
        self, queries: NDArray[np.int8], packing: Packing, weigh: Weigh | None = None
    ) -> None:
        self._queries = queries
        self._weigh = weigh or _weighed
        self._packing = packing
        dim = queries.shape[1]
        own = np.square(queries.astype(np.int64)).sum(axis=1)
        self._lengths = np.sqrt(own.astype(np.float64))
        self._float: Any = np.float32 if dim <= FLOAT32_EXACT_DIM else np.float64
        self._floating: NDArray[Any] | None = None

    def cosines(self, stored: NDArray[np.uint8] | NDArray[np.uint64]) -> NDArray[np.float64]:
        """Cosines, float64[q, n] in [-1, 1]; 0 for codes of zeros.

        Args:
            stored: For int8 and int4, uint8[n, at least code_bytes(dim, kind)]; for kinds of planes,
                uint64[planes * words, n], as ``planes_of`` gives it.
        """
        count = stored.shape[1] if self._packing.kind in PLANES else len(stored)
        cosines = np.empty((len(self._queries), count), np.float64)
        for some in self._chunks(count):
            part = stored[:, some] if self._packing.kind in PLANES else stored[some]
            dots, squares = self._products(part)
            lengths = np.sqrt(squares.astype(np.float64))
            np.divide(dots, np.maximum(self._lengths[:, None] * lengths, 1.0), out=cosines[:, some])
        return np.clip(cosines, -1.0, 1.0, out=cosines)  # rounding may exceed 1 by the last bit

    def _chunks(self, count: int) -> Iterator[slice]:
        by_bits = self._packing.kind in PLANES and self._by_bits
        step = WORDS_AT_A_TIME if by_bits else max(1, FLOATS_AT_A_TIME // self._queries.shape[1])
        for first in range(0, count, step):
            yield slice(first, min(first + step, count))

    def _products(self, stored: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Dot products [q, n] of queries and levels, and squared lengths [n] of the levels."""
        if self._packing.kind in PLANES:
            return self._plane_products(stored)
        if self._packing.kind == "int4":
            return self._int4_products(stored)
        levels = self._room(len(stored), self._queries.shape[1])
        np.copyto(levels, stored.view(np.int8)[:, : levels.shape[1]], casting="unsafe")
        return self._floats @ levels.T, np.vecdot(levels, levels)

    def _room(self, count: int, dim: int) -> NDArray[Any]:
        """Memory for floats, used again: to touch new memory would take longer than to fill it."""
        if self._floating is None or len(self._floating) < count:
            self._floating = np.empty((count, dim), self._float)
        return self._floating[:count]

    @property
    def _by_bits(self) -> bool:
        """Whether planes are compared bit by bit: with many queries, a product of floats is faster."""
        return len(self._queries) <= MOST_BY_BITS

    @functools.cached_property
    def _floats(self) -> NDArray[Any]:
        return self._queries.astype(self._float)

    @functools.cached_property
    def _sums(self) -> NDArray[np.int64]:
        sums: NDArray[np.int64] = self._queries.sum(axis=1, dtype=np.int64)
        return sums[:, None]

    @functools.cached_property
    def _halves(self) -> NDArray[Any]:
        """[2 * ceil(dim / 2), q + 1]: queries' even dimensions, then the odd; the last column is ones."""
        queries, dim = self._floats, self._queries.shape[1]
        sides = np.ones((dim + dim % 2, len(queries) + 1), self._float)
        even = -(-dim // 2)
        sides[:even, :-1] = queries[:, 0::2].T
        sides[even:, :-1] = 0
        sides[even : even + dim // 2, :-1] = queries[:, 1::2].T
        return sides

    def _int4_products(self, stored: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """With levels 2 * u - 15, whose codes u are the halves of bytes, and 0 behind the last one."""
        dim = self._queries.shape[1]
        sides = self._halves
        half = len(sides) // 2
        codes = self._room(len(stored), 2 * half)
        np.right_shift(stored[:, :half], np.uint8(4), out=codes[:, :half], casting="unsafe")
        np.bitwise_and(stored[:, :half], np.uint8(15), out=codes[:, half:], casting="unsafe")
        products = codes @ sides
        dots = 2 * products[:, :-1].T - 15 * self._sums
        return dots, 4 * np.vecdot(codes, codes) - 60 * products[:, -1] + 225 * dim

    @functools.cached_property
    def _query_planes(self) -> NDArray[np.uint64]:
        return _bits_of(self._queries)

    @functools.cached_property
    def _centre(self) -> NDArray[np.int64] | None:
        centre = self._packing.centre
        return None if centre is None else np.array(centre, np.int64)

    @functools.cached_property
    def _centre_planes(self) -> NDArray[np.uint64] | None:
        centre = self._packing.centre
        return None if centre is None else _bits_of(np.array([centre], np.int8))

    def _plane_products(self, words: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """With levels centre + step * s, where s is 2 * u - m: the planes' bits make u, at most m."""
        planes, dim = PLANES[self._packing.kind], self._queries.shape[1]
        most = 2**planes - 1
        step = int(self._packing.step or 1)
        inner = 2 * self._plane_sums(words, planes) - most * self._sums
        squares = _squares(words, planes, dim)
        if self._centre is None or self._centre_planes is None:
            return inner, squares
        middle = self._queries.astype(np.int64) @ self._centre
        around = 2 * self._weigh(self._centre_planes[0], words, planes) - most * self._centre.sum()
        dots = step * inner + middle[:, None]
        return dots, step**2 * squares + 2 * step * around + np.square(self._centre).sum()

    def _plane_sums(self, words: NDArray[np.uint64], planes: int) -> NDArray[np.int64]:
        """int64[q, n]: sums of products of the queries and the codes u."""
        sums = np.empty((len(self._queries), words.shape[1]), np.int64)
        if not self._by_bits:
            codes = self._room(words.shape[1], self._queries.shape[1])
            _codes_of(words, planes, out=codes)
            np.copyto(sums, self._floats @ codes.T, casting="unsafe")
            return sums
        for place, query in zip(sums, self._query_planes, strict=True):
            place[:] = self._weigh(query, words, planes)
        return sums


def _codes_of(words: NDArray[np.uint64], planes: int, *, out: NDArray[Any]) -> None:
    """The codes u that planes make, into float[n, dim]."""
    dim = out.shape[1]
    for plane in range(planes):
        own = np.ascontiguousarray(words.reshape(planes, -1, words.shape[1])[plane].T)
        bits = np.unpackbits(own.view(np.uint8), axis=1, count=dim)
        if plane:
            np.add(out, out, out=out)
            np.add(out, bits, out=out)
        else:
            np.copyto(out, bits, casting="unsafe")


def _bits_of(codes: NDArray[np.int8]) -> NDArray[np.uint64]:
    """The bits of int8 codes as planes: uint64[n, 8, words], the lowest bits first."""
    planes = [np.packbits(codes.view(np.uint8) >> bit & 1, axis=1) for bit in range(8)]
    dim = codes.shape[1]
    return np.stack([planes_of(plane, dim, 1).T for plane in planes], axis=1)


def _weighed(
    query: NDArray[np.uint64], words: NDArray[np.uint64], planes: int
) -> NDArray[np.int64]:
    """int64[n]: the sum of products of an int8 query and the codes u that the planes make.

    Args:
        query: uint64[8, w], the planes of the query's bits.
        words: uint64[planes * w, n].
        planes: Planes of the codes.
    """
    count, width = words.shape[1], query.shape[1]
    total = np.zeros(count, np.int64)
    both, ones = np.empty(count, np.uint64), np.empty(count, np.uint8)
    sums = np.empty(count, np.uint16)
    for bit, worth in enumerate(_WORTH):
        for plane in range(planes):
            sums.fill(0)
            for word in range(width):
                mask = query[bit, word]
                if mask:
                    np.bitwise_and(words[plane * width + word], mask, out=both)
                    np.bitwise_count(both, out=ones)
                    np.add(sums, ones, out=sums)
            total += sums.astype(np.int64) * (worth << (planes - 1 - plane))
    return total


def _squares(words: NDArray[np.uint64], planes: int, dim: int) -> NDArray[np.int64]:
    """int64[n]: the sum of the squares of 2 * u - m; for 2-bit codes 9 if both bits are equal, else 1."""
    if planes == 1:
        return np.full(words.shape[1], dim, np.int64)
    width = len(words) // 2
    counts = np.bitwise_count(words[:width] ^ words[width:])
    unlike: NDArray[np.int64] = counts.sum(axis=0, dtype=np.int64)
    return 9 * dim - 8 * unlike
