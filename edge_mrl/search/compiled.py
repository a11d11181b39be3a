"""The native kernels' way to do what ``scan`` does in numpy: the same answers, to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.codes import Scorer
from edge_mrl.native import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.codes import Packing
    from edge_mrl.store import CodeTable

__all__ = ["TIES", "closest", "fill_distances", "scorer_of"]

#: Bits that a kernel multiplies as they are, by kind of code.
_BITS = {"int8": 8, "int4": 4}
#: Candidates are at most this many times the width, however many rows have the same distance: if all
#: codes are equal, not every row may become a candidate.
TIES = 3


def fill_distances(
    table: CodeTable, words: NDArray[np.uint64], distances: NDArray[Any], *, capped: bool
) -> bool:
    """Fill in the Hamming distances of all rows to a query, and say whether that could be done.

    Args:
        table: The store's codes.
        words: uint64[w], the query's bits.
        distances: uint8 or uint16[rows]: bytes for up to four words.
        capped: Whether the sum of the words before the last is limited, see ``scan``.
    """
    found = kernels()
    columns = [part.segment.bits for part in table.parts]
    if found is None or not all(map(_is_plain, columns)):
        return False
    query = np.ascontiguousarray(words)
    parts = [(_address(bits), bits.strides[0] // 8, bits.shape[1]) for bits in columns]
    fill = found.hamming(parts, _address(query), len(query), capped=capped)
    fill(_address(distances), len(distances))
    return True


def _is_plain(bits: NDArray[np.uint64]) -> bool:
    """Whether a word's values lie one behind the other, as those of a segment do."""
    return bits.dtype == np.uint64 and bits.strides[1] == 8 and bits.strides[0] >= 8 * bits.shape[1]


def closest(distances: NDArray[Any], most: int, width: int) -> NDArray[np.int64] | None:
    """What ``scan`` takes for the closest rows; None where there are no kernels."""
    found = kernels()
    if found is None or distances.dtype not in (np.uint8, np.uint16):
        return None
    rows = np.empty(TIES * width, np.int64)
    count = found.closest(
        _address(distances),
        distances.itemsize,
        len(distances),
        most=most,
        width=width,
        found=_address(rows),
    )
    return rows[:count]


def scorer_of(queries: NDArray[np.int8], packing: Packing) -> Scorer | CompiledScorer:
    """What compares queries with codes of a packing: in the kernels where they can, else in numpy."""
    found = kernels()
    if found is None:
        return Scorer(queries, packing)
    if packing.kind not in _BITS:
        return Scorer(queries, packing, _weigh)
    return CompiledScorer(queries, packing)


def _weigh(query: NDArray[np.uint64], words: NDArray[np.uint64], planes: int) -> NDArray[np.int64]:
    """Sums of products of a query and codes in planes of bits; see ``codes.Scorer``."""
    found = kernels()
    assert found is not None  # or numpy did it
    query, words = np.ascontiguousarray(query), np.ascontiguousarray(words)
    sums = np.empty(words.shape[1], np.int64)
    bits = (_address(words), planes, words.shape[1])
    found.weigh(_address(query), query.shape[1], bits, _address(sums))
    return sums


class CompiledScorer:
    """As ``codes.Scorer``, for int8 and int4 codes."""

    def __init__(self, queries: NDArray[np.int8], packing: Packing) -> None:
        self._queries = np.ascontiguousarray(queries)
        self._bits = _BITS[packing.kind]

    def cosines(self, stored: NDArray[np.uint8] | NDArray[np.uint64]) -> NDArray[np.float64]:
        """Cosines; see ``codes.Scorer.cosines``."""
        found = kernels()
        assert found is not None  # or this were a Scorer
        stored = np.ascontiguousarray(stored, np.uint8)
        cosines = np.empty((len(self._queries), len(stored)), np.float64)
        codes = (_address(stored), stored.shape[1], len(stored))
        for query, out in zip(self._queries, cosines, strict=True):
            found.cosines(_address(query), len(query), self._bits, codes, _address(out))
        return cosines


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
