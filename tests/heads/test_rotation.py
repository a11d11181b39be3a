"""Directions that are rotated for 1-bit codes, and their centre."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes.packing import asymmetric, normalize, quantize
from edge_mrl.heads.rotation import (
    ROTATION_STEPS,
    centred_packing,
    rotate_for_bits,
    rotation_to_corners,
)

#: Of a product of float32 rotations.
ORTHONORMAL = 1e-4
DIM = 32


def clustered(number: int = 600, dim: int = 48) -> NDArray[np.float32]:
    """float32[n, dim]: unit length, in clusters, with a common part and a spectrum that decays."""
    rng = np.random.default_rng(4)
    scales = np.arange(1, dim + 1) ** -0.5
    centres = rng.normal(size=(30, dim))[rng.integers(0, 30, number)]
    rows = (centres + 0.7 * rng.normal(size=(number, dim))) * scales + 0.3 * rng.normal(size=dim)
    return normalize(rows.astype(np.float32))


def neighbours_kept(vectors: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """Share of each vector's ten nearest that scores find."""
    exact = vectors @ vectors.T
    for table in (exact, scores):
        np.fill_diagonal(table, -np.inf)
    best, found = (np.argsort(-table, axis=1)[:, :10] for table in (exact, scores))
    return float((best[:, :, None] == found[:, None, :]).any(axis=2).mean())


def test_rotation_is_orthonormal_and_the_same_each_time() -> None:
    vectors = clustered()
    steps: list[int] = []
    rotation = rotation_to_corners(vectors, lambda: steps.append(1))
    assert len(steps) == ROTATION_STEPS
    assert rotation.dtype == np.float32
    assert np.abs(rotation.T @ rotation - np.eye(48)).max() < ORTHONORMAL
    assert (rotation_to_corners(vectors) == rotation).all()


def test_rotated_vectors_lie_nearer_to_corners() -> None:
    centred = clustered() - clustered().mean(axis=0)
    # The farther from the axes, the larger the sum of the elements' sizes at the same length.
    plain, rotated = (
        np.abs(v).sum() for v in (centred, centred @ rotation_to_corners(clustered()))
    )
    assert rotated > 1.05 * plain


def test_rotated_head_keeps_every_cosine_of_whole_vectors() -> None:
    full = clustered()
    head = np.linalg.qr(np.random.default_rng(0).standard_normal((48, DIM)))[0].astype(np.float32)
    for matrix in (None, head):
        before = normalize(full[:, :DIM] if matrix is None else full @ matrix)
        after = normalize(full @ rotate_for_bits(full, matrix, dim=DIM, layer_norm=False))
        np.testing.assert_allclose(after @ after.T, before @ before.T, atol=ORTHONORMAL)


def test_bits_keep_more_neighbours_when_rotated_and_centred() -> None:
    full = clustered()
    plain = quantize(full)
    rotated = quantize(normalize(full @ rotate_for_bits(full, None, dim=48, layer_norm=False)))
    packing = centred_packing(rotated)
    assert packing.fits(48)
    packed = packing.pack(rotated)
    kept = [
        neighbours_kept(full, asymmetric(plain, np.packbits(plain > 0, axis=1), 48, "1bit")),
        neighbours_kept(
            full,
            asymmetric(rotated, packed, 48, "1bit", step=packing.step, centre=packing.centre),
        ),
    ]
    assert kept[1] > kept[0] + 0.05


def test_centre_is_the_mean_code_and_stays_within_a_byte() -> None:
    codes = np.array([[10, -127, 0], [14, -127, 4]], np.int8)
    packing = centred_packing(codes)
    assert packing.step == 1.0  # the mean of 2, 2, 0, 0, 2, 2, rounded
    assert packing.centre == (12, -126, 2)
    assert packing.fits(3)
