"""What cannot be exported: one clear error that names it, and nothing left on disk."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
    WeightedLayerPooling,
)

from edge_mrl.encode.verification import verify
from edge_mrl.errors import EdgeMrlError, GateError, NetworkError, UsageError
from edge_mrl_export.build import export
from edge_mrl_export.recipe import Recipe
from tests.support import tiny

pytestmark = pytest.mark.test


def refused(
    model: Path | str,
    tmp_path: Path,
    match: str,
    *,
    error: type[EdgeMrlError] = UsageError,
    recipe: Recipe | None = None,
) -> None:
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    with pytest.raises(error, match=match):
        export(str(model), place / "bundle", recipe or Recipe(dim=8, precision="fp32"))
    assert list(place.iterdir()) == []


def test_dim_above_the_models_names_both(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    refused(folder, tmp_path, "33.*32", recipe=Recipe(dim=33))


def test_max_tokens_above_the_positions_names_both(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    refused(folder, tmp_path, "65.*64 positions", recipe=Recipe(dim=8, max_tokens=65))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"dim": 0}, "--dim is 0"),
        ({"precision": "int2"}, "int2"),
        ({"max_tokens": 1}, "--max-tokens is 1"),
        ({"prune_vocab": 100}, "--corpus"),
    ],
)
def test_recipe_is_checked(settings: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Recipe(**settings)  # type: ignore[arg-type]


def test_unsupported_module_is_named(tmp_path: Path) -> None:
    plain = tiny.transformer_folder(tmp_path / "plain", "bert")
    first = Transformer(str(plain))
    odd = WeightedLayerPooling(tiny.WIDTH, num_hidden_layers=2)
    model = SentenceTransformer(modules=[first, odd, Pooling(tiny.WIDTH)], device="cpu")
    model.save(str(tmp_path / "source"), create_model_card=False)
    refused(tmp_path / "source", tmp_path, "WeightedLayerPooling")


def test_unsupported_activation_is_named(tmp_path: Path) -> None:
    dense = Dense(tiny.WIDTH, 16, activation_function=torch.nn.Hardswish())
    folder = tiny.sentence_folder(tmp_path / "source", modules=(dense,))
    refused(folder, tmp_path, "Hardswish")


def test_late_interaction_is_refused(tmp_path: Path) -> None:
    dense = Dense(tiny.WIDTH, 16, module_input_name="token_embeddings")
    plain = tiny.transformer_folder(tmp_path / "plain", "bert")
    model = SentenceTransformer(
        modules=[Transformer(str(plain)), dense, Pooling(16), Normalize()], device="cpu"
    )
    model.save(str(tmp_path / "source"), create_model_card=False)
    refused(tmp_path / "source", tmp_path, "token_embeddings")


def test_module_from_the_models_repository_is_refused(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules[1]["type"] = "custom_code.MyPooling"
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    refused(folder, tmp_path, "custom_code.MyPooling.*trust_remote_code")


def test_remote_code_model_is_refused(tmp_path: Path) -> None:
    folder = tiny.transformer_folder(tmp_path / "source", "bert")
    tiny.edit_json(
        folder / "config.json", model_type="shiny_bert", auto_map={"AutoModel": "modeling.Shiny"}
    )
    refused(folder, tmp_path, "shiny_bert.*trust_remote_code")


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])
def test_decoder_without_embedding_recipe_is_refused(architecture: str, tmp_path: Path) -> None:
    folder = tiny.transformer_folder(tmp_path / "source", architecture)
    refused(folder, tmp_path, "decoder.*modules.json")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_not_finite_is_named(value: float, tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][3, 4] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, tmp_path, r"encoder\.layer\.1\.output\.dense\.weight.*1 values")


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, tmp_path, "cannot be loaded")


def test_folder_without_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path, "neither modules.json nor config.json")


def test_prompt_kept_out_of_pooling_is_refused(tmp_path: Path) -> None:
    prompts = {"query": "search: "}
    folder = tiny.sentence_folder(tmp_path / "source", prompts=prompts, include_prompt=False)
    refused(folder, tmp_path, "include_prompt")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "no such model", "missing.onnx"])
def test_missing_path_is_no_hub_id(name: str, tmp_path: Path) -> None:
    refused(name, tmp_path, "no such folder or file")


def test_other_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"abc")
    refused(tmp_path / "weights.bin", tmp_path, "not an .onnx file")


def test_unreachable_hub_is_a_network_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound, and not listening: connections are refused at once
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for module in ("huggingface_hub.constants", "huggingface_hub.hf_api"):
            monkeypatch.setattr(f"{module}.ENDPOINT", endpoint, raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        refused("someone/some-model", tmp_path, "hub cannot be reached", error=NetworkError)


def test_bundle_below_a_gate_is_not_written(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    refused(
        folder,
        tmp_path,
        "cosine_mean.*--int8",
        error=GateError,
        recipe=Recipe(dim=8, precision="int4"),
    )
    with pytest.raises(GateError):
        export(str(folder), tmp_path / "new" / "deep" / "bundle", Recipe(dim=8, precision="int4"))
    assert not (tmp_path / "new").exists()
    allowed = Recipe(dim=8, precision="int4", allow_low_fidelity=True)
    result = export(str(folder), tmp_path / "deep" / "bundle", allowed)
    assert verify(result.path).passed
    assert result.fidelity.cosine_mean < 0.998
    assert result.manifest.quality["cosine_mean"] == result.fidelity.cosine_mean


def test_existing_bundle_is_kept_without_force(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    recipe = Recipe(dim=8, precision="fp32")
    first = export(str(folder), tmp_path / "bundle", recipe)
    with pytest.raises(UsageError, match="--force"):
        export(str(folder), tmp_path / "bundle", Recipe(dim=16, precision="fp32"))
    assert export(str(folder), first.path, Recipe(dim=16), force=True).manifest.dim == 16
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "source"]


def test_existing_bundle_survives_a_failed_replacement(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    first = export(str(folder), tmp_path / "bundle", Recipe(dim=8, precision="fp32"))
    before = (first.path / "edge_mrl.json").read_bytes()
    with pytest.raises(GateError):
        export(str(folder), first.path, Recipe(dim=8, precision="int4"), force=True)
    assert (first.path / "edge_mrl.json").read_bytes() == before


def test_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    with pytest.raises(UsageError, match="not a bundle"):
        export(str(folder), tmp_path / "photos", Recipe(dim=8), force=True)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"meow"
