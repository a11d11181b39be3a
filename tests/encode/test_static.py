"""The committed bundle of a model without a transformer, run by the runtime alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_mrl import Document, Index
from edge_mrl.bundle.manifest import read_manifest
from edge_mrl.encode.encoder import Encoder
from tests.support.bundles import TINY_STATIC

#: Float sums in another order.
ORDER = 1e-6


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder.open(TINY_STATIC, threads=1) as opened:
        yield opened


def full(encoder: Encoder, *texts: str) -> np.ndarray:
    vectors = encoder.encode(texts).full
    assert vectors is not None
    return vectors


def test_manifest_has_no_integer_products() -> None:
    manifest = read_manifest(TINY_STATIC)
    assert manifest.source.architecture == "StaticModel"
    assert (manifest.precision.weights, manifest.precision.integer_products) == ("int8", 0)


def test_order_and_repetition_change_nothing(encoder: Encoder) -> None:
    vectors = full(encoder, "the cat and a dog", "dog a cat and the", "the cat and a dog " * 9)
    np.testing.assert_allclose(vectors[1], vectors[0], atol=ORDER)
    np.testing.assert_allclose(vectors[2], vectors[0], atol=ORDER)
    assert np.abs(full(encoder, "the cat") - vectors[0]).max() > 100 * ORDER


def test_text_is_between_its_words(encoder: Encoder) -> None:
    cat, dog, both = full(encoder, "cat", "dog", "cat dog")
    assert both @ cat > cat @ dog
    assert both @ dog > cat @ dog


def test_unknown_tokens_count_nothing(encoder: Encoder) -> None:
    plain, mixed = full(encoder, "the cat", "猫 the 猫 cat 猫")
    assert encoder.tokenize(["猫 the 猫"]) != encoder.tokenize(["the"])
    np.testing.assert_allclose(mixed, plain, atol=ORDER)


@pytest.mark.parametrize("text", ["", " \n", "猫", "\0"])
def test_text_without_known_tokens_gives_zeros(text: str, encoder: Encoder) -> None:
    encoding = encoder.encode([text, "the cat"])
    assert encoding.full is not None
    assert not encoding.coarse[0].any()
    assert not encoding.full[0].any()
    np.testing.assert_allclose(np.linalg.norm(encoding.full[1]), 1, atol=ORDER)


def test_padding_changes_nothing(encoder: Encoder) -> None:
    texts = ["the cat", "", "training in water " * 40, "猫", "a"]
    padded = encoder.encode_padded(texts).full
    np.testing.assert_allclose(
        padded, np.concatenate([full(encoder, t) for t in texts]), atol=ORDER
    )


def test_store_of_static_vectors_answers(tmp_path: Path) -> None:
    with Index.open(tmp_path / "s.db", bundle=TINY_STATIC) as index:
        index.put([Document(id="cat", text="the cat sleeps"), Document(id="12", text="1 2 1 2")])
        assert [hit.id for hit in index.search("cat", k=1)] == ["cat"]
        assert [hit.id for hit in index.search("2 1", k=1)] == ["12"]
