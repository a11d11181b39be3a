"""All codes of a store in memory, as search wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CodeTable", "as_floats", "chunks", "lengths"]

#: Codes turned into floats at a time: 8 MB, which small devices have and large caches hold.
CHUNK_VALUES = 2**21
#: Up to here a product of two codes is below 2**24: exact in float32, in any order of the sum.
FLOAT32_EXACT_DIM = 1040


@dataclass(frozen=True, slots=True)
class CodeTable:
    """All codes at one moment. Rows of a document follow each other, in the order of its text.

    Attributes:
        codes: int8[n, dim].
        lengths: float64[n], the codes' Euclidean lengths.
        starts: int64[m], the first row of each document that has passages.
        keys: int64[m], their keys, ascending.
        ranks: int64[m], their places in the order of their ids: what breaks ties.
    """

    codes: NDArray[np.int8]
    lengths: NDArray[np.float64]
    starts: NDArray[np.int64]
    keys: NDArray[np.int64]
    ranks: NDArray[np.int64]


def as_floats(codes: NDArray[np.int8]) -> NDArray[np.float32] | NDArray[np.float64]:
    """Codes in the float type that numpy multiplies fast and that holds their products exactly."""
    exact = codes.shape[1] <= FLOAT32_EXACT_DIM
    return codes.astype(np.float32) if exact else codes.astype(np.float64)


def chunks(codes: NDArray[np.int8]) -> list[slice]:
    """Row ranges small enough to be turned into floats at once."""
    rows = max(1, CHUNK_VALUES // codes.shape[1])
    return [slice(first, first + rows) for first in range(0, len(codes), rows)]


def lengths(codes: NDArray[np.int8]) -> NDArray[np.float64]:
    """float64[n]: Euclidean lengths of int8[n, dim]."""
    squares = np.empty(len(codes), np.float64)
    for rows in chunks(codes):
        floats = as_floats(codes[rows])
        squares[rows] = np.einsum("nd,nd->n", floats, floats)
    return np.sqrt(squares)
