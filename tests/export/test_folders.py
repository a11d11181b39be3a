"""Model folders as people have them: prompts, ids beyond the table, lost and damaged files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from edge_mrl.cli import main
from edge_mrl.encode.encoder import Encoder
from edge_mrl.errors import UsageError
from edge_mrl_export import build
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.source import prompts as prompts_module
from edge_mrl_export.source.loading import load_source
from tests.support import tiny

pytestmark = pytest.mark.test

TEXTS = ["the cat", "a Dog barking, and nobody came", "0 1 2", ""]
SETTINGS = "config_sentence_transformers.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentence_folder(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(whole, tmp_path / "model")
    return tmp_path / "model"


def set_prompts(folder: Path, prompts: Any, **more: Any) -> None:
    tiny.edit_json(folder / SETTINGS, prompts=prompts, **more)


MIXES: list[tuple[dict[str, Any], str | None]] = [
    ({"query": "query: ", "document": ""}, "query"),
    ({"query": "", "document": "text: "}, "document"),
    ({"query": "q: ", "document": "d: ", "other": "o: "}, "other"),
    ({"query": "", "document": "", "s2p_query": "Instruct: find\nQuery: "}, None),
    ({"query": "q: ", "document": "", "passage": "p: "}, None),
    ({"x": "both: "}, "x"),
    ({}, None),
]


@pytest.mark.parametrize(("prompts", "default"), MIXES)
def test_prompts_are_those_of_encode_query_and_encode_document(
    prompts: dict[str, Any], default: str | None, folder: Path
) -> None:
    set_prompts(folder, prompts, default_prompt_name=default)
    source = load_source(str(folder))
    model = SentenceTransformer(str(folder), device="cpu")
    for kind, encode in (("query", model.encode_query), ("document", model.encode_document)):
        wanted = encode(TEXTS, normalize_embeddings=True)
        got = source.encode(TEXTS, kind=kind, max_tokens=source.max_tokens)
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    notes = " ".join(source.notes)
    for name, text in prompts.items():
        assert not text or text in source.prompts.values() or f"{name} (" in notes


def test_a_guessed_prompt_would_show(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sabotage twin of the test above."""
    set_prompts(folder, MIXES[0][0], default_prompt_name="query")
    monkeypatch.setattr(prompts_module, "_used_by_library", lambda *_: "query: ")
    wanted = SentenceTransformer(str(folder), device="cpu").encode_document(TEXTS)
    got = load_source(str(folder)).encode(TEXTS, kind="document", max_tokens=48)
    assert np.abs(got - wanted / np.linalg.norm(wanted, axis=1, keepdims=True)).max() > 0.01


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("search_query", "search_document"),
        ("query", "passage"),
        ("retrieval.query", "retrieval.passage"),
        ("Retrieval-query", "Retrieval-document"),
        ("web_search_query", "corpus"),
    ],
)
def test_prompts_under_other_names_are_used_and_named(
    query: str, document: str, folder: Path
) -> None:
    set_prompts(folder, {query: "q: ", document: "d: ", "clustering": "c: "})
    source = load_source(str(folder))
    assert source.prompts == {"query": "q: ", "document": "d: "}
    notes = " ".join(source.notes)
    assert f"the prompt {document!r} is put before each document" in notes
    assert "clustering ('c: ')" in notes


def test_given_prompts_come_first_by_text_or_name(folder: Path) -> None:
    set_prompts(folder, {"query": "q: ", "document": "", "s2s": "same: "})
    source = load_source(str(folder), prompts={"query": "s2s", "document": "passage: "})
    assert source.prompts == {"query": "same: ", "document": "passage: "}
    assert any("query ('q: ')" in note for note in source.notes)
    none = load_source(str(folder), prompts={"query": ""})
    assert none.prompts == {"query": "", "document": ""}


def test_given_prompts_reach_the_bundle(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        dim=16, precision="fp32", head="prefix", query_prompt="query: ", document_prompt="passage: "
    )
    bundle = build.export(str(folder), tmp_path / "bundle", recipe).path
    model = SentenceTransformer(str(folder), device="cpu")
    with Encoder.open(bundle) as encoder:
        assert encoder.manifest.prompts == {"document": "passage: ", "query": "query: "}
        wanted = model.encode(TEXTS, prompt="query: ", normalize_embeddings=True)
        np.testing.assert_allclose(encoder.encode(TEXTS, kind="query").full, wanted, atol=1e-5)


def test_a_card_that_speaks_of_prefixes_is_noted(folder: Path) -> None:
    assert not any("prefix" in n or "card" in n for n in load_source(str(folder)).notes)
    (folder / "README.md").write_text('Put "query: " before each question.', "utf-8")
    (folder / SETTINGS).unlink()
    assert any("--query-prompt" in note for note in load_source(str(folder)).notes)


def test_tokens_beyond_the_table_are_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_tokens(["[URL]", "[USER]"])
    tokenizer.save_pretrained(str(folder))
    result = build.export(
        str(folder), tmp_path / "bundle", Recipe(dim=16, precision="fp32", head="prefix")
    )
    assert any("without [URL], [USER]" in note for note in result.report["notes"])
    with Encoder.open(result.path) as encoder:
        rows = encoder.tokenize(["please open [URL] now, [USER]"])
        assert max(rows[0]) < 92
        assert np.isfinite(encoder.encode(["please open [URL] now"]).full).all()  # type: ignore[arg-type]


