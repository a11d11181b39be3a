"""Vectors as other tools take them: one call for questions, one for documents, any nested prefix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edge_mrl import Encoder, UsageError
from tests.support.bundles import TINY, TINY_COARSE


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder.open(TINY) as opened:
        yield opened


def test_full_vectors_are_the_default(encoder: Encoder) -> None:
    texts = ["the cat", "a dog barking"]
    for kind, call in (("query", encoder.encode_query), ("document", encoder.encode_document)):
        expected = encoder.encode(texts, kind=kind).full
        assert expected is not None
        found = call(texts)
        assert (found.dtype, found.shape) == (np.float32, (2, encoder.full_dim))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(call(texts[0]), expected[0], atol=1e-6)
        assert call([]).shape == (0, encoder.full_dim)


@pytest.mark.parametrize("dim", [1, 8, 16])
def test_a_prefix_is_that_of_the_code_and_of_length_1(dim: int, encoder: Encoder) -> None:
    texts = ["the cat", "a dog barking"]
    found = encoder.encode_document(iter(texts), dim=dim)
    code = encoder.encode(texts).coarse[:, :dim].astype(np.float64)
    np.testing.assert_allclose(found, code / np.linalg.norm(code, axis=1, keepdims=True), atol=1e-6)
    assert encoder.encode_query("the cat", dim=dim).shape == (dim,)


def test_other_dimensions_are_refused(encoder: Encoder) -> None:
    for wrong in (17, 31, 33, 1000):
        with pytest.raises(UsageError, match=rf"dim is {wrong}, expected at most 16, or 32"):
            encoder.encode_query("the cat", dim=wrong)
    for odd in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match="dim is"):
            encoder.encode_query("the cat", dim=odd)  # type: ignore[arg-type]


def test_a_bundle_of_codes_only_gives_its_codes() -> None:
    with Encoder.open(TINY_COARSE) as encoder:
        assert (encoder.dim, encoder.full_dim) == (8, None)
        assert encoder.encode_document("the cat").shape == (8,)
        with pytest.raises(UsageError, match=r"dim is 32, expected at most 8$"):
            encoder.encode_document("the cat", dim=32)
        assert repr(encoder) == f"Encoder({str(TINY_COARSE)!r}, dim=8, full_dim=None)"
