from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_mrl.codes import CODE_MAX, normalize, pack_bits, quantize, similarity

FORMAT_MD = Path(__file__).parent.parent / "FORMAT.md"


def format_vectors() -> list[tuple[list[float], list[int], bytes]]:
    """The hand-made vectors of FORMAT.md, so that page and code cannot part."""
    section = FORMAT_MD.read_text("utf-8").split("Test vectors, scale 1:")[1].split("##")[0]
    rows = [
        line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")
    ][1:]
    vectors = []
    for values, codes, bits in rows:
        numbers = _numbers(values.split("(")[0])
        integers = [13] * 9 if "nine" in codes else [int(c) for c in codes.split(",")]
        vectors.append((numbers, integers, bytes.fromhex(bits.strip("` "))))
    return vectors


def _numbers(text: str) -> list[float]:
    if "nine times" in text:
        return [0.1] * 9
    parts = [re.sub(r"\s", "", part).split("/") for part in text.split(",")]
    return [float(p[0]) / float(p[1]) if len(p) == 2 else float(p[0]) for p in parts]


@pytest.mark.parametrize(("values", "codes", "bits"), format_vectors())
def test_codes_match_the_vectors_of_the_format(
    values: list[float], codes: list[int], bits: bytes
) -> None:
    coded = quantize(np.array([values], dtype=np.float32))
    assert coded.tolist() == [codes]
    assert pack_bits(coded).tobytes() == bits


def test_format_has_test_vectors() -> None:
    assert len(format_vectors()) == 6


def test_scale_divides_before_rounding_and_clips() -> None:
    coded = quantize(np.array([[0.25, 0.5, 0.75, -0.75]], dtype=np.float32), scale=0.5)
    assert coded.tolist() == [[64, 127, 127, -127]]


@given(arrays(np.float32, (3, 5), elements=st.floats(-4, 4, width=32)))
def test_quantize_never_leaves_the_code_range(vectors: np.ndarray) -> None:
    codes = quantize(vectors)
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max() <= CODE_MAX
    inside = np.abs(vectors) <= 1
    # Half a step, and float32's rounding of the product.
    assert np.all(np.abs(codes - vectors * 127.0)[inside] <= 0.5 + 1e-4)


@given(
    arrays(
        np.int8, st.tuples(st.integers(1, 4), st.integers(1, 20)), elements=st.integers(-127, 127)
    )
)
def test_bits_unpack_to_the_signs(codes: np.ndarray) -> None:
    bits = np.unpackbits(pack_bits(codes), axis=1)
    assert (bits[:, : codes.shape[1]].astype(bool) == (codes > 0)).all()
    assert not bits[:, codes.shape[1] :].any()


def test_similarity_equals_exact_integer_arithmetic() -> None:
    rng = np.random.default_rng(5)
    queries = rng.integers(-127, 128, (4, 1024)).astype(np.int8)
    codes = rng.integers(-127, 128, (50, 1024)).astype(np.int8)
    a, b = queries.astype(np.int64), codes.astype(np.int64)
    exact = (a @ b.T) / np.sqrt(np.outer((a * a).sum(1), (b * b).sum(1)))
    # One float32 division and root: a few units in the last place of 1.
    np.testing.assert_allclose(similarity(queries, codes), exact, atol=5e-7)


def test_similarity_of_a_zero_code_is_zero() -> None:
    codes = np.array([[0, 0], [3, 4]], dtype=np.int8)
    assert similarity(codes, codes)[0].tolist() == [0, 0]


def test_normalize_keeps_a_zero_row() -> None:
    rows = normalize(np.array([[0, 0], [3, 4]], dtype=np.float32))
    np.testing.assert_allclose(rows, [[0, 0], [0.6, 0.8]], atol=1e-7)
