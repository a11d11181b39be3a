"""``.onnx`` files of other exporters: each kind is compared with the model that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from sentence_transformers import SentenceTransformer

from edge_mrl.errors import GateError, UsageError
from edge_mrl_export import build
from edge_mrl_export.graph.passes.inputs import FoldInputs
from edge_mrl_export.graph.passes.vocabulary import SelectRows
from edge_mrl_export.graph.tracing import source_graph
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.source import Source
from edge_mrl_export.source.loading import load_source
from edge_mrl_export.texts import choose_vocabulary
from tests.support import tiny
from tests.support.onnx_files import to_hub_cache, to_onnx, with_external_data

pytestmark = pytest.mark.test

TEXTS = ["the cat", "a dog barking, and nobody came", "0 1 2", "", "the training of a model " * 5]
RECIPE = Recipe(dim=16, precision="fp32", head="prefix")
FP32_TOLERANCE, FP16_TOLERANCE = 1e-5, 2e-3


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentence_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentence_folder(tmp_path_factory.mktemp("roberta"), "roberta")


def expected(folder: Path) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    return np.asarray(model.encode(TEXTS, normalize_embeddings=True))


def graph_vectors(source: Source, folder: Path) -> np.ndarray:
    """Token embeddings of the adopted graph, pooled here: all texts in one padded batch."""
    model = source_graph(source, folder)
    FoldInputs(source.first_position)(model)
    rows = source.reference[0].preprocess(TEXTS)
    ids, mask = rows["input_ids"].numpy(), rows["attention_mask"].numpy()
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    hidden = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))


def assert_equal(
    path: Path, folder: Path, scratch: Path, *, atol: float = FP32_TOLERANCE
) -> Source:
    """Both the reference, which runs the file as it is, and the graph give what the model gives."""
    scratch.mkdir(exist_ok=True)
    source = load_source(str(path))
    wanted = expected(folder)
    got = source.encode(TEXTS, kind="document", max_tokens=source.max_tokens)
    np.testing.assert_allclose(got, wanted, atol=atol)
    np.testing.assert_allclose(graph_vectors(source, scratch), wanted, atol=atol)
    return source


@pytest.mark.parametrize(
    "opset",
    [
        11,
        13,
        20,
        *(pytest.param(n, marks=pytest.mark.nightly) for n in (12, 14, 15, 16, 17, 18, 19)),
    ],
)
def test_operators_of_any_version(opset: int, bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model", opset=opset)
    source = assert_equal(path, bert, tmp_path / "scratch")
    assert source_graph(source, tmp_path / "scratch").graph.opset_imports[""] >= 18


def test_inputs_of_32_bits(bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model", opset=14, ids=torch.int32)
    source = assert_equal(path, bert, tmp_path / "scratch")
    assert source.token_rows == 92
    model = source_graph(source, tmp_path)
    FoldInputs()(model)
    SelectRows(np.arange(50))(model)  # the table is still found


@pytest.mark.parametrize("keep_io_types", [True, False])
def test_half_precision(keep_io_types: bool, bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model")
    half = convert_float_to_float16(onnx.load(str(path)), keep_io_types=keep_io_types)
    onnx.save(half, str(path))
    assert_equal(path, bert, tmp_path / "scratch", atol=FP16_TOLERANCE)


@pytest.mark.parametrize("shape", [(1, 48), (2, 48), (1, 32)])
def test_fixed_sizes(shape: tuple[int, int], bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model", static=shape)
    source = load_source(str(path))
    assert source.max_tokens == shape[1]  # 32 is also the width: what is cut goes by its place
    if shape[1] == 48:
        assert_equal(path, bert, tmp_path / "scratch")
    else:
        got = source.encode(TEXTS[:4], kind="document", max_tokens=32)
        np.testing.assert_allclose(got, expected(bert)[:4], atol=FP32_TOLERANCE)


def test_fixed_sizes_that_cannot_be_loosened_are_refused(bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model", static=(1, 48))
    model = onnx.load(str(path))
    output = model.graph.output[0].name
    odd = onnx.numpy_helper.from_array(np.array([4, 12, 32]), "odd")
    back = onnx.numpy_helper.from_array(np.array([1, 48, 32]), "back")
    model.graph.output[0].name = "final"
    model.graph.initializer.extend([odd, back])
    model.graph.node.extend(
        [
            onnx.helper.make_node("Reshape", [output, "odd"], ["halves"]),
            onnx.helper.make_node("Sin", ["halves"], ["waves"]),
            onnx.helper.make_node("Reshape", ["waves", "back"], ["final"]),
        ]
    )
    onnx.save(model, str(path))
    with pytest.raises(UsageError, match=r"fixed shape \[1, 48\].*dynamic axes"):
        source_graph(load_source(str(path)), tmp_path)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet"])
def test_positions_as_input_count_as_the_models_do(architecture: str, tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source", architecture)
    path = to_onnx(folder, tmp_path / "model", positions=True)
    source = assert_equal(path, folder, tmp_path / "scratch")
    assert source.first_position == (0 if architecture == "bert" else 2)


def test_positions_of_an_unknown_model_are_refused(roberta: Path, tmp_path: Path) -> None:
    path = to_onnx(roberta, tmp_path / "model", positions=True)
    tiny.edit_json(path.parent / "config.json", model_type="shiny")
    with pytest.raises(UsageError, match=r"position_ids.*config\.json"):
        load_source(str(path))


def test_a_wrong_position_shows_in_the_gate(
    roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sabotage twin: the reference does not share what the graph assumes."""
    path = to_onnx(roberta, tmp_path / "model", positions=True)
    monkeypatch.setattr(build, "FoldInputs", lambda _: FoldInputs(0))
    with pytest.raises(GateError, match="please report"):
        build.export(str(path), tmp_path / "bundle", RECIPE)


