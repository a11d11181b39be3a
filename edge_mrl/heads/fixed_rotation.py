"""A rotation that is the same everywhere, for codes of few bits where no text is known.

It spreads what a model keeps in few directions over all of them, so that each bit tells about as much as
any other. It is a product of signs, permutations and Hadamard transforms, as in fast transforms of Ailon
and Chazelle (STOC 2006). All of its values are multiples of a power of two, exact in float32: any program
makes the same matrix, to the last bit (FORMAT.md, "Head").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes import splitmix64

__all__ = ["random_rotation"]

#: Rounds of signs, permutation and transforms. After two rounds, each dimension has met all others; three
#: would need more bits than float32 has.
ROUNDS = 2


def random_rotation(width: int, dim: int) -> NDArray[np.float32]:
    """The rotation's first dimensions, as a head.

    Args:
        width: D, dimensions of full vectors, at most 16,383: then all values are exact.
        dim: Dimensions of the code, at most D.

    Returns:
        float32[D, dim], orthonormal columns.
    """
    chance = splitmix64()
    mixed = 4 ** ((width.bit_length() - 1) // 2)
    matrix = np.eye(width)
    blocks = -(-width // mixed)
    starts = [i * (width - mixed) // max(blocks - 1, 1) for i in range(blocks)]
    for _ in range(ROUNDS):
        matrix *= [-1.0 if next(chance) >> 63 else 1.0 for _ in range(width)]
        order = list(range(width))
        for i in range(width - 1, 0, -1):
            j = next(chance) % (i + 1)
            order[i], order[j] = order[j], order[i]
        matrix = matrix[
            :, order
        ]  # blocks of a power of four, which may overlap, cover all dimensions
        for start in starts:
            some = slice(start, start + mixed)
            matrix[:, some] = _hadamard(matrix[:, some])
    return np.ascontiguousarray(matrix[:, :dim], np.float32)


def _hadamard(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows times the Hadamard matrix of their size, a power of four, divided by its root."""
    count, size = rows.shape
    half = 1
    while half < size:
        pairs = rows.reshape(count, -1, 2, half)
        rows = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        half *= 2
    mixed: NDArray[np.float64] = rows.reshape(count, size) / np.sqrt(size)
    return mixed
