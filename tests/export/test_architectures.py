"""Bundles of every supported architecture against the source run by its own library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize

from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import cosines
from edge_mrl_export.bundle.gates import ideal_codes
from edge_mrl_export.graph.passes.contract import ACTIVATIONS
from edge_mrl_export.recipe import Recipe
from tests.support import tiny
from tests.support.tiny import export

pytestmark = pytest.mark.test

TEXTS = [
    "the cat",
    "a dog barking in the garden, and nobody came to see.",
    "0 1 2 3 4 5",
    "?",
    "",
    "training an embedding model for searching text offers many choices " * 4,
]
#: fp32 kernels of two libraries differ by some 1e-6 on these weights.
FP32_TOLERANCE = 1e-5
#: The gate of an export.
INT8_COSINE = 0.998
#: What merges wait for, one of each kind of graph; the rest is exported each night.
INT8_EACH_MERGE = ("bert", "gemma3", "modernbert")
ACTIVATIONS_EACH_MERGE = ("GELU", "Tanh")


def tiers(names: Iterable[str], each_merge: Iterable[str]) -> list[Any]:
    """Parameters of a test, all but some of them for the night."""
    return [
        name if name in each_merge else pytest.param(name, marks=pytest.mark.nightly)
        for name in sorted(names)
    ]


def encode_source(folder: Path, kind: str = "document") -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    prompts = {"document": model.prompts.get("document"), "query": model.prompts.get("query")}
    return np.asarray(
        model.encode(TEXTS, prompt=prompts[kind] or None, normalize_embeddings=True, batch_size=1)
    )


def assert_parity(folder: Path, tmp_path: Path, *, precision: str = "fp32") -> None:
    recipe = Recipe(dim=16, precision=precision, head="prefix")
    bundle = export(str(folder), tmp_path / f"bundle-{precision}", recipe).path
    expected = encode_source(folder)
    with Encoder.open(bundle) as encoder:
        together = encoder.encode(TEXTS)
        alone = np.concatenate([encoder.encode([text]).full for text in TEXTS])
    assert together.full is not None
    if precision == "fp32":
        np.testing.assert_allclose(together.full, expected, atol=FP32_TOLERANCE)
        ideal = ideal_codes(expected, dim=16, layer_norm=False, scale=1.0)
        # A value within 1e-5 of a rounding edge may fall on the other side.
        assert np.abs(together.coarse.astype(int) - ideal).max() <= 1
    else:
        assert cosines(together.full, expected).min() >= INT8_COSINE
    np.testing.assert_allclose(together.full, alone, atol=FP32_TOLERANCE)


@pytest.mark.parametrize("architecture", sorted(tiny.CONFIGS))
def test_architecture_fp32_matches_source(architecture: str, tmp_path: Path) -> None:
    assert_parity(tiny.sentence_folder(tmp_path / "source", architecture), tmp_path)


@pytest.mark.parametrize("architecture", tiers(tiny.CONFIGS, INT8_EACH_MERGE))
def test_architecture_int8_is_close_to_source(architecture: str, tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source", architecture)
    assert_parity(folder, tmp_path, precision="int8")


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_plain_transformers_folder_is_mean_pooled(architecture: str, tmp_path: Path) -> None:
    folder = tiny.transformer_folder(tmp_path / "source", architecture)
    assert_parity(folder, tmp_path)


@pytest.mark.parametrize(
    "pooling",
    [
        "cls",
        "mean",
        "max",
        "mean_sqrt_len_tokens",
        "weightedmean",
        "lasttoken",
        ("cls", "mean"),
        ("max", "lasttoken", "mean_sqrt_len_tokens"),
    ],
)
@pytest.mark.parametrize("padding_side", tiers(["right", "left"], ["right"]))
def test_pooling_modes_match_source(
    pooling: str | tuple[str, ...], padding_side: str, tmp_path: Path
) -> None:
    folder = tiny.sentence_folder(tmp_path / "source", pooling=pooling, padding_side=padding_side)
    assert_parity(folder, tmp_path)


def test_decoder_padded_on_the_left_matches_source(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source", "qwen3", padding_side="left")
    assert_parity(folder, tmp_path)


@pytest.mark.parametrize("activation", tiers(ACTIVATIONS, ACTIVATIONS_EACH_MERGE))
def test_dense_matches_source(activation: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    dense = Dense(tiny.WIDTH, 20, activation_function=getattr(torch.nn, activation)())
    folder = tiny.sentence_folder(tmp_path / "source", modules=(dense, Normalize()))
    assert_parity(folder, tmp_path)


def test_two_dense_without_bias_and_layer_norm_match_source(tmp_path: Path) -> None:
    torch.manual_seed(3)
    norm = LayerNorm(24)
    with torch.no_grad():
        norm.norm.weight.uniform_(0.5, 2)
        norm.norm.bias.uniform_(-1, 1)
    modules = (
        Dense(tiny.WIDTH, 64, bias=False, activation_function=torch.nn.Identity()),
        Dense(64, 24, bias=False, activation_function=torch.nn.Identity()),
        norm,
    )
    assert_parity(tiny.sentence_folder(tmp_path / "source", modules=modules), tmp_path)
    assert_parity(tmp_path / "source" / "model", tmp_path, precision="int8")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_static_embedding_matches_source(precision: str, tmp_path: Path) -> None:
    assert_parity(tiny.static_folder(tmp_path / "source"), tmp_path, precision=precision)


def test_prompts_are_applied_by_kind(tmp_path: Path) -> None:
    prompts = {"query": "search: ", "document": "text: "}
    folder = tiny.sentence_folder(tmp_path / "source", prompts=prompts)
    bundle = export(str(folder), tmp_path / "bundle", Recipe(dim=16, precision="fp32")).path
    with Encoder.open(bundle) as encoder:
        for kind in ("query", "document"):
            got = encoder.encode(TEXTS, kind=kind).full
            np.testing.assert_allclose(got, encode_source(folder, kind), atol=FP32_TOLERANCE)
        assert encoder.manifest.prompts == prompts


def test_layer_norm_comes_before_the_cut(tmp_path: Path) -> None:
    torch.manual_seed(3)
    dense = Dense(tiny.WIDTH, 24)  # without it, BERT's own last layer norm leaves nothing to centre
    folder = tiny.sentence_folder(tmp_path / "source", modules=(dense,))
    recipe = Recipe(dim=16, precision="fp32", layer_norm=True, head="prefix")
    bundle = export(str(folder), tmp_path / "bundle", recipe).path
    full = torch.from_numpy(encode_source(folder))
    # The published recipe: layer norm, cut, normalise. Its eps matters at this length of vector, so none.
    normed = torch.nn.functional.layer_norm(full, (full.shape[1],), eps=0)
    expected = torch.nn.functional.normalize(normed[:, :16], dim=1).numpy()
    with Encoder.open(bundle) as encoder:
        codes = encoder.encode(TEXTS).coarse
    assert np.abs(codes - np.rint(expected * 127)).max() <= 1
    plain = ideal_codes(full.numpy(), dim=16, layer_norm=False, scale=1.0)
    assert np.abs(codes.astype(int) - plain).max() > 3  # the test can tell them apart
