"""Options and properties of an export, on small models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from sentence_transformers import SentenceTransformer

from edge_mrl.bundle.manifest import GRAPH, HEAD, WEIGHTS, read_manifest
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import cosines, verify
from edge_mrl.errors import UsageError
from edge_mrl_export import build
from edge_mrl_export.bundle.gates import GATES
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.source.loading import load_source
from tests.support import tiny
from tests.support.tiny import export

pytestmark = pytest.mark.test

FP32_TOLERANCE = 1e-5
TEXTS = ["the cat", "a dog barking", "0 1 2", "the training of a model and the testing of it"]


def files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.parametrize("precision", ["int8", "int4", "fp32"])
def test_equal_inputs_give_equal_bytes(precision: str, tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    recipe = Recipe(dim=16, precision=precision, allow_low_fidelity=True)
    first = build.export(str(folder), tmp_path / "one", recipe).path
    second = build.export(str(folder), tmp_path / "two", recipe).path
    assert files(first) == files(second)


def test_bundle_names_no_path_of_this_machine(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    bundle = build.export(str(folder), tmp_path / "bundle", Recipe(dim=16)).path
    for name, data in files(bundle).items():
        assert str(tmp_path).encode() not in data, name


def test_weights_are_outside_the_graph_and_aligned(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    bundle = export(str(folder), tmp_path / "bundle", Recipe(dim=16)).path
    graph = onnx.load(bundle / GRAPH, load_external_data=False).graph
    external = [t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert external
    for tensor in external:
        entry = {item.key: item.value for item in tensor.external_data}
        assert entry["location"] in (WEIGHTS, HEAD)
        assert int(entry["offset"]) % 64 == 0
    assert all(len(t.raw_data) < 1024 for t in graph.initializer if t not in external)


@pytest.mark.parametrize("dim", [1, 7, 32])
def test_any_dim_up_to_the_models_works(dim: int, tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    bundle = export(
        str(folder), tmp_path / "bundle", Recipe(dim=dim, precision="fp32", head="prefix")
    ).path
    with Encoder.open(bundle) as encoder:
        encoding = encoder.encode(TEXTS)
    assert encoding.full is not None
    prefix = encoding.full[:, :dim] / np.linalg.norm(encoding.full[:, :dim], axis=1, keepdims=True)
    assert np.abs(encoding.coarse - np.rint(prefix * 127)).max() <= 1
    assert np.abs(encoding.coarse.astype(int)).max() > 20


def test_coarse_only_gives_the_same_codes(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    both = export(str(folder), tmp_path / "both", Recipe(dim=16))
    alone = export(str(folder), tmp_path / "alone", Recipe(dim=16, coarse_only=True))
    with Encoder.open(both.path) as left, Encoder.open(alone.path) as right:
        assert (left.encode(TEXTS).coarse == right.encode(TEXTS).coarse).all()
        assert right.encode(TEXTS).full is None
    assert alone.manifest.full_dim is None
    assert alone.manifest.code_id == both.manifest.code_id
    assert verify(alone.path).passed


def test_max_tokens_truncates_as_the_source_does(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    recipe = Recipe(dim=16, precision="fp32", max_tokens=9)
    bundle = export(str(folder), tmp_path / "bundle", recipe).path
    source = SentenceTransformer(str(folder), device="cpu")
    source.max_seq_length = 9
    long = ["the quick brown fox jumps over the lazy dog " * 9]
    with Encoder.open(bundle) as encoder:
        assert len(encoder.tokenize(long)[0]) == 9
        got = encoder.encode(long).full
    expected = source.encode(long, normalize_embeddings=True)
    np.testing.assert_allclose(got, expected, atol=FP32_TOLERANCE)


def test_ids_tell_space_and_code_apart(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    other = tiny.sentence_folder(tmp_path / "other", pooling="cls")

    def ids(name: str, source: Path, recipe: Recipe) -> tuple[str, str]:
        manifest = export(str(source), tmp_path / name, recipe).manifest
        return manifest.space_id, manifest.code_id

    base = ids("base", folder, Recipe(dim=16))
    precise = ids("precise", folder, Recipe(dim=16, precision="fp32"))
    shorter = ids("shorter", folder, Recipe(dim=8))
    pooled = ids("pooled", other, Recipe(dim=16))
    assert precise == base
    assert shorter[0] == base[0]
    assert shorter[1] != base[1]
    assert pooled[0] != base[0]


@pytest.mark.parametrize("layout", ["beside", "onnx folder"])
def test_onnx_file_with_its_folder_matches_the_source(layout: str, tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source", modules=())
    path = _onnx_file(folder, folder if layout == "beside" else folder / "onnx")
    _assert_onnx(path, folder, tmp_path, Recipe(dim=16, precision="fp32"))
    bundle = build.export(str(path), tmp_path / "int8", Recipe(dim=16)).path
    with Encoder.open(bundle) as encoder:
        expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
        assert cosines(encoder.encode(TEXTS).full, expected).min() > 0.998  # type: ignore[arg-type]


def test_onnx_file_alone_needs_its_pooling_named(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source", pooling=("cls", "mean"))
    path = _onnx_file(folder, tmp_path / "alone")
    (tmp_path / "alone" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    tiny.edit_json(_touch(tmp_path / "alone" / "config.json"), pad_token_id=1)
    with pytest.raises(UsageError, match="--pooling"):
        build.export(str(path), tmp_path / "bundle", Recipe(dim=16, precision="fp32"))
    recipe = Recipe(dim=16, precision="fp32", pooling="cls+mean")
    _assert_onnx(path, folder, tmp_path, recipe)


def test_quantised_onnx_file_is_refused(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    bundle = export(str(folder), tmp_path / "bundle", Recipe(dim=16)).path
    with pytest.raises(UsageError, match="already quantised"):
        build.export(str(bundle / GRAPH), tmp_path / "again", Recipe(dim=16))


def test_onnx_file_without_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    path = _onnx_file(folder, tmp_path / "alone" / "deep")
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        build.export(str(path), tmp_path / "bundle", Recipe(dim=16))


def test_nomic_type_takes_a_layer_norm_by_itself(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    path = _onnx_file(folder, folder)
    plain = build.export(str(path), tmp_path / "plain", Recipe(dim=16)).manifest
    tiny.edit_json(folder / "config.json", model_type="nomic_bert")
    nomic = build.export(str(path), tmp_path / "nomic", Recipe(dim=16)).manifest
    assert (plain.head.layer_norm, nomic.head.layer_norm) == (False, True)
    assert nomic.space_id == plain.space_id  # full stays what the model's own library gives
    assert nomic.code_id != plain.code_id


def test_corpus_calibrates_and_changes_the_graph_alone(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"line {i} of the corpus, and words" for i in range(60)), "utf-8")
    default = export(str(folder), tmp_path / "default", Recipe(dim=16, head="prefix")).manifest
    own = export(
        str(folder), tmp_path / "own", Recipe(dim=16, corpus=corpus, head="prefix")
    ).manifest
    assert own.quality["texts"] == 60
    assert (own.space_id, own.code_id) == (default.space_id, default.code_id)


@pytest.mark.parametrize("target", ["arm64", "x86-64-vnni", "x86-64"])
def test_targets_share_space_and_code_and_agree(target: str, tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    default = export(str(folder), tmp_path / "default", Recipe(dim=16))
    other = export(str(folder), tmp_path / "other", Recipe(dim=16, target=target))
    ids = [(e.manifest.space_id, e.manifest.code_id) for e in (default, other)]
    assert ids[0] == ids[1]
    assert other.manifest.precision.weights == ("uint8" if target == "x86-64" else "int8")
    with Encoder.open(default.path) as left, Encoder.open(other.path) as right:
        np.testing.assert_allclose(left.encode(TEXTS).full, right.encode(TEXTS).full, atol=1e-5)


def test_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match="target is 'mips'"):
        Recipe(target="mips")


def test_graph_with_fixed_steps_below_a_gate_is_made_again_per_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    fixed = export(str(folder), tmp_path / "fixed", Recipe(dim=16))
    assert "fixed" in fixed.manifest.precision.activations
    # A gate that only the finer coding reaches.
    monkeypatch.setitem(GATES, "cosine_mean", fixed.fidelity.cosine_mean + 1e-6)
    finer = build.export(str(folder), tmp_path / "finer", Recipe(dim=16))
    assert finer.manifest.precision.activations == "uint8 per token"
    assert finer.fidelity.cosine_mean > fixed.fidelity.cosine_mean
    assert finer.seconds.keys() == fixed.seconds.keys()
    # And one that needs weights whose codes make up for each other's rounding.
    monkeypatch.setitem(GATES, "cosine_mean", finer.fidelity.cosine_mean + 1e-6)
    finest = build.export(str(folder), tmp_path / "finest", Recipe(dim=16))
    assert finest.fidelity.cosine_mean > finer.fidelity.cosine_mean


def test_minilm_meets_its_targets(minilm_bundle: Path) -> None:
    manifest = read_manifest(minilm_bundle)
    total = sum(path.stat().st_size for path in minilm_bundle.iterdir())
    # With 128 dimensions 23.0 MB; the head's other 128 columns come to that.
    assert total <= 23_000_000 + 128 * 384 * 4
    assert (manifest.code.stored, manifest.code.packing.bytes(256)) == ("int4", 128)
    assert manifest.head.kind == "rotation"
    assert (
        manifest.precision.integer_products == 36
    )  # 6 layers of q, k, v, output and two of the FFN
    graph = onnx.load(minilm_bundle / GRAPH, load_external_data=False).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert (kinds["MultiHeadAttention"], kinds["LayerNormalization"]) == (6, 13)  # all fused
    assert (kinds["FastGelu"], kinds["Softmax"], kinds["Erf"], kinds["Sqrt"]) == (6, 0, 0, 0)
    assert manifest.precision.activations == "uint8 fixed and per token"
    # Outputs of attention and GELU have a step per token, which needs the token's largest value.
    assert kinds["ReduceMax"] == 12
    assert manifest.quality["cosine_mean"] >= 0.998
    assert manifest.quality["cosine_min"] >= 0.99
    assert manifest.quality["padded_min"] >= 0.9999
    assert manifest.quality["mixed_min"] >= 0.9999
    assert manifest.prompts == {"document": "", "query": ""}
    assert (manifest.dim, manifest.full_dim, manifest.max_tokens) == (256, 384, 256)


def test_minilm_fp32_matches_sentence_transformers(
    minilm_model: Path, minilm_fp32_bundle: Path
) -> None:
    texts = [*TEXTS, "", "👩‍🚀 naïve café", "word " * 400]
    expected = SentenceTransformer(str(minilm_model), device="cpu").encode(texts)
    with Encoder.open(minilm_fp32_bundle) as encoder:
        np.testing.assert_allclose(encoder.encode(texts).full, expected, atol=FP32_TOLERANCE)


def _onnx_file(folder: Path, target: Path) -> Path:
    import onnx_ir as ir

    from edge_mrl_export.graph.tracing import source_graph

    target.mkdir(parents=True, exist_ok=True)
    ir.save(source_graph(load_source(str(folder)), target), target / "model.onnx")
    return target / "model.onnx"


def _assert_onnx(path: Path, folder: Path, tmp_path: Path, recipe: Recipe) -> None:
    bundle = build.export(str(path), tmp_path / "from-onnx", recipe).path
    expected = SentenceTransformer(str(folder), device="cpu").encode(
        TEXTS, normalize_embeddings=True
    )
    with Encoder.open(bundle) as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS).full, expected, atol=FP32_TOLERANCE)


def _touch(path: Path) -> Path:
    path.write_text("{}", "utf-8")
    return path
