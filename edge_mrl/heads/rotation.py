"""What 1-bit and 2-bit codes need to keep most: rotated directions, and a centre.

A bit tells most if it is set as often as not and repeats no other bit. So a head's directions are rotated
within their span until the vectors lie near the corners of a cube (iterative quantisation, Gong and
Lazebnik, CVPR 2011), which changes no cosine of whole vectors. And a bit says on which side of the mean
code of the text a code lies. At 384 dimensions, this raised the share of nDCG@10 that 1-bit codes keep,
on average over four sets, from 94.1 to 96.9 %.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import head_inputs
from edge_mrl.codes import CODE_BITS, CODE_MAX, Packing, normalize, two_bit_step

__all__ = ["ROTATION_STEPS", "centred_packing", "rotate_for_bits", "rotation_to_corners"]

Float = NDArray[np.float32]

#: Steps until the corners no longer change by an amount that matters.
ROTATION_STEPS = 30
SEED = 0


def rotate_for_bits(
    full: Float,
    matrix: Float | None,
    *,
    dim: int,
    layer_norm: bool,
    advance: Callable[[], None] = lambda: None,
) -> Float:
    """A head with the same span as another, rotated within it so that 1-bit codes keep most.

    Args:
        full: float32[n, D], full vectors of text like the text that will be stored.
        matrix: The other head, float32[D, dim]; None for the prefix.
        dim: Dimensions of the code.
        layer_norm: Whether the head reads centred vectors.
        advance: Called after each of ROTATION_STEPS steps.

    Returns:
        float32[D, dim].
    """
    if matrix is None:
        matrix = np.eye(full.shape[1], dim, dtype=np.float32)
    reduced = normalize(head_inputs(full, layer_norm=layer_norm) @ matrix)
    rotated: Float = matrix @ rotation_to_corners(reduced, advance)
    return rotated


def rotation_to_corners(vectors: Float, advance: Callable[[], None] = lambda: None) -> Float:
    """The rotation that brings vectors nearest to the corners of a cube.

    Args:
        vectors: float32[n, d].
        advance: Called after each of ROTATION_STEPS steps.

    Returns:
        float32[d, d], orthonormal.
    """
    centred = vectors - vectors.mean(axis=0)
    chance = np.random.default_rng(SEED).standard_normal((vectors.shape[1],) * 2)
    rotation = np.linalg.qr(chance)[0].astype(np.float32)
    for _ in range(ROTATION_STEPS):
        corners = np.where(centred @ rotation > 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd(centred.T @ corners)
        rotation = left @ right
        advance()
    return rotation


def centred_packing(codes: NDArray[np.int8], kind: str = "1bit") -> Packing:
    """The packing of 1-bit or 2-bit codes around the mean of some int8 codes.

    Args:
        codes: int8[n, dim], codes of text like the text that will be stored.
        kind: "1bit" or "2bit".

    Returns:
        The packing. The step of 1-bit codes is the mean distance of the codes from their mean, that of
        2-bit codes suits their spread (``edge_mrl.codes.two_bit_step``).
    """
    centre = np.rint(codes.mean(axis=0)).astype(int)
    if kind == "2bit":
        step = two_bit_step(codes, centre.tolist())
    else:
        step = max(round(float(np.abs(codes - centre).mean())), 1)
    room = CODE_MAX - step * (2 ** CODE_BITS[kind] - 1)
    inside = np.clip(centre, -room, room)
    return Packing(kind, float(step), tuple(int(c) for c in inside))
