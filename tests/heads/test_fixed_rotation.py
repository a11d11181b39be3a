"""The fixed rotation: what FORMAT.md says of it, made in another way, and what it is for."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.codes.packing import asymmetric, normalize, pack, quantize, two_bit_step
from edge_mrl.heads.fixed_rotation import random_rotation

FORMAT_MD = Path(__file__).parent.parent.parent / "FORMAT.md"


def by_the_page(width: int) -> np.ndarray:
    """The rotation, step by step as FORMAT.md has it, with whole numbers and matrices written out."""
    state = 0

    def chance() -> int:
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    b = 1
    while 4 * b <= width:
        b *= 4
    n = -(-width // b)
    matrix = np.eye(width)
    for _ in range(2):
        matrix = matrix @ np.diag([-1 if chance() >= 2**63 else 1 for _ in range(width)])
        order = list(range(width))
        for i in range(width - 1, 0, -1):
            j = chance() % (i + 1)
            order[i], order[j] = order[j], order[i]
        matrix = matrix @ np.eye(width)[:, order]
        for k in range(n):
            s = k * (width - b) // (n - 1) if n > 1 else 0
            block = np.eye(width)
            block[s : s + b, s : s + b] = [
                [(-1) ** (i & j).bit_count() / b**0.5 for j in range(b)] for i in range(b)
            ]
            matrix = matrix @ block
    return matrix


@pytest.mark.parametrize("width", [1, 2, 3, 5, 16, 37, 100])
def test_it_is_what_the_page_says_to_the_last_bit(width: int) -> None:
    made = random_rotation(width, width)
    assert made.dtype == np.float32
    assert (made == by_the_page(width)).all()
    assert (random_rotation(width, 1) == made[:, :1]).all()


def test_it_has_the_values_of_the_page() -> None:
    page = " ".join(FORMAT_MD.read_text("utf-8").split())
    row, digest = re.findall(r"the first row is ([^a-z]*?)\. For D = 384, .*? is `(\w{64})`", page)[
        0
    ]
    assert random_rotation(5, 5)[0].tolist() == [float(value) for value in row.split(",")]
    assert hashlib.sha256(random_rotation(384, 384).tobytes()).hexdigest() == digest


@pytest.mark.parametrize("width", [384, 768, 1000])
def test_it_is_orthonormal_and_mixes_all_dimensions(width: int) -> None:
    matrix = random_rotation(width, width).astype(np.float64)
    assert (matrix.T @ matrix == np.eye(width)).all()  # all values are exact
    assert np.abs(matrix).max() < 8 / width**0.5


def test_few_bits_keep_more_of_vectors_that_lie_in_few_directions() -> None:
    rng = np.random.default_rng(5)
    spread = np.exp(-np.arange(384) / 20)  # what differs lies in the first dimensions
    full = normalize((rng.standard_normal((300, 384)) * spread).astype(np.float32))
    exact = full @ full.T

    def error(vectors: np.ndarray) -> float:
        codes = quantize(vectors)
        packed = pack(codes, "2bit", step=two_bit_step(codes))
        return float(np.abs(asymmetric(codes, packed, 384, "2bit") - exact).mean())

    assert error(full @ random_rotation(384, 384)) < 0.6 * error(full)
