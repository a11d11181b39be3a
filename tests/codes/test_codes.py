from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_mrl.codes.kinds import PLANES
from edge_mrl.codes.packing import (
    CODE_KINDS,
    CODE_MAX,
    Packing,
    asymmetric,
    code_bytes,
    int4_step,
    normalize,
    pack,
    pack_bits,
    quantize,
    similarity,
    two_bit_step,
    unpack,
)
from edge_mrl.codes.scoring import MOST_BY_BITS, Scorer, planes_of
from edge_mrl.errors import UsageError
from tests.support.stores import PACKINGS, packing

FORMAT_MD = Path(__file__).parent.parent.parent / "FORMAT.md"


def format_vectors() -> list[tuple[list[float], list[int], bytes]]:
    """The hand-made vectors of FORMAT.md, so that page and code cannot part."""
    vectors = []
    for values, codes, bits in table_below("Test vectors, scale 1:"):
        numbers = _numbers(values.split("(")[0])
        integers = [13] * 9 if "nine" in codes else [int(c) for c in codes.split(",")]
        vectors.append((numbers, integers, bytes.fromhex(bits.strip("` "))))
    return vectors


def table_below(title: str) -> list[list[str]]:
    section = FORMAT_MD.read_text("utf-8").split(title)[1].strip().split("\n\n")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [row.strip("| ").split(" | ") for row in rows[1:]]


def int4_vectors() -> list[tuple[float, list[int], bytes, list[int]]]:
    return [
        (float(step), _integers(codes), _bytes(packed), _integers(levels))
        for step, codes, packed, levels in table_below("Test vectors for int4:")
    ]


def two_bit_vectors() -> list[tuple[int, list[int], bytes, list[int]]]:
    return [
        (int(step), _integers(codes), _bytes(packed), _integers(levels))
        for step, codes, packed, levels in table_below("Test vectors for 2-bit:")
    ]


def centred_two_bit_vectors() -> list[tuple[int, list[int], list[int], bytes, list[int]]]:
    return [
        (int(step), _integers(centre), _integers(codes), _bytes(packed), _integers(levels))
        for step, centre, codes, packed, levels in table_below("2-bit around a centre:")
    ]


def centred_vectors() -> list[tuple[int, list[int], list[int], bytes, list[int]]]:
    return [
        (int(step), _integers(centre), _integers(codes), _bytes(bits), _integers(levels))
        for step, centre, codes, bits, levels in table_below("1-bit around a centre:")
    ]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.strip("` "))


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


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


@pytest.mark.parametrize(("step", "codes", "packed", "levels"), int4_vectors())
def test_int4_codes_match_the_vectors_of_the_format(
    step: float, codes: list[int], packed: bytes, levels: list[int]
) -> None:
    stored = pack(np.array([codes], np.int8), "int4", step=step)
    assert stored.tobytes() == packed
    assert unpack(stored, len(codes), "int4").tolist() == [levels]


