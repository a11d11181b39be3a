"""What makes the best of 1-bit codes: directions that are turned, and a centre.

Bits tell most where each is set as often as not and none repeats another. So a head's directions are
turned within their span until the vectors lie near the corners of a cube (iterative quantisation, Gong
and Lazebnik, CVPR 2011), which leaves every cosine of whole vectors as it is; and a bit tells on which
side of the text's mean code a code lies. At 384 dimensions this took the nDCG@10 that 1-bit codes keep,
as a mean over four sets, from 94.1 to 96.9 %.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import head_inputs
from edge_mrl.codes import CODE_MAX, Packing, normalize

__all__ = ["TURNS", "balanced", "centre_of", "turn"]

Float = NDArray[np.float32]

#: Turns until the corners change no more than matters.
TURNS = 30
SEED = 0


def balanced(
    full: Float,
    matrix: Float | None,
    *,
    dim: int,
    layer_norm: bool,
    advance: Callable[[], None] = lambda: None,
) -> Float:
    """A head whose directions span what those of another do, turned so that bits tell most.

    Args:
        full: float32[n, D], full vectors of text like that which will be stored.
        matrix: float32[D, dim]; None for the prefix.
        dim: Dimensions of the code.
        layer_norm: Whether the head reads centred vectors.
        advance: Called after each of TURNS turns.

    Returns:
        float32[D, dim].
    """
    if matrix is None:
        matrix = np.eye(full.shape[1], dim, dtype=np.float32)
    reduced = normalize(head_inputs(full, layer_norm=layer_norm) @ matrix)
    turned: Float = matrix @ turn(reduced, advance)
    return turned


def turn(vectors: Float, advance: Callable[[], None] = lambda: None) -> Float:
    """The rotation that brings vectors nearest to corners of a cube: float32[d, d] for float32[n, d]."""
    centred = vectors - vectors.mean(axis=0)
    chance = np.random.default_rng(SEED).standard_normal((vectors.shape[1],) * 2)
    rotation = np.linalg.qr(chance)[0].astype(np.float32)
    for _ in range(TURNS):
        corners = np.where(centred @ rotation > 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd(centred.T @ corners)
        rotation = left @ right
        advance()
    return rotation


def centre_of(codes: NDArray[np.int8]) -> Packing:
    """1-bit codes around the mean of some int8 codes, int8[n, dim], and their mean distance from it."""
    centre = np.rint(codes.mean(axis=0))
    distance = float(np.rint(np.abs(codes - centre).mean()))
    step = max(distance, 1.0)
    inside = np.clip(centre, step - CODE_MAX, CODE_MAX - step)
    return Packing("1bit", step, tuple(int(c) for c in inside))