def test_words_beyond_the_table_are_divided(folder: Path) -> None:
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    data["model"]["vocab"]["zebra"] = 92
    (folder / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    source = load_source(str(folder))
    assert source.encode(["a zebra"], kind="document", max_tokens=48).shape == (1, tiny.WIDTH)
    assert any("zebra" in note for note in source.notes)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    data["post_processor"]["special_tokens"]["<s>"]["ids"] = [400]
    data["added_tokens"].append({**data["added_tokens"][0], "id": 400, "content": "<begin>"})
    (folder / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    with pytest.raises(UsageError, match="do not belong together"):
        load_source(str(folder))


def data2vec(target: Path, whole: Path) -> Path:
    """A type of model that counts positions from behind its padding, and has no limit in its files."""
    shutil.copytree(whole, target)
    config = transformers.Data2VecTextConfig(
        vocab_size=92,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=1,
    )
    torch.manual_seed(7)
    transformers.AutoModel.from_config(config).save_pretrained(str(target))
    tiny.edit_json(target / "tokenizer_config.json", model_max_length=10**20)
    (target / "sentence_bert_config.json").unlink()
    return target


def test_the_longest_input_is_found_by_running_it(whole: Path, tmp_path: Path) -> None:
    source = load_source(str(data2vec(tmp_path / "model", whole)))
    assert (source.max_tokens, source.max_positions) == (64, 64)
    long = source.encode(["word " * 300], kind="document", max_tokens=64)
    assert np.isfinite(long).all()


def _without(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _holding(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_text(text, "utf-8"))


def _with(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: tiny.edit_json(folder / name, **changes)


def void(_: object) -> None:
    """Nothing."""


def _fewer_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no pooling folder": _without("1_Pooling"),
    "no pooling settings": _without("1_Pooling/config.json"),
    "no weights": _without("model.safetensors"),
    "no config": _without("config.json"),
    "fewer weights": _fewer_weights,
    "modules.json is text": _holding("modules.json", "hello"),
    "modules.json is a list of numbers": _holding("modules.json", "[1, 2]"),
    "config.json is a list": _holding("config.json", "[]"),
    "config.json is a number": _holding("config.json", "7"),
    "config.json is not UTF-8": lambda f: void((f / "config.json").write_bytes(b"\xff\xfe{}")),
    "tokenizer.json is empty": _holding("tokenizer.json", ""),
    "tokenizer.json is an object": _holding("tokenizer.json", "{}"),
    "prompts are a list": _with(SETTINGS, prompts=["query: "]),
    "a prompt is a number": _with(SETTINGS, prompts={"query": 7}),
    "settings are a list": _holding(SETTINGS, "[]"),
    "an unknown pooling": _with("1_Pooling/config.json", pooling_mode="best"),
    "an unknown key of pooling": _with("1_Pooling/config.json", colour="red"),
    "another width": _with("config.json", hidden_size=48),
    "no heads": _with("config.json", num_attention_heads=0),
    "a word for a number": _with("config.json", num_hidden_layers="two"),
    "another type": _with("config.json", model_type="t5"),
    "an unknown default": _with(SETTINGS, default_prompt_name="nothing"),
    "quantised weights": _with(
        "config.json", quantization_config={"quant_method": "gptq", "bits": 4}
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_gives_one_line(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGE[name](folder)
    argv = ["export", str(folder), "--fp32", "--head", "prefix", "--dim", "8", "--json"]
    code = main([*argv, "-o", str(tmp_path / "out")])
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert code == 2
    assert "\n" not in error["message"]
    assert len(error["message"]) > 20
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "lost",
    [
        "modules.json",
        "1_Pooling/config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "sentence_bert_config.json",
        SETTINGS,
        "config.json",
    ],
)
def test_a_lost_file_changes_no_vector(lost: str, tmp_path: Path) -> None:
    """The result equals the whole model's, or is refused: never a guess that others contradict."""
    folder = tiny.sentence_folder(tmp_path / "source", pooling="cls")
    model = SentenceTransformer(str(folder), device="cpu")
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    if not (folder / lost).exists():
        pytest.skip("not written by this version of the library")
    (folder / lost).unlink()
    try:
        source = load_source(str(folder))
    except UsageError:
        return
    got = source.encode(TEXTS, kind="document", max_tokens=48)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_lost_list_of_modules_is_refused_unless_the_guess_is_right(
    whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "mean")
    (tmp_path / "mean" / "modules.json").unlink()
    assert load_source(str(tmp_path / "mean")).baked()[0] == "mean pooling"
    tiny.edit_json(tmp_path / "mean" / "1_Pooling" / "config.json", pooling_mode="cls")
    with pytest.raises(UsageError, match=r"no modules\.json, but 1_Pooling"):
        load_source(str(tmp_path / "mean"))


def test_an_error_that_nobody_foresaw_is_one_line_with_its_stage(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise TypeError("no such thing\nsecond line")

    monkeypatch.setattr(build, "source_graph", broken)
    with pytest.raises(
        UsageError, match="TypeError at the stage 'trace and fuse': no such thing"
    ) as found:
        build.export(
            str(whole), tmp_path / "bundle", Recipe(dim=8, precision="fp32", head="prefix")
        )
    assert "second" not in str(found.value)