def test_links_of_a_hubs_cache(bert: Path, tmp_path: Path) -> None:
    path = with_external_data(to_onnx(bert, tmp_path / "repository"))
    (path.parent / "onnx").mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        (path.parent / name).rename(path.parent / "onnx" / name)
    linked = to_hub_cache(path.parent, tmp_path / "cache") / "onnx" / "model.onnx"
    source = assert_equal(linked, bert, tmp_path / "scratch")
    assert (source.name, source.model) == ("tiny", "me/tiny/onnx/model.onnx")


def test_links_to_a_folder(bert: Path, tmp_path: Path) -> None:
    snapshot = to_hub_cache(bert, tmp_path / "cache")
    source = load_source(str(snapshot))
    assert (source.name, source.model) == ("tiny", "me/tiny")
    (tmp_path / "mine").symlink_to(snapshot)
    assert load_source(str(tmp_path / "mine")).space_id() == source.space_id()


@pytest.mark.parametrize("place", ["../weights", "/weights"])
def test_weights_outside_the_folder_are_refused(place: str, bert: Path, tmp_path: Path) -> None:
    path = with_external_data(to_onnx(bert, tmp_path / "model"))
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="outside its own folder"):
        load_source(str(path))


def test_weights_that_are_missing_are_named(bert: Path, tmp_path: Path) -> None:
    path = with_external_data(to_onnx(bert, tmp_path / "model"))
    (path.parent / "model.onnx_data").unlink()
    with pytest.raises(UsageError, match=r"model\.onnx_data, which is missing"):
        load_source(str(path))


def test_one_of_several_outputs_is_taken_or_named(bert: Path, tmp_path: Path) -> None:
    names = ("cls", "other", "sentence_embedding", "last_hidden_state")
    path = to_onnx(bert, tmp_path / "model", outputs=names)
    source = assert_equal(path, bert, tmp_path / "scratch")
    assert any("last_hidden_state is taken" in note for note in source.notes)
    model = SentenceTransformer(str(bert), device="cpu")
    model[1].pooling_mode = "cls"
    named = load_source(str(path), output="cls")
    got = named.encode(TEXTS, kind="document", max_tokens=48)
    hidden = load_source(str(path), output="other", pooling="cls")
    assert (named.transformer.pooled, hidden.transformer.pooled) == (True, False)
    again = hidden.encode(TEXTS, kind="document", max_tokens=48)
    np.testing.assert_allclose(got, again, atol=FP32_TOLERANCE)  # other is twice the hidden state
    with pytest.raises(UsageError, match=r"--output-name is nothing.*sentence_embedding"):
        load_source(str(path), output="nothing")
    with pytest.raises(UsageError, match="--pooling is for outputs"):
        load_source(str(path), output="cls", pooling="mean")
    (path.parent / "modules.json").unlink()
    alone = load_source(str(path))  # nobody says how to pool: the graph's own pooling is taken
    np.testing.assert_allclose(
        alone.encode(TEXTS, kind="document", max_tokens=48), expected(bert), atol=FP32_TOLERANCE
    )


