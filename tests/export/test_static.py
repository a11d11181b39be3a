"""Models without a transformer: StaticEmbedding and model2vec folders, against their own libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from edge_mrl import Document, Index
from edge_mrl.bundle.manifest import GRAPH, read_manifest
from edge_mrl.codes.packing import normalize
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import cosines, verify
from edge_mrl.errors import UsageError
from edge_mrl_export import build
from edge_mrl_export.bundle.gates import ideal_codes
from edge_mrl_export.graph.lowering import lower
from edge_mrl_export.graph.passes.tables import count_int8_tables
from edge_mrl_export.graph.static_table import StaticTable, static_graph
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.source.loading import load_source
from tests.support import tiny
from tests.support.tiny import export

pytestmark = pytest.mark.test

#: "猫" is not in the vocabulary, so that these texts have unknown tokens among others, and alone.
TEXTS = [
    "the cat",
    "a dog barking in the garden, and nobody came to see.",
    "0 1 2 3 4 5",
    "?",
    "",
    "猫",
    "猫 and the 猫",
    "training an embedding model for searching text " * 4,
]
#: Sums of some hundred float32 values in another order.
FP32_TOLERANCE = 1e-6
#: The gate of an export; random rows are the worst case, real ones reach 0.9999.
INT8_COSINE = 0.998
#: model2vec computes with a float16 table in float16.
HALF_TOLERANCE = 1e-3
#: What a static graph may consist of, beside the contract at its end.
STATIC_OPS = {"Gather": 2, "Cast": 3, "Mul": 2, "MatMul": 2, "Unsqueeze": 1, "Squeeze": 1}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "not normalised": {"normalize": False},
    "weights": {"weights": True},
    "clusters": {"clusters": 30},
    "clusters and weights": {"clusters": 30, "weights": True},
    "int8": {"dtype": "int8"},
    "int8 with weights": {"dtype": "int8", "weights": True},
    "float64": {"dtype": "float64"},
    "short": {"max_length": 20},
    "no limit": {"max_length": None},
}


def static_model(folder: Path) -> Any:
    """The model as model2vec itself reads it."""
    model2vec = pytest.importorskip(
        "model2vec", reason="needs the library: pip install --no-deps model2vec==0.10.0"
    )
    return model2vec.StaticModel.from_pretrained(folder)


def bundle_of(folder: Path, tmp_path: Path, **recipe: Any) -> Path:
    settings = {"dim": 16, "precision": "fp32", "head": "prefix", **recipe}
    return export(str(folder), tmp_path / "bundle", Recipe(**settings), force=True).path


def encode(bundle: Path, texts: list[str] = TEXTS) -> np.ndarray:
    with Encoder.open(bundle) as encoder:
        full = encoder.encode(texts).full
    assert full is not None
    return full


@pytest.mark.parametrize("modules", [(), (Normalize(),)], ids=["bare", "normalised"])
def test_static_embedding_equals_its_library(modules: Any, tmp_path: Path) -> None:
    folder = tiny.static_folder(tmp_path / "source", modules=modules)
    library = SentenceTransformer(str(folder), device="cpu")
    expected = library.encode(TEXTS, normalize_embeddings=True)
    bundle = bundle_of(folder, tmp_path)
    np.testing.assert_allclose(encode(bundle), expected, atol=FP32_TOLERANCE)
    assert read_manifest(bundle).source.architecture == "StaticEmbedding"
    with Encoder.open(bundle) as encoder:
        ids = encoder.tokenize(TEXTS)
        codes = encoder.encode(TEXTS).coarse
    assert ids == [library.preprocess([text])["input_ids"].tolist() for text in TEXTS]
    # A value within 1e-6 of a rounding edge may fall on the other side.
    ideal = ideal_codes(expected, dim=16, layer_norm=False, scale=1.0)
    assert np.abs(codes.astype(int) - ideal).max() <= 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_model2vec_equals_its_library(variant: str, tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", **VARIANTS[variant])
    library = static_model(folder)
    texts = [
        *TEXTS,
        "abcdefghijklmnopqrstuvwxyz" * 2,
    ]  # one character a token, above the short limit
    expected = normalize(library.encode(texts).astype(np.float32))
    bundle = bundle_of(folder, tmp_path)
    np.testing.assert_allclose(encode(bundle, texts), expected, atol=FP32_TOLERANCE)
    with Encoder.open(bundle) as encoder:
        ids = encoder.tokenize(texts)
    known = [[i for i in row if i != library.unk_token_id] for row in ids]
    assert known == library.tokenize(texts)
    assert known != ids  # the unknown ones were there to be dropped


def test_model2vec_in_float16_equals_its_library(tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", dtype="float16")
    expected = normalize(static_model(folder).encode(TEXTS).astype(np.float32))
    bundle = bundle_of(folder, tmp_path)
    np.testing.assert_allclose(encode(bundle), expected, atol=HALF_TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_reading_of_model2vec_is_the_library(variant: str, tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", **VARIANTS[variant])
    library = static_model(folder)
    source = load_source(str(folder))
    got = source.encode(TEXTS, kind="document", max_tokens=source.max_tokens)
    expected = normalize(library.encode(TEXTS).astype(np.float32))
    np.testing.assert_allclose(got, expected, atol=FP32_TOLERANCE)
    assert source.max_tokens == (library.max_length or 8192)


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_table_is_close_and_survives_the_optimiser(variant: str, tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", **VARIANTS[variant])
    exact = encode(bundle_of(folder, tmp_path))
    bundle = bundle_of(folder, tmp_path, precision="int8")
    assert cosines(encode(bundle), exact).min() >= INT8_COSINE
    assert count_int8_tables(ir.load(bundle / GRAPH)) == 1
    precision = read_manifest(bundle).precision
    assert (precision.weights, precision.activations) == ("int8", "fp32")
    assert (precision.integer_products, precision.smoothed_products) == (0, 0)
    assert not verify(bundle).warnings  # no products that a CPU could saturate


def test_table_that_is_int8_already_loses_nothing(tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", dtype="int8")
    exact = encode(bundle_of(folder, tmp_path))
    coded = encode(bundle_of(folder, tmp_path, precision="int8"))
    np.testing.assert_allclose(coded, exact, atol=FP32_TOLERANCE)


def test_scales_cost_no_pass_over_the_rows(tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", weights=True)
    graph = onnx.load(bundle_of(folder, tmp_path, precision="int8") / GRAPH).graph
    ops = Counter(node.op_type for node in graph.node)
    assert {
        kind: ops[kind] for kind in STATIC_OPS
    } == STATIC_OPS  # with the codes' Mul and the head's MatMul


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("make", [tiny.static_folder, tiny.model2vec_folder])
def test_batch_and_padding_change_nothing(
    make: Callable[..., Path], precision: str, tmp_path: Path
) -> None:
    bundle = bundle_of(make(tmp_path / "source"), tmp_path, precision=precision)
    with Encoder.open(bundle) as encoder:
        padded = encoder.encode_padded(TEXTS)
        together = encoder.encode(TEXTS)
        alone = [encoder.encode([text]) for text in TEXTS]
    assert padded.full is not None
    assert together.full is not None
    exact = np.concatenate([e.full for e in alone if e.full is not None])
    np.testing.assert_allclose(padded.full, exact, atol=FP32_TOLERANCE)
    np.testing.assert_allclose(together.full, exact, atol=FP32_TOLERANCE)


def test_text_without_known_tokens_gives_zeros(tmp_path: Path) -> None:
    bundle = bundle_of(tiny.model2vec_folder(tmp_path / "source"), tmp_path, precision="int8")
    with Encoder.open(bundle) as encoder:
        nothing = encoder.encode(["", "猫", " \n "])
        assert encoder.encode(["the cat"]).coarse.any()
    assert not nothing.coarse.any()
    assert nothing.full is not None
    assert not nothing.full.any()
    with Index.open(tmp_path / "s.db", bundle=bundle) as index:
        index.put([Document(id="cat", text="the cat"), Document(id="unknown", text="猫")])
        assert [hit.id for hit in index.search("the cat", k=1)] == ["cat"]
        assert all(hit.score == 0 for hit in index.search("猫", k=2))


def test_special_tokens_are_left_out(tmp_path: Path) -> None:
    folder = tiny.static_folder(tmp_path / "source")
    assert json.loads((folder / "tokenizer.json").read_text("utf-8"))["post_processor"]
    with Encoder.open(bundle_of(folder, tmp_path)) as encoder:
        assert len(encoder.tokenize(["the"])[0]) == 1


def test_dense_after_the_mean_sees_the_mean(tmp_path: Path) -> None:
    torch.manual_seed(3)
    modules = (Dense(48, 32, activation_function=torch.nn.Tanh()), Normalize())
    folder = tiny.static_folder(tmp_path / "source", width=48, modules=modules)
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encode(bundle_of(folder, tmp_path)), expected, atol=FP32_TOLERANCE)
    bundle = bundle_of(folder, tmp_path, precision="int8")
    assert cosines(encode(bundle), expected).min() >= INT8_COSINE
    assert read_manifest(bundle).precision.integer_products == 1


def test_prompts_are_applied_by_kind(tmp_path: Path) -> None:
    prompts = {"query": "search ", "document": "text "}
    folder = tiny.static_folder(tmp_path / "source", prompts=prompts)
    library = SentenceTransformer(str(folder), device="cpu")
    with Encoder.open(bundle_of(folder, tmp_path)) as encoder:
        assert encoder.manifest.prompts == prompts
        for kind, prompt in prompts.items():
            expected = library.encode(["cats"], prompt=prompt, normalize_embeddings=True)
            got = encoder.encode(["cats"], kind=kind).full
            np.testing.assert_allclose(got, expected, atol=FP32_TOLERANCE)


def test_limit_of_the_tokenizer_is_the_bundles(tmp_path: Path) -> None:
    folder = tiny.static_folder(tmp_path / "source", max_tokens=6)
    library = SentenceTransformer(str(folder), device="cpu")
    text = "the cat and a dog in the garden"
    bundle = bundle_of(folder, tmp_path)
    assert read_manifest(bundle).max_tokens == 6
    expected = library.encode([text], normalize_embeddings=True)
    np.testing.assert_allclose(encode(bundle, [text]), expected, atol=FP32_TOLERANCE)


@pytest.mark.parametrize("make", [tiny.static_folder, tiny.model2vec_folder])
def test_max_tokens_truncates_further(make: Callable[..., Path], tmp_path: Path) -> None:
    bundle = bundle_of(make(tmp_path / "source"), tmp_path, max_tokens=5)
    with Encoder.open(bundle) as encoder:
        assert len(encoder.tokenize(["a b c d e f g h"])[0]) == 5
    np.testing.assert_array_equal(
        encode(bundle, ["a b c d e f g h"]), encode(bundle, ["a b c d e"])
    )


def test_model_without_a_limit_is_cut_and_says_so(tmp_path: Path) -> None:
    result = export(
        str(tiny.static_folder(tmp_path / "source")), tmp_path / "bundle", Recipe(dim=16)
    )
    assert result.manifest.max_tokens == 8192
    assert any("8,192" in note for note in result.report["notes"])


@pytest.mark.parametrize("dim", [1, 7, 24])
def test_any_dim_up_to_the_models_works(dim: int, tmp_path: Path) -> None:
    bundle = bundle_of(tiny.model2vec_folder(tmp_path / "source"), tmp_path, dim=dim)
    with Encoder.open(bundle) as encoder:
        encoding = encoder.encode(TEXTS)
    assert encoding.full is not None
    ideal = ideal_codes(encoding.full, dim=dim, layer_norm=False, scale=1.0)
    assert np.abs(encoding.coarse.astype(int) - ideal).max() <= 1
    with pytest.raises(UsageError, match=r"25.*24"):
        bundle_of(tmp_path / "source", tmp_path, dim=25)


def test_coarse_only_has_the_same_codes(tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source")
    with Encoder.open(bundle_of(folder, tmp_path, precision="int8")) as encoder:
        expected = encoder.encode(TEXTS).coarse
    with Encoder.open(bundle_of(folder, tmp_path, precision="int8", coarse_only=True)) as encoder:
        encoding = encoder.encode(TEXTS)
    assert encoding.full is None
    assert (encoding.coarse == expected).all()


@pytest.mark.parametrize(
    "variant", [{}, {"clusters": 30, "weights": True}], ids=["rows", "clusters"]
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_vocabulary_is_pruned(precision: str, variant: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", **variant)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"the cat {i}" for i in range(60)), "utf-8")
    whole = encode(bundle_of(folder, tmp_path, precision=precision), ["the cat 12"])
    pruned = export(
        str(folder),
        tmp_path / "bundle",
        Recipe(dim=16, precision=precision, corpus=corpus, prune_vocab=86),
        force=True,
    )
    assert pruned.report["vocabulary"] == {"source_tokens": 92, "tokens": 86}
    np.testing.assert_allclose(encode(pruned.path, ["the cat 12"]), whole, atol=FP32_TOLERANCE)


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", clusters=30, weights=True)
    bundles = [
        build.export(str(folder), tmp_path / name, Recipe(dim=16)).path for name in ("one", "two")
    ]
    first, second = ({p.name: p.read_bytes() for p in b.iterdir()} for b in bundles)
    assert first == second
    assert all(str(tmp_path).encode() not in data for data in first.values())


def test_table_and_weights_name_the_space(tmp_path: Path) -> None:
    plain = load_source(str(tiny.model2vec_folder(tmp_path / "plain"))).space_id()
    again = load_source(str(tiny.model2vec_folder(tmp_path / "again"))).space_id()
    weighted = tiny.model2vec_folder(tmp_path / "weighted", weights=True)
    assert plain == again
    assert load_source(str(weighted)).space_id() != plain


def test_graph_that_has_nothing_for_int8_is_refused(tmp_path: Path) -> None:
    table = StaticTable(np.ones((4, 4), np.float32))
    with pytest.raises(UsageError, match="--fp32"):
        lower(static_graph(table, mean=False), "int8", [[1, 2]], tmp_path)


def test_folder_with_both_readings_goes_by_the_tensors_name(tmp_path: Path) -> None:
    kind = "sentence_transformers.models.StaticEmbedding"
    modules = json.dumps([{"idx": 0, "name": "0", "path": ".", "type": kind}])
    own = tiny.model2vec_folder(tmp_path / "own", max_length=9)
    (own / "modules.json").write_text(modules, "utf-8")  # as model2vec writes it
    assert load_source(str(own)).max_tokens == 9
    trained = tiny.static_folder(tmp_path / "trained")
    (trained / "config.json").write_text('{"model_type": "model2vec"}', "utf-8")
    assert load_source(str(trained)).architecture == "StaticEmbedding"


def rewrite(folder: Path, **changes: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.update(changes)
    kept = {name: value for name, value in tensors.items() if value is not None}
    save_file(kept, folder / "model.safetensors")


SIZE = 92
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tensor": (lambda f: rewrite(f, embeddings=None, other=np.ones(3)), r"\['other'\]"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors"),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x10" + bytes(30)),
        "cannot be loaded",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json"),
    "broken tokenizer": (
        lambda f: (f / "tokenizer.json").write_text("{}", "utf-8"),
        r"tokenizer\.json cannot be loaded",
    ),
    "broken config": (lambda f: (f / "config.json").write_text("{", "utf-8"), "not valid JSON"),
    "odd limit": (lambda f: tiny.edit_json(f / "config.json", max_length=0), "max_length is 0"),
    "one row short": (
        lambda f: rewrite(f, embeddings=np.ones((SIZE - 1, 8), np.float32)),
        "91 rows.*92 tokens",
    ),
    "one dimension": (lambda f: rewrite(f, embeddings=np.ones(SIZE, np.float32)), r"float32\[92\]"),
    "integers": (lambda f: rewrite(f, embeddings=np.ones((SIZE, 8), np.int32)), "int32"),
    "not finite": (
        lambda f: rewrite(f, embeddings=np.full((SIZE, 8), np.nan, np.float32)),
        "not finite",
    ),
    "short mapping": (
        lambda f: rewrite(f, mapping=np.zeros(5, np.int64)),
        r"mapping is int64\[5\]",
    ),
    "float mapping": (lambda f: rewrite(f, mapping=np.zeros(SIZE)), "mapping is float64"),
    "mapping beyond the rows": (
        lambda f: rewrite(f, mapping=np.full(SIZE, SIZE, np.int64)),
        "rows 92 to 92",
    ),
    "short weights": (lambda f: rewrite(f, weights=np.ones(5)), r"weights is float64\[5\]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_malformed_model2vec_folder_is_named(damage: str, tmp_path: Path) -> None:
    folder = tiny.model2vec_folder(tmp_path / "source", width=8)
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(UsageError, match=message):
        build.export(str(folder), tmp_path / "bundle", Recipe(dim=8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_static_embedding_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    folder = tiny.static_folder(tmp_path / "source")
    save_file({"embedding.weight": np.ones((50, 8), np.float32)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"50 rows.*92 tokens"):
        build.export(str(folder), tmp_path / "bundle", Recipe(dim=8))


def test_static_embedding_without_its_tensor_is_refused(tmp_path: Path) -> None:
    folder = tiny.static_folder(tmp_path / "source")
    save_file({"other": np.ones((92, 8), np.float32)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match="cannot be loaded"):
        build.export(str(folder), tmp_path / "bundle", Recipe(dim=8))


def test_tokenizer_that_truncates_on_the_left_is_refused(tmp_path: Path) -> None:
    folder = tiny.static_folder(tmp_path / "source", max_tokens=6)
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    data["truncation"]["direction"] = "Left"
    (folder / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    with pytest.raises(UsageError, match="on the left"):
        build.export(str(folder), tmp_path / "bundle", Recipe(dim=8))


def edge_mrl(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "edge_mrl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("make", [tiny.static_folder, tiny.model2vec_folder])
def test_command_line_from_folder_to_answer(make: Callable[..., Path], tmp_path: Path) -> None:
    folder, bundle, store = make(tmp_path / "source"), tmp_path / "bundle", tmp_path / "notes.db"
    made = edge_mrl("export", folder, "--dim", "16", "-o", bundle)
    assert "int8 weights, no integer products" in made
    assert "none on integers" in edge_mrl("inspect", bundle)
    assert "good" in edge_mrl("verify", bundle)
    lines = [{"id": "1", "text": "the cat sleeps"}, {"id": "2", "text": "0 1 2 3"}]
    notes = tmp_path / "notes.jsonl"
    notes.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    edge_mrl("index", notes, "--bundle", bundle, "--store", store)
    hits = json.loads(edge_mrl("search", "cat", "--store", store, "-k", "1", "--json"))
    assert hits["hits"][0]["id"] == "1"
