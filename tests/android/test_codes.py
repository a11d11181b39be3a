from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.codes import Packing, Scorer, planes_of, quantize
from edge_mrl.codes.kinds import PLANES
from tests.android.probe import Probe

#: Around the borders of bytes, of words, and of what float32 adds up exactly.
DIMS = (1, 7, 8, 63, 64, 65, 128, 255, 384, 1040, 1041)


def _packings(dim: int, rng: np.random.Generator) -> list[Packing]:
    around = tuple(rng.integers(-40, 41, dim).tolist())
    return [
        Packing(),
        Packing("int4", 3.765),
        Packing("2bit", 5.0),
        Packing("2bit", 6.0, around),
        Packing("1bit"),
        Packing("1bit", 9.0, around),
    ]


def _named(packing: Packing) -> dict[str, Any]:
    centre = None if packing.centre is None else list(packing.centre)
    return {"kind": packing.kind, "step": packing.step, "centre": centre}


def _sent(codes: NDArray[Any]) -> list[str]:
    return [base64.b64encode(row.tobytes()).decode() for row in codes]


def _codes(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.int8]:
    codes = np.clip(np.rint(rng.normal(0, 25, (rows, dim))), -127, 127).astype(np.int8)
    codes[0] = 0
    codes[1] = 127
    return codes


@pytest.mark.test
def test_codes_are_packed_and_unpacked_like_pythons(kotlin: Probe) -> None:
    rng = np.random.default_rng(1)
    for dim in DIMS:
        codes = _codes(rng, 20, dim)
        for packing in _packings(dim, rng):
            packed = packing.pack(codes)
            assert kotlin("codes.pack", codes=_sent(codes), **_named(packing)) == _sent(packed)
            levels = kotlin("codes.unpack", packed=_sent(packed), dim=dim, **_named(packing))
            assert levels == _sent(packing.unpack(packed, dim))
            if packing.kind != "int8":  # codes that arrive packed
                made = kotlin(
                    "codes.representatives", packed=_sent(packed), dim=dim, **_named(packing)
                )
                assert made == _sent(packing.representatives(packed, dim))


@pytest.mark.test
def test_cosines_are_equal_to_pythons_to_the_last_bit(kotlin: Probe) -> None:
    rng = np.random.default_rng(2)
    for dim in DIMS:
        codes, queries = _codes(rng, 60, dim), _codes(rng, 4, dim)
        for packing in _packings(dim, rng):
            packed: NDArray[Any] = packing.pack(codes)
            planes = PLANES.get(packing.kind, 0)
            stored = planes_of(packed, dim, planes) if planes else packed
            wanted = Scorer(queries, packing).cosines(stored)
            got = kotlin(
                "codes.cosines",
                packed=_sent(packed), queries=_sent(queries), dim=dim, **_named(packing),
            )  # fmt: skip
            assert got == wanted.tolist(), (dim, packing.kind)


@pytest.mark.test
def test_which_parameters_fit_is_judged_alike(kotlin: Probe) -> None:
    rng = np.random.default_rng(3)
    seen = set()
    for kind in ("int8", "int4", "2bit", "1bit"):
        for step in (None, 0.0, 0.5, 1.0, 2.5, 42.0, 43.0, 127.0, 128.0):
            for centre in (None, (0, 0, 0), (0, 0), (120, 0, -120), (127, 0, 0)):
                packing = Packing(kind, step, centre)
                assert kotlin("codes.fits", dim=3, **_named(packing)) == packing.fits(3), packing
                seen.add(packing.fits(3))
    assert seen == {True, False}
    for scale in (1.0, 0.37):
        vector = rng.normal(0, 0.3, 500).astype(np.float32)
        wanted = quantize(vector[None], scale=scale)
        got = kotlin("codes.quantize", vector=[float(x) for x in vector], scale=scale)
        assert [got] == _sent(wanted)


@pytest.mark.test
def test_the_random_head_is_pythons(kotlin: Probe) -> None:
    from edge_mrl.heads.fixed_rotation import random_rotation

    for size in (5, 16, 24, 100):
        wanted = random_rotation(size, size // 2)
        assert kotlin("codes.head", size=size, dim=size // 2) == wanted.ravel().tolist()
