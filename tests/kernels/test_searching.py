"""Searches in the native kernels give the answers of their twin in numpy, to the last bit."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl import native
from edge_mrl.codes import INT8, Scorer
from edge_mrl.codes.scoring import planes_of
from edge_mrl.search import compiled, scan
from edge_mrl.search.funnel import Funnel
from edge_mrl.search.scan import Match, nearest
from tests.search.test_scan import make_table
from tests.support.stores import packing

pytestmark = pytest.mark.test

DIMS = (3, 63, 64, 65, 128, 200, 255, 256, 257, 384)
KINDS = ("int8", "int4", "2bit", "1bit")
ROWS = 700


def both_ways(monkeypatch: pytest.MonkeyPatch, kernel: str, **search: Any) -> list[list[Match]]:
    """What a search finds with kernels and without; they must be equal."""
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    expected = nearest(**search)
    monkeypatch.setenv(native.KERNEL_VARIABLE, kernel)
    found = nearest(**search)
    assert found == expected
    return found


def some_codes(dim: int, *, few: bool, rows: int = ROWS) -> NDArray[np.int8]:
    """Codes with many equal distances and scores, or with hardly any; extremes are among them."""
    random = np.random.default_rng(dim)
    codes = random.integers(-1 if few else -127, 2 if few else 128, (rows, dim)).astype(np.int8)
    codes[3], codes[4], codes[5] = 127, -127, 0
    return codes


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_numpy(
    kind: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(5)
    answers = 0
    for dim, few in product(DIMS, (False, True)):
        counts = random.integers(1, 4, 280).tolist()
        codes = some_codes(dim, few=few, rows=sum(counts))
        dead = np.flatnonzero(random.random(len(codes)) < 0.1).tolist()
        names = {10 * (n + 1): f"{random.integers(1 << 40):x}" for n in range(len(counts))}
        table = make_table(counts, codes, dead, names=names, kept=packing(kind, dim))
        queries = np.concatenate([codes[3:6], some_codes(dim + 1, few=few, rows=9)[6:8, :dim]])
        some = np.array(sorted(names)[::2])
        for k, exact, keys in (
            (1, False, None),
            (10, False, some),
            (400, False, None),
            (7, True, some),
        ):
            found = both_ways(
                monkeypatch,
                kernel,
                queries=queries,
                table=table,
                k=k,
                exact=exact,
                width=20,
                keys=keys,
            )
            answers += sum(map(len, found))
    assert answers > 10_000


def test_stages_give_the_answers_of_numpy(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = some_codes(256, few=False)
    names = {10 * (n + 1): f"{n:05d}" for n in range(ROWS)}
    for kind, stages in (
        ("int8", "64x1:200,256x1:60,128x8:30,256x8"),
        ("int4", "128x1:100,256x4"),
        ("2bit", "64x1:90,256x1:50,256x2"),
    ):
        table = make_table([1] * ROWS, codes, [1, 9], names=names, kept=packing(kind, 256))
        both_ways(
            monkeypatch,
            kernel,
            queries=codes[:6],
            table=table,
            k=10,
            funnel=Funnel.of(stages),
        )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_closest_rows_are_those_of_numpy(
    kind: Any, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(6)
    for rows in (1, 2, 63, 64, 65, 127, 128, 129, 1000):
        for spread in (1, 3, 200):
            distances = random.integers(0, spread, rows).astype(kind)
            distances[random.random(rows) < 0.2] = np.iinfo(kind).max
            most = int(np.count_nonzero(distances < np.iinfo(kind).max))
            for width in {1, 2, max(1, most // 4), max(1, most)}:
                monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
                expected = scan._closest(distances, 256, width)
                monkeypatch.setenv(native.KERNEL_VARIABLE, kernel)
                found = compiled.closest(distances, 256, width)
                assert found is not None
                assert found.tolist() == expected.tolist()


def test_cosines_are_those_of_numpy_at_any_address(kernel: str) -> None:
    for dim in (1, 2, 31, 32, 33, 127, 1041):
        codes = some_codes(dim, few=False, rows=40)
        for kind in ("int8", "int4"):
            kept = packing(kind, dim)
            stored = kept.pack(codes).view(np.uint8)
            wide = np.zeros((40, stored.shape[1] + 3), np.uint8)
            wide[:, : stored.shape[1]] = stored
            scorer = compiled.scorer_of(codes[:5], kept)
            assert isinstance(scorer, compiled.CompiledScorer)
            expected = Scorer(codes[:5], kept).cosines(wide)
            assert scorer.cosines(wide).tobytes() == expected.tobytes()
            shifted = np.frombuffer(b"x" + wide.tobytes(), np.uint8)[1:].reshape(wide.shape)
            assert scorer.cosines(shifted).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["2bit", "1bit"])
def test_codes_in_planes_of_bits_are_weighed_in_the_kernels(
    kind: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = compiled._weigh, []

    def counted(*arguments: Any) -> NDArray[np.int64]:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(compiled, "_weigh", counted)
    for dim in (1, 63, 64, 65, 256):
        codes = some_codes(dim, few=False, rows=40)
        kept = packing(kind, dim)
        planes = {"2bit": 2, "1bit": 1}[kind]
        words = planes_of(kept.pack(codes), dim, planes)
        expected = Scorer(codes[:5], kept).cosines(words)
        assert compiled.scorer_of(codes[:5], kept).cosines(words).tobytes() == expected.tobytes()
    assert len(calls) >= 25


def test_the_comparison_can_fail(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That searches do go through the kernels, and that a wrong kernel is noticed."""
    table = make_table([1] * 19, some_codes(64, few=False, rows=19))
    queries = some_codes(64, few=False, rows=8)
    real = compiled.CompiledScorer.cosines
    monkeypatch.setattr(compiled.CompiledScorer, "cosines", lambda self, codes: -real(self, codes))
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    expected = nearest(queries, table, k=3)
    monkeypatch.delenv(native.KERNEL_VARIABLE)
    assert nearest(queries, table, k=3) != expected


def test_parts_that_do_not_add_up_are_refused(installed: Path) -> None:
    from edge_mrl_kernels import KernelError

    found = native.kernels()
    assert found is not None
    bits, query, distances = (
        np.zeros((1, 8), np.uint64),
        np.zeros(1, np.uint64),
        np.zeros(9, np.uint8),
    )
    address = [int(array.ctypes.data) for array in (bits, query, distances)]
    for parts, rows in (
        ([(address[0], 8, 8)], 9),
        ([(address[0], 8, 8)], 7),
        ([(address[0], 4, 8)], 8),
    ):
        with pytest.raises(KernelError, match="rows"):
            found.hamming(parts, address[1], 1, capped=False)(address[2], rows)


def test_int8_codes_are_compared_as_they_are(installed: Path) -> None:
    assert isinstance(compiled.scorer_of(np.ones((1, 8), np.int8), INT8), compiled.CompiledScorer)
    assert isinstance(compiled.scorer_of(np.ones((1, 8), np.int8), packing("1bit", 8)), Scorer)
