"""int8 and 1-bit codes of unit-length vectors (FORMAT.md, "Codes").

The same arithmetic is baked into every bundle's graph; this module is its readable twin, used where
codes are made from full vectors and to check the graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CODE_MAX", "normalize", "pack_bits", "quantize", "similarity"]

#: Codes lie in [-127, 127]: -128 is never used, so that negation and the dot product cannot overflow.
CODE_MAX = 127


def normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to unit length; a row of zeros stays zero.

    Args:
        vectors: float32[n, d].

    Returns:
        float32[n, d].
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.maximum(norms, np.float32(1e-12))).astype(
        np.float32
    )
    return scaled


def quantize(vectors: NDArray[np.float32], *, scale: float = 1.0) -> NDArray[np.int8]:
    """Code unit-length vectors as int8: ``clip(round(127 * x / scale), -127, 127)``, half to even.

    Args:
        vectors: float32[n, d], unit length, or prefixes of such.
        scale: The bundle's ``code.scale``; the value that the code 127 stands for.

    Returns:
        int8[n, d].
    """
    steps = np.rint(vectors * np.float32(CODE_MAX / scale))
    codes: NDArray[np.int8] = np.clip(steps, -CODE_MAX, CODE_MAX).astype(np.int8)
    return codes


def pack_bits(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack the 1-bit code: bit = code > 0, dimension 0 in the most significant bit of byte 0.

    Args:
        codes: int8[n, d].

    Returns:
        uint8[n, ceil(d / 8)]; the bits behind the last dimension are 0.
    """
    return np.packbits(codes > 0, axis=1, bitorder="big")


def similarity(queries: NDArray[np.int8], codes: NDArray[np.int8]) -> NDArray[np.float32]:
    """Cosine between every query code and every stored code.

    The dot products run in float32, where they are exact (each is at most d * 127 * 127, below 2**24
    for d <= 1040) and where numpy is fast.

    Args:
        queries: int8[m, d].
        codes: int8[n, d].

    Returns:
        float32[m, n] in [-1, 1]; 0 where either code is all zeros.
    """
    left, right = queries.astype(np.float32), codes.astype(np.float32)
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    dots = left @ right.T
    cosines: NDArray[np.float32] = np.divide(
        dots, lengths, out=np.zeros_like(dots), where=lengths > 0
    )
    return cosines