def test_no_output_with_embeddings_is_refused(bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model")
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.output[:] = ["logits" if n == "last_hidden_state" else n for n in node.output]
    model.graph.output[0].name = "logits"
    onnx.save(model, str(path))
    with pytest.raises(UsageError, match=r"logits.*--output-name"):
        load_source(str(path))
    assert load_source(str(path), output="logits").width == tiny.WIDTH


def test_other_inputs_are_named(bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model")
    model = onnx.load(str(path))
    model.graph.input.append(onnx.helper.make_tensor_value_info("pixels", 1, ["b", 3, 4]))
    onnx.save(model, str(path))
    with pytest.raises(UsageError, match=r"pixels float\['b', 3, 4\]"):
        load_source(str(path))


def _behind_cast(model: onnx.ModelProto) -> None:
    """Store each matrix as int8, with a Cast and a factor behind it."""
    graph = model.graph
    for tensor in [t for t in graph.initializer if len(t.dims) == 2]:
        array = onnx.numpy_helper.to_array(tensor)
        step = np.float32(np.abs(array).max() / 127)
        name = tensor.name
        tensor.CopyFrom(
            onnx.numpy_helper.from_array((array / step).astype(np.int8), f"{name}/codes")
        )
        graph.initializer.append(onnx.numpy_helper.from_array(step, f"{name}/step"))
        cast = onnx.helper.make_node("Cast", [f"{name}/codes"], [f"{name}/wide"], to=1)
        scale = onnx.helper.make_node("Mul", [f"{name}/wide", f"{name}/step"], [name])
        graph.node.insert(0, scale)
        graph.node.insert(0, cast)


def _unpacked(model: onnx.ModelProto) -> None:
    """An operator that unpacks weights, as quantisers write it."""
    graph = model.graph
    node = onnx.helper.make_node("DequantizeLinear", ["codes", "step"], ["unused"])
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(4, np.int8), "codes"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "step"))
    graph.node.append(node)


@pytest.mark.parametrize(
    ("change", "match"),
    [(_behind_cast, "weights of type int8"), (_unpacked, "DequantizeLinear")],
)
def test_quantised_weights_are_named(change: Any, match: str, bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model")
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))
    with pytest.raises(UsageError, match=f"already quantised.*{match}"):
        load_source(str(path))


def test_a_claimed_length_is_cut_to_what_runs(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source", "roberta")  # 64 rows, counted from 2
    path = to_onnx(folder, tmp_path / "model")
    tiny.edit_json(path.parent / "sentence_bert_config.json", max_seq_length=64)
    source = load_source(str(path))
    assert (source.max_tokens, source.max_positions) == (62, 62)
    assert any("claim 64 tokens" in note for note in source.notes)


def test_a_graph_without_a_table_keeps_its_whole_vocabulary(bert: Path, tmp_path: Path) -> None:
    path = to_onnx(bert, tmp_path / "model")
    model = onnx.load(str(path))
    lookup = next(
        n for n in model.graph.node if n.op_type == "Gather" and n.input[1] == "input_ids"
    )
    table = lookup.input[0]
    zero = onnx.numpy_helper.from_array(np.float32(1), "one")
    model.graph.initializer.append(zero)
    lookup.input[0] = "computed"
    model.graph.node.insert(0, onnx.helper.make_node("Mul", [table, "one"], ["computed"]))
    onnx.save(model, str(path))
    source = load_source(str(path))
    assert source.token_rows is None
    tokenizer = source.tokenizer
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["[unused0]"] = vocabulary.pop("##z")  # no text can produce it
    assert choose_vocabulary(tokenizer, [], None).kept is not None
    assert choose_vocabulary(tokenizer, [], None, table=False).kept is None