@pytest.mark.parametrize(("step", "codes", "packed", "levels"), two_bit_vectors())
def test_two_bit_codes_match_the_vectors_of_the_format(
    step: int, codes: list[int], packed: bytes, levels: list[int]
) -> None:
    packing = Packing("2bit", float(step))
    assert packing.fits(len(codes))
    stored = packing.pack(np.array([codes], np.int8))
    assert stored.tobytes() == packed
    assert packing.unpack(stored, len(codes)).tolist() == [levels]
    assert stored.tobytes()[: len(packed) // 2] == pack_bits(np.array([codes], np.int8)).tobytes()


@pytest.mark.parametrize(("step", "centre", "codes", "packed", "levels"), centred_two_bit_vectors())
def test_centred_two_bit_codes_match_the_vectors_of_the_format(
    step: int, centre: list[int], codes: list[int], packed: bytes, levels: list[int]
) -> None:
    packing = Packing("2bit", float(step), tuple(centre))
    assert packing.fits(len(codes))
    stored = packing.pack(np.array([codes], np.int8))
    assert stored.tobytes() == packed
    assert packing.unpack(stored, len(codes)).tolist() == [levels]


@pytest.mark.parametrize(("step", "centre", "codes", "bits", "levels"), centred_vectors())
def test_centred_bits_match_the_vectors_of_the_format(
    step: int, centre: list[int], codes: list[int], bits: bytes, levels: list[int]
) -> None:
    packing = Packing("1bit", float(step), tuple(centre))
    assert packing.fits(len(codes))
    stored = packing.pack(np.array([codes], np.int8))
    assert stored.tobytes() == bits
    assert packing.unpack(stored, len(codes)).tolist() == [levels]


def test_format_has_test_vectors() -> None:
    assert len(centred_vectors()) == 2
    assert len(format_vectors()) == 6
    assert len(int4_vectors()) == 5
    assert len(two_bit_vectors()) == len(centred_two_bit_vectors()) == 2


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


codes_of_any_size = arrays(
    np.int8, st.tuples(st.integers(0, 4), st.integers(1, 20)), elements=st.integers(-127, 127)
)


@given(codes_of_any_size, st.sampled_from(["int8", "int4", "1bit"]), st.floats(0.5, 20))
def test_stored_codes_unpack_to_the_levels_nearest_to_the_codes(
    codes: np.ndarray, kind: str, step: float
) -> None:
    dim = codes.shape[1]
    packed = pack(codes, kind, step=step)
    assert packed.dtype == np.uint8
    assert packed.shape == (len(codes), code_bytes(dim, kind))
    levels = unpack(packed, dim, kind)
    assert levels.dtype == np.int8
    exact = codes.astype(np.float64)
    if kind == "int8":
        assert (levels == codes).all()
    elif kind == "1bit":
        assert (levels == np.where(codes > 0, 1, -1)).all()
    else:
        assert ((levels > 0) == (codes > 0)).all()
        inside = np.abs(exact) < 8 * step
        assert (np.abs(levels * step / 2 - exact) <= step / 2 + 1e-9)[inside].all()
        assert (levels[exact > 8 * step] == 15).all()
        assert (levels[exact < -8 * step] == -15).all()


@given(codes_of_any_size, st.integers(1, 20), st.data())
def test_two_bit_codes_unpack_to_the_levels_nearest_to_the_codes(
    codes: np.ndarray, step: int, data: st.DataObject
) -> None:
    dim, most = codes.shape[1], CODE_MAX - 3 * step
    centre = data.draw(st.none() | st.tuples(*[st.integers(-most, most)] * dim))
    packing = Packing("2bit", step, centre)
    assert packing.fits(dim)
    packed = packing.pack(codes)
    assert packed.shape == (len(codes), packing.bytes(dim)) == (len(codes), 2 * -(-dim // 8))
    levels = packing.unpack(packed, dim).astype(int)
    if centre is None:
        levels *= step
    middle = np.array(centre or [0] * dim)
    choices = middle + step * np.array([-3, -1, 1, 3])[:, None]  # [4, dim]
    nearest = np.abs(choices[:, None] - codes.astype(int)).min(axis=0)
    assert (np.abs(levels - codes) == nearest).all()
    assert ((levels > middle) == (codes > middle)).all()
    planes = packed[:, : packed.shape[1] // 2]
    assert (planes == packing.bits(codes)).all()


@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize("dim", [1, 7, 64, 384, 4096])
def test_packed_codes_have_representatives_that_pack_to_them(name: str, dim: int) -> None:
    codes = np.random.default_rng(dim).integers(-127, 128, (40, dim)).astype(np.int8)
    kept = packing(name, dim)
    packed = kept.pack(codes)
    again = kept.representatives(packed, dim)
    assert again.dtype == np.int8
    assert (kept.pack(again) == packed).all()
    assert np.abs(again.astype(int)).max() <= CODE_MAX


@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize("dim", [1, 7, 64, 100, 384, 1536])
@pytest.mark.parametrize("asked", [3, MOST_BY_BITS + 1])
def test_packed_codes_score_as_their_levels_do(name: str, dim: int, asked: int) -> None:
    rng = np.random.default_rng(dim)
    queries = rng.integers(-127, 128, (asked, dim)).astype(np.int8)
    codes = rng.integers(-127, 128, (400, dim)).astype(np.int8)  # of 1,536: three pieces
    kept = packing(name, dim)
    packed = kept.pack(codes)
    stored = packed if kept.kind not in PLANES else planes_of(packed, dim, PLANES[kept.kind])
    levels = kept.unpack(packed, dim).astype(np.int64)
    a = queries.astype(np.int64)
    lengths = np.sqrt(np.maximum(np.outer((a * a).sum(1), (levels * levels).sum(1)), 1))
    # Products and lengths are whole numbers; division and root may differ by the last bit.
    np.testing.assert_allclose(
        Scorer(queries, kept).cosines(stored), (a @ levels.T) / lengths, rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("name", PACKINGS)
def test_a_scorer_has_no_answer_for_no_codes_and_no_queries(name: str) -> None:
    kept, dim = packing(name, 24), 24
    empty = np.empty((0, kept.bytes(dim)), np.uint8)
    stored = empty if kept.kind not in PLANES else planes_of(empty, dim, PLANES[kept.kind])
    assert Scorer(np.ones((2, dim), np.int8), kept).cosines(stored).shape == (2, 0)
    assert Scorer(np.ones((0, dim), np.int8), kept).cosines(stored).shape == (0, 0)


@pytest.mark.parametrize("kind", CODE_KINDS)
@pytest.mark.parametrize("dim", [1, 7, 64, 384])
def test_asymmetric_cosines_equal_exact_integer_arithmetic(kind: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    queries = rng.integers(-127, 128, (3, dim)).astype(np.int8)
    codes = rng.integers(-127, 128, (40, dim)).astype(np.int8)
    packed = pack(codes, kind, step=9)
    levels = unpack(packed, dim, kind).astype(np.int64)
    a = queries.astype(np.int64)
    lengths = np.sqrt(np.outer((a * a).sum(1), (levels * levels).sum(1)))
    scores = asymmetric(queries, packed, dim, kind)
    assert scores.dtype == np.float32
    # One float32 division and root: a few units in the last place of 1.
    np.testing.assert_allclose(scores, (a @ levels.T) / np.maximum(lengths, 1), atol=5e-7)
    floats = queries.astype(np.float32) / np.float32(254)
    np.testing.assert_allclose(asymmetric(floats, packed, dim, kind), scores, atol=5e-7)


def test_int4_loses_little_of_a_cosine_and_one_bit_more() -> None:
    vectors = normalize(np.random.default_rng(3).standard_normal((200, 128)).astype(np.float32))
    codes = quantize(vectors)
    step = int4_step(128)
    steps = {"int8": None, "int4": step, "2bit": two_bit_step(codes), "1bit": None}
    own = {
        kind: np.diag(asymmetric(codes, pack(codes, kind, step=steps[kind]), 128, kind))
        for kind in CODE_KINDS
    }
    assert own["int8"].min() > 0.999999
    # A uniform quantiser with 16 levels leaves 1.15 % of a normal variable's variance (Max, 1960),
    # one with four 11.9 %, one with two 36.3 %: cosines of the roots of 1 - 0.0115, 1 - 0.119, 2 / pi.
    assert abs(own["int4"].mean() - 0.9942) < 0.0006
    assert abs(own["2bit"].mean() - 0.9387) < 0.002
    assert abs(own["1bit"].mean() - 0.798) < 0.006


@pytest.mark.parametrize("step", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_int4_needs_a_step(step: float | None) -> None:
    with pytest.raises(UsageError, match="step of int4 codes"):
        pack(np.zeros((1, 2), np.int8), "int4", step=step)


@pytest.mark.parametrize("step", [None, 0, -1, 2.5, 128, float("nan")])
def test_two_bit_codes_need_a_whole_step(step: float | None) -> None:
    with pytest.raises(UsageError, match="step of 2bit codes"):
        pack(np.zeros((1, 2), np.int8), "2bit", step=step)


def test_the_step_of_two_bit_codes_follows_their_spread_and_stays_inside() -> None:
    codes = np.array([[10, -10, 10, -10]], np.int8)
    assert two_bit_step(codes) == 5
    assert two_bit_step(codes, [10, -10, 10, -10]) == 1
    assert two_bit_step(np.array([[127, -127]], np.int8)) == CODE_MAX // 3


def test_an_unknown_kind_of_code_is_named() -> None:
    with pytest.raises(UsageError, match="'int2', expected one of int8, int4, 2bit, 1bit"):
        code_bytes(4, "int2")
