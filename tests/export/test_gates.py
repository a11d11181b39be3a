"""How close a bundle is to its source, and the gates it must pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from edge_mrl.bundle.head import derive_codes, read_head
from edge_mrl.codes.packing import normalize
from edge_mrl.encode.encoder import Encoder
from edge_mrl.errors import GateError
from edge_mrl_export.bundle.gates import (
    GATES,
    Fidelity,
    check_gates,
    ideal_codes,
    measure,
    reaches_gates,
)
from edge_mrl_export.bundle.speed import measure_speed
from tests.support.bundles import TINY, TINY_COARSE

TEXTS = ["the cat", "a dog barking at 10", "0 1 2", "the end of a long day and a night", "one"]
GOOD = Fidelity(5, 0.9991, 0.996, 0.998, 0.99, 1.0, 1.0)


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder.open(TINY) as opened:
        yield opened


def own_vectors(encoder: Encoder) -> np.ndarray:
    full = encoder.encode(TEXTS).full
    assert full is not None
    return full


def test_bundle_is_close_to_its_own_vectors(encoder: Encoder) -> None:
    told: list[int] = []
    head = read_head(TINY, encoder.manifest)
    found = measure(encoder, TEXTS, own_vectors(encoder), head=head, advance=lambda: told.append(1))
    assert (found.texts, len(told)) == (5, 5)
    assert found.cosine_min > 0.9999
    assert found.padded_min > GATES["padded_min"]
    assert reaches_gates(found)


def test_other_vectors_lower_the_figures(encoder: Encoder) -> None:
    full = own_vectors(encoder)
    noise = np.random.default_rng(0).normal(size=full.shape).astype(np.float32)
    far = normalize(full + 0.02 * noise)
    found = measure(encoder, TEXTS, far, head=read_head(TINY, encoder.manifest))
    expected = (full * far).sum(axis=1)
    assert found.cosine_mean == pytest.approx(expected.mean(), abs=1e-4)
    assert found.cosine_min == pytest.approx(expected.min(), abs=1e-4)
    assert not reaches_gates(found)


def test_codes_must_be_those_of_the_full_vectors(encoder: Encoder) -> None:
    head = np.eye(32, 16, dtype=np.float32)[::-1].copy()  # another head than the graph's
    with pytest.raises(GateError, match="codes of its own full vectors"):
        measure(encoder, TEXTS, own_vectors(encoder), head=head)


def test_without_full_vectors_codes_are_compared(encoder: Encoder) -> None:
    with Encoder.open(TINY_COARSE) as coarse:
        found = measure(
            coarse, TEXTS, own_vectors(encoder), head=read_head(TINY_COARSE, coarse.manifest)
        )
    assert found.cosine_mean == found.code_cosine_mean


def test_ideal_codes_are_those_of_the_format() -> None:
    full = normalize(np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32))
    got = ideal_codes(full, dim=4, layer_norm=False, scale=1.0)
    np.testing.assert_array_equal(got, derive_codes(full, None, dim=4))


@pytest.mark.parametrize("name", GATES)
def test_one_figure_below_its_gate_fails(name: str) -> None:
    assert reaches_gates(GOOD)
    check_gates(GOOD, "int8")
    below = replace(GOOD, **{name: GATES[name] - 0.0001})
    assert not reaches_gates(below)
    with pytest.raises(GateError, match=rf"{name} 0\.\d+ \(gate {GATES[name]}\)"):
        check_gates(below, "int8")


@pytest.mark.parametrize(
    ("precision", "advice"), [("int4", "--int8"), ("int8", "--corpus"), ("fp32", "report this")]
)
def test_failure_says_what_to_try(precision: str, advice: str) -> None:
    with pytest.raises(GateError, match=advice):
        check_gates(replace(GOOD, cosine_min=0.5), precision)


def test_speed_is_measured_with_the_codes_at_hand(encoder: Encoder) -> None:
    speed, codes = measure_speed(encoder, TEXTS)
    np.testing.assert_array_equal(codes, encoder.encode(TEXTS).coarse)
    assert speed.documents == 5
    assert 0 < speed.query_ms < 10_000
    # The same work: five documents do not take less time than the rate says.
    assert speed.documents_per_s > 0
    assert replace(speed, query_ms=2.04, documents_per_s=1234.5, threads=1).text() == (
        "2.0 ms for a query, 1,234 documents/s (this machine, 1 thread)"
    )
