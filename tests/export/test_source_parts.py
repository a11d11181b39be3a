"""Parts of a source model: its card, its files, its weights' sizes, and how its library encodes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from edge_mrl.errors import UsageError
from edge_mrl_export.bundle.sizes import usual_sizes
from edge_mrl_export.source.batches import BATCH_LETTERS, BATCH_TEXTS, encode_texts
from edge_mrl_export.source.json_files import read_json
from edge_mrl_export.source.model_card import read_licence, read_mrl_dims
from edge_mrl_export.source.source import Source


def card(folder: Path, front: str, body: str = "") -> Path:
    (folder / "README.md").write_text(f"---\n{front}\n---\n{body}", "utf-8")
    return folder


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: apache-2.0", "apache-2.0"),
        ("tags:\n- x\nlicense: 'mit'", "mit"),
        ("license:", "unknown"),
        ("tags: []", "unknown"),
    ],
)
def test_licence_is_the_cards(front: str, licence: str, tmp_path: Path) -> None:
    assert read_licence(card(tmp_path, front)) == licence


def test_licence_is_unknown_without_front_matter(tmp_path: Path) -> None:
    assert read_licence(tmp_path) == "unknown"
    (tmp_path / "README.md").write_text("license: mit\n", "utf-8")  # not between the lines
    assert read_licence(tmp_path) == "unknown"


def test_matryoshka_sizes_come_from_config_before_card(tmp_path: Path) -> None:
    assert read_mrl_dims(tmp_path) is None
    card(tmp_path, "tags:\n- Matryoshka")
    assert read_mrl_dims(tmp_path) == ()
    card(tmp_path, "tags: []", '```json\n{"matryoshka_dims": [256, 64, 64]}\n```')
    assert read_mrl_dims(tmp_path) == (64, 256)
    config = {"deep": {"matryoshka_dimensions": [32, 128]}}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    assert read_mrl_dims(tmp_path) == (32, 128)
    (tmp_path / "config.json").write_text('{"mrl_dims": "many"}', "utf-8")
    assert read_mrl_dims(tmp_path) == (64, 256)  # what is no list of sizes is left to others


def test_json_files_are_read_or_named(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") == {}
    (tmp_path / "list.json").write_text("[1]", "utf-8")
    assert read_json(tmp_path / "list.json") == [1]
    (tmp_path / "bad.json").write_text("{", "utf-8")
    with pytest.raises(UsageError, match=r"bad\.json is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_sizes_count_matrices_apart_from_the_rest() -> None:
    tensors = [
        ("table", np.zeros((10, 4), np.float32)),
        ("bias", np.zeros(4, np.float32)),
        ("ids", np.zeros(100, np.int64)),  # no weight
    ]
    source: Any = SimpleNamespace(tensors=lambda: iter(tensors))
    assert usual_sizes(source) == {
        "parameters": 44,
        "fp32": 176,
        "fp16": 88,
        "stock_int8": 40 + 4 * 4,
    }


class Recorder(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Gives each text a vector that tells it apart, and remembers the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    def preprocess(self, texts: list[str], prompt: str) -> dict[str, Any]:
        self.batches.append(texts)
        values = [[float(len(prompt + text)), 1.0] for text in texts]
        return {"sentence_embedding": torch.tensor(values)}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return features


def test_batches_hold_texts_of_similar_length_and_give_them_back_in_order() -> None:
    model: Any = Recorder()
    texts = ["x" * (1 + 37 * row % 400) for row in range(150)]
    threads = torch.get_num_threads()
    vectors = encode_texts(model, texts, "ab", padded=True)
    assert torch.get_num_threads() == threads
    lengths = np.array([len(text) + 2 for text in texts])
    np.testing.assert_allclose(vectors[:, 0] / vectors[:, 1], lengths, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert sorted(text for batch in model.batches for text in batch) == sorted(texts)
    for batch in model.batches:
        assert len(batch) <= BATCH_TEXTS
        assert len(batch) * max(map(len, batch)) <= BATCH_LETTERS or len(batch) == 1
    assert len(model.batches) < len(texts) / 4


def test_texts_that_must_not_be_padded_are_encoded_one_by_one() -> None:
    model: Any = Recorder()
    encode_texts(model, ["a", "bb", "ccc"], "", padded=False)
    assert sorted(map(len, model.batches)) == [1, 1, 1]


def _source(module: torch.nn.Module) -> SimpleNamespace:
    return SimpleNamespace(tensors=list, modules=[module], tokenizer={}, prompts={})


class _Newer(torch.nn.Module):
    """A module whose library says more of it than the release before."""

    def __init__(self, plain: torch.nn.Module, **more: object) -> None:
        super().__init__()
        self.said = {**_said(plain), **more}

    def get_config_dict(self) -> dict[str, object]:
        return self.said


def _said(module: torch.nn.Module) -> dict[str, object]:
    found: dict[str, object] = getattr(module, "get_config_dict", dict)()
    return {key: value for key, value in found.items() if key != "use_residual"}


@pytest.mark.parametrize(
    ("module", "more", "other"),
    [
        (Normalize(), dict.fromkeys(("module_input_name", "module_output_name"), "sentence_embedding"),
         {"module_input_name": "token_embeddings"}),
        (Dense(8, 4), {"use_residual": False}, {"use_residual": True}),
    ],
)  # fmt: skip
def test_space_is_that_of_either_release_of_the_library(
    module: torch.nn.Module, more: dict[str, object], other: dict[str, object]
) -> None:
    as_named = type(type(module).__name__, (_Newer,), {})
    older, newer, another = (
        Source.space_id(cast("Source", _source(one)))
        for one in (as_named(module), as_named(module, **more), as_named(module, **other))
    )
    assert older == newer != another
