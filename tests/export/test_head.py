"""Heads through a whole export: named, fitted, native or the user's own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from edge_mrl.bundle.head import derive_codes, head_id, read_head
from edge_mrl.bundle.manifest import GRAPH, HEAD, WEIGHTS, read_manifest
from edge_mrl.codes.packing import normalize, plain_packing
from edge_mrl.documents import Document
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import verify
from edge_mrl.errors import BindingError, UsageError
from edge_mrl.index import Index
from edge_mrl_export import build
from edge_mrl_export.build import Export
from edge_mrl_export.codes.head import FEW_PASSAGES, choose_head, read_matrix
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.source.loading import load_source
from edge_mrl_export.source.model_card import read_mrl_dims
from edge_mrl_export.stages import Silent
from edge_mrl_export.texts.pairs import read_pairs
from tests.support import tiny
from tests.support.tiny import export

pytestmark = pytest.mark.test

Float = NDArray[np.float32]
WORDS = [
    "the",
    "and",
    "of",
    "cat",
    "dog",
    "river",
    "stone",
    "green",
    "walk",
    "seven",
    "ink",
    "boat",
]
#: The graph's fp32 products and numpy's differ in the last digit, so that a code may round the other way.
ROUNDING = 1
ORTHONORMAL = 1e-5
DIM = 8


def sentences(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [
        " ".join(chance.choices(WORDS, k=chance.randint(3, 9))) + f" {chance.randint(0, 9999)}"
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentence_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "notes.txt"
    path.write_text("\n".join(sentences(260)), "utf-8")
    return path


@pytest.fixture(scope="module")
def rotated(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    recipe = Recipe(dim=DIM, corpus=corpus, head="rotation")
    return export(str(model), tmp_path_factory.mktemp("rotated") / "bundle", recipe)


@pytest.fixture(scope="module")
def plain(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    recipe = Recipe(dim=DIM, corpus=corpus, head="prefix")
    return export(str(model), tmp_path_factory.mktemp("plain") / "bundle", recipe)


def static_model(folder: Path, rows: Float, prompts: dict[str, str] | None = None) -> Path:
    first = StaticEmbedding(
        tiny.tokenizer().backend_tokenizer, embedding_weights=torch.from_numpy(rows)
    )
    model = SentenceTransformer(modules=[first], device="cpu", prompts=prompts)
    model.save(str(folder), create_model_card=False)
    return folder


def rows_of(scales: list[float]) -> Float:
    """Random rows whose dimensions have these sizes."""
    size = len(tiny.tokenizer())
    rows = np.random.default_rng(3).standard_normal((size, len(scales)))
    return (rows * scales).astype(np.float32)


def assert_codes_are_those_of_the_head(bundle: Path) -> None:
    manifest, matrix = read_manifest(bundle), read_head(bundle)
    with Encoder.open(bundle) as encoder:
        encoding = encoder.encode(sentences(40, seed=9))
    assert encoding.full is not None
    expected = derive_codes(
        encoding.full, matrix, dim=manifest.dim, layer_norm=manifest.head.layer_norm
    )
    off = np.abs(encoding.coarse.astype(int) - expected)
    assert off.max() <= ROUNDING
    assert (off > 0).mean() < 0.01
    assert np.abs(expected.astype(int)).max() > 20


def test_fitted_head_is_in_the_graph_and_beside_it(rotated: Export) -> None:
    assert_codes_are_those_of_the_head(rotated.path)
    matrix = read_head(rotated.path)
    assert matrix is not None
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(DIM), atol=ORTHONORMAL)
    head = rotated.manifest.head
    assert (head.kind, head.id) == ("rotation", head_id(matrix, layer_norm=False))
    assert rotated.manifest.precision.weights == "int8"
    assert verify(rotated.path).passed


def test_full_is_untouched_by_a_head(rotated: Export, plain: Export) -> None:
    with Encoder.open(rotated.path) as left, Encoder.open(plain.path) as right:
        one, two = (e.encode(sentences(30, seed=4)) for e in (left, right))
    np.testing.assert_allclose(one.full, two.full, atol=1e-6)
    assert (one.coarse != two.coarse).mean() > 0.5
    assert rotated.manifest.space_id == plain.manifest.space_id
    assert rotated.manifest.head.id != plain.manifest.head.id
    assert rotated.manifest.code_id != plain.manifest.code_id
    assert HEAD not in plain.manifest.files


def test_graph_has_one_place_for_a_head_also_behind_a_prefix(
    rotated: Export, plain: Export
) -> None:
    matrix = read_head(rotated.path)
    assert matrix is not None
    identity = np.eye(tiny.WIDTH, DIM, dtype=np.float32)
    for bundle, file, baked in ((rotated.path, HEAD, matrix), (plain.path, WEIGHTS, identity)):
        graph = onnx.load(bundle / GRAPH, load_external_data=False).graph
        places = [{e.key: e.value for e in t.external_data} for t in graph.initializer]
        holding = [
            (at["location"], (bundle / at["location"]).read_bytes()[int(at["offset"]) :])
            for at in places
            if at and int(at["length"]) == baked.nbytes
        ]
        assert [name for name, data in holding if data.startswith(baked.tobytes())] == [file]


def test_equal_text_gives_equal_bytes(
    rotated: Export, model: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = Recipe(dim=DIM, corpus=corpus, head="rotation")
    again = build.export(str(model), tmp_path / "again", recipe).path
    for path in rotated.path.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_report_says_what_was_fitted_and_measured(rotated: Export, plain: Export) -> None:
    head = rotated.report["head"]
    assert (head["kind"], head["why"]) == ("rotation", "--head rotation")
    assert (head["passages_fitted"], head["passages_held_out"]) == (260, 52)
    assert head["nested"] == [8]
    assert set(head["held_out"]) == {"prefix", "rotation"}
    assert head["held_out"]["rotation"] > head["held_out"]["prefix"]
    assert "52 held-out passages" in head["measured"]
    page = (rotated.path / "report.html").read_text("utf-8")
    assert "held out, rotation" in page
    assert plain.report["head"] == {"kind": "prefix", "why": "--head prefix"}
    assert not [note for note in rotated.report["notes"] if "fitted to only" in note]


def test_store_of_one_head_refuses_another(rotated: Export, plain: Export, tmp_path: Path) -> None:
    store = tmp_path / "notes.db"
    with Index.open(store, bundle=rotated.path) as index:
        index.put([Document(id="1", text="the green boat"), Document(id="2", text="seven cats")])
        assert index.search("the green boat")[0].id == "1"
    before = store.read_bytes()
    with pytest.raises(BindingError):
        Index.open(store, bundle=plain.path)
    assert store.read_bytes() == before


def test_centred_vectors_go_through_the_head(model: Path, corpus: Path, tmp_path: Path) -> None:
    recipe = Recipe(dim=DIM, precision="fp32", corpus=corpus, head="linear", layer_norm=True)
    bundle = export(str(model), tmp_path / "bundle", recipe)
    assert bundle.manifest.head.layer_norm
    assert_codes_are_those_of_the_head(bundle.path)


def test_head_works_without_full_vectors(
    rotated: Export, model: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = Recipe(dim=DIM, corpus=corpus, head="rotation", coarse_only=True)
    alone = export(str(model), tmp_path / "alone", recipe)
    assert alone.manifest.code_id == rotated.manifest.code_id
    with Encoder.open(rotated.path) as left, Encoder.open(alone.path) as right:
        texts = sentences(20, seed=5)
        assert (left.encode(texts).coarse == right.encode(texts).coarse).all()


def test_own_matrix_is_baked_as_it_is(model: Path, tmp_path: Path) -> None:
    own = np.random.default_rng(1).standard_normal((tiny.WIDTH, 12))
    np.save(tmp_path / "own.npy", own)
    recipe = Recipe(dim=DIM, head=str(tmp_path / "own.npy"))
    bundle = export(str(model), tmp_path / "bundle", recipe)
    assert bundle.manifest.head.kind == "matrix"
    np.testing.assert_array_equal(read_head(bundle.path), own[:, :DIM].astype(np.float32))
    assert_codes_are_those_of_the_head(bundle.path)
    for path in bundle.path.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((16, 8)), r"\[16, 8\], expected \[32, 8\]"),
        (np.ones((32, 8, 1)), r"\[32, 8, 1\], expected \[32, 8\]"),
        (np.ones((32, 4)), "4 dimensions, fewer than 8: pass --dim 4"),
        (np.ones((32, 8), np.int64), "int64, expected floats"),
        (np.full((32, 8), np.inf), "not finite"),
        (np.full((32, 8), 1e300), "not finite"),
        (np.zeros((32, 8)), "all zeros"),
    ],
)
def test_wrong_matrix_has_a_clear_error(value: Any, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", value)
    with pytest.raises(UsageError, match=message):
        read_matrix(tmp_path / "own.npy", 32, 8)


def test_file_that_is_no_matrix_has_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "own.npy"
    with pytest.raises(UsageError, match="cannot read the head"):
        read_matrix(path, 32, 8)
    path.write_text("1 2 3", "utf-8")
    with pytest.raises(UsageError, match=r"not an \.npy file"):
        read_matrix(path, 32, 8)


@pytest.mark.parametrize(
    ("scales", "kinds"),
    [
        (
            [1.0] * 8 + [0.01] * 16,
            {"prefix"},
        ),  # the prefix has it all: nothing beats it by a margin
        ([0.01] * 8 + [1.0] * 8 + [0.01] * 8, {"pca", "rotation", "linear"}),  # the prefix has none
    ],
    ids=["in front", "behind"],
)
def test_auto_takes_what_held_out_text_says(
    scales: list[float], kinds: set[str], corpus: Path, tmp_path: Path
) -> None:
    folder = static_model(tmp_path / "model", rows_of(scales))
    bundle = export(
        str(folder), tmp_path / "bundle", Recipe(dim=8, precision="fp32", corpus=corpus)
    )
    scores = bundle.report["head"]["held_out"]
    assert set(scores) == {"prefix", "pca", "rotation", "linear"}
    assert bundle.manifest.head.kind in kinds
    # A less simple head must be better by more than this where 70 pieces are held out (HeadTrial.margin).
    assert scores[bundle.manifest.head.kind] >= max(scores.values()) - 0.002 * 1000 / 70
    if "prefix" not in kinds:
        assert scores[bundle.manifest.head.kind] > scores["prefix"] + 0.3
        assert_codes_are_those_of_the_head(bundle.path)


@pytest.mark.parametrize(
    ("passages", "head", "why"),
    [
        (90, "auto", "90 passages are too few"),
        (150, "auto", "best on held-out text"),
        (60, "pca", "--head pca"),
    ],
)
def test_little_text_is_told(
    passages: int, head: str, why: str, corpus: Path, tmp_path: Path
) -> None:
    folder = static_model(tmp_path / "model", rows_of([0.01] * 8 + [1.0] * 16))
    recipe = Recipe(dim=8, corpus=corpus if passages else None, head=head)
    chosen = choose_head(load_source(str(folder)), recipe, sentences(passages), Silent())
    assert why in chosen.facts["why"]
    warned = any(f"fitted to only {passages} passages" in note for note in chosen.notes)
    assert warned == (chosen.kind != "prefix")
    assert passages < FEW_PASSAGES


def test_without_text_a_rotation_is_fitted_on_ours(tmp_path: Path) -> None:
    behind = static_model(tmp_path / "behind", rows_of([0.01] * 8 + [1.0] * 16))
    chosen = choose_head(load_source(str(behind)), Recipe(dim=8), [], Silent())
    assert (chosen.kind, chosen.notes) == ("rotation", ())
    assert "come with edge-mrl" in chosen.facts["fitted_on"]
    agreement = chosen.facts["agreement"]
    assert agreement["rotation"] > agreement["prefix"] + 0.3
    assert chosen.facts["held_out"]["rotation"] > chosen.facts["held_out"]["prefix"] + 0.15
    assert set(chosen.facts["held_out"]) == {"prefix", "rotation"}
    # What a store keeps is measured by the same head, as its codes are packed.
    share, measured = chosen.kept(plain_packing("int8", 8, scale=1)) or (0, "")
    assert (share, measured) == (chosen.facts["held_out"]["rotation"], chosen.facts["measured"])
    less, measured = chosen.kept(plain_packing("int4", 8, scale=1)) or (0, "")
    assert share - 0.1 < less < share
    assert "that int4 codes keep" in measured
    in_front = static_model(tmp_path / "in-front", rows_of([1.0] * 8 + [0.0] * 16))
    assert choose_head(load_source(str(in_front)), Recipe(dim=8), [], Silent()).kind == "prefix"


def test_repeated_text_is_no_text(tmp_path: Path) -> None:
    source = load_source(str(static_model(tmp_path / "model", rows_of([1.0] * 24))))
    texts = sentences(9) * 30
    auto = choose_head(source, Recipe(dim=8, corpus=tmp_path), texts, Silent())
    assert "9 passages are too few" in auto.facts["why"]
    with pytest.raises(UsageError, match="9 different texts"):
        choose_head(source, Recipe(dim=8, corpus=tmp_path, head="pca"), texts, Silent())


CARD = """---
license: mit
tags:
- sentence-transformers
{tag}
---
# A model

### MatryoshkaLoss with these parameters:
```json
{body}
```
"""


@pytest.mark.parametrize(
    ("name", "content", "dims"),
    [
        ("config.json", '{"matryoshka_dimensions": [64, 32, 128]}', (32, 64, 128)),
        ("config_sentence_transformers.json", '{"inner": {"matryoshka_dims": [8]}}', (8,)),
        ("config.json", '{"matryoshka_dims": "all", "hidden_size": 32}', None),
        ("README.md", CARD.format(tag="- loss:MatryoshkaLoss", body="{}"), ()),
        (
            "README.md",
            CARD.format(tag="- bert", body='{"matryoshka_dims": [\n 32,\n 8\n]}'),
            (8, 32),
        ),
        ("README.md", CARD.format(tag="- bert", body="{}"), None),
        ("README.md", "Matryoshka dolls\n- mrl\n", None),
        ("other.json", '{"matryoshka_dims": [8]}', None),
    ],
)
def test_matryoshka_training_is_read_from_the_models_files(
    name: str, content: str, dims: tuple[int, ...] | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert read_mrl_dims(tmp_path) == dims


def test_native_prefix_is_taken_down_to_the_sizes_it_was_trained_for(
    corpus: Path, tmp_path: Path
) -> None:
    folder = static_model(tmp_path / "model", rows_of([0.01] * 8 + [1.0] * 16))
    texts = corpus.read_text("utf-8").splitlines()

    def kind(**settings: Any) -> tuple[str, str]:
        recipe = Recipe(corpus=corpus, **settings)
        chosen = choose_head(load_source(str(folder)), recipe, texts, Silent())
        return chosen.kind, chosen.facts["why"]

    assert kind(dim=8)[0] != "prefix"
    assert kind(dim=8, mrl_dims=(8, 24)) == (
        "prefix",
        "trained with Matryoshka representation learning, as --mrl-dims says: 8, 24 dimensions",
    )
    (folder / "config.json").write_text('{"matryoshka_dims": [8, 16]}', "utf-8")
    assert "its files say: 8, 16" in kind(dim=12)[1]
    assert kind(dim=6)[0] != "prefix"
    assert kind(dim=8, head="rotation")[0] == "rotation"


def test_model_trained_with_matryoshka_loss_goes_through_its_prefix(tmp_path: Path) -> None:
    folder = tiny.sentence_folder(tmp_path / "source")
    trained = SentenceTransformer(str(folder), device="cpu")
    loss = MatryoshkaLoss(trained, MultipleNegativesRankingLoss(trained), [32, 8])
    optimizer = torch.optim.AdamW(trained.parameters(), lr=2e-3)
    chance = random.Random(1)
    torch.manual_seed(1)
    texts = [" ".join(chance.choices(WORDS, k=5)) for _ in range(64)]

    def found(dim: int) -> float:
        queries = [" ".join(reversed(text.split())) for text in texts]
        left, right = (
            normalize(trained.encode(some, normalize_embeddings=True)[:, :dim])
            for some in (queries, texts)
        )
        return float(((left @ right.T).argmax(axis=1) == np.arange(len(texts))).mean())

    before = found(8)
    trained.train()
    for _ in range(12):
        pairs = [chance.sample(text.split(), 5) for text in texts]
        features = [trained.preprocess([" ".join(p) for p in pairs]), trained.preprocess(texts)]
        optimizer.zero_grad()
        loss(features, labels=torch.empty(0)).backward()
        optimizer.step()
    trained.eval()
    assert found(8) > before
    trained.model_card_data.set_losses([loss])  # as the library's own trainer does
    trained.save(str(tmp_path / "trained"))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(260)), "utf-8")
    bundle = export(str(tmp_path / "trained"), tmp_path / "bundle", Recipe(dim=8, corpus=corpus))
    assert bundle.manifest.head.kind == "prefix"
    assert "Matryoshka" in bundle.report["head"]["why"]
    exact = trained.encode(texts, normalize_embeddings=True, truncate_dim=8)
    with Encoder.open(bundle.path) as encoder:
        codes = encoder.encode(texts).coarse
    cosines = (normalize(codes.astype(np.float32)) * normalize(exact)).sum(axis=1)
    assert cosines.mean() > 0.99


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> Path:
    if path.suffix == ".tsv":
        lines = ["\t".join(pair) for pair in pairs]
    else:
        lines = [json.dumps({"query": left, "document": right}) for left, right in pairs]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.tsv"])
def test_pairs_are_read(name: str, tmp_path: Path) -> None:
    pairs = list(zip(sentences(40, seed=1), sentences(40, seed=2), strict=True))
    assert read_pairs(write_pairs(tmp_path / name, pairs)) == pairs


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("pairs.jsonl", '{"query": "a"}'),
        ("pairs.jsonl", '["a", "b"]'),
        ("pairs.jsonl", '{"query": "a", "document": 3}'),
        ("pairs.jsonl", '{"query": "a", "document": " "}'),
        ("pairs.jsonl", "{"),
        ("pairs.tsv", "one column"),
        ("pairs.tsv", "a\tb\tc"),
    ],
)
def test_broken_pair_is_named_by_its_line(name: str, line: str, tmp_path: Path) -> None:
    pairs = list(zip(sentences(40, seed=1), sentences(40, seed=2), strict=True))
    path = write_pairs(tmp_path / name, pairs)
    path.write_text(path.read_text("utf-8") + line + "\n", "utf-8")
    with pytest.raises(UsageError, match="line 41"):
        read_pairs(path)


def test_few_or_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the pairs"):
        read_pairs(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="3 pairs, expected at least"):
        read_pairs(write_pairs(tmp_path / "few.jsonl", [("a", "b")] * 3))


def test_supervised_head_is_fitted_to_pairs_and_judged_on_others(tmp_path: Path) -> None:
    # Questions are in other words than answers, one for each: no model without labels knows which.
    folder = static_model(tmp_path / "model", rows_of([1.0] * 32))
    chance = random.Random(4)
    documents = [" ".join(chance.choices("abcdefghijkl", k=7)) for _ in range(400)]
    queries = [d.translate(str.maketrans("abcdefghijkl", "mnopqrstuvwx")) for d in documents]
    pairs = write_pairs(tmp_path / "pairs.jsonl", list(zip(queries, documents, strict=True)))
    recipe = Recipe(dim=8, precision="fp32", head="linear", pairs=pairs)
    bundle = export(str(folder), tmp_path / "bundle", recipe)
    head = bundle.report["head"]
    assert (head["pairs_fitted"], head["pairs_held_out"]) == (400, 80)
    assert "reciprocal rank" in head["measured"]
    assert head["held_out"]["linear"] > head["held_out"]["prefix"] + 0.2
    assert bundle.manifest.head.kind == "linear"
    assert_codes_are_those_of_the_head(bundle.path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "magic"}, "'magic', expected auto, prefix, random, pca"),
        ({"head": "rotation"}, "needs --corpus"),
        ({"head": "prefix", "pairs": Path("p.tsv")}, "--pairs works with --head linear or auto"),
        ({"head": "prefix", "nested": (8,)}, "--nested works with a head that is fitted"),
        ({"nested": (0, 8)}, "at least 1"),
        ({"mrl_dims": ()}, "at least 1"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe(**settings)


def test_nested_sizes_go_up_to_the_code(model: Path) -> None:
    source = load_source(str(model))
    assert Recipe(dim=32).resolved_nested(source) == (8, 16, 32)
    assert Recipe(dim=24).resolved_nested(source) == (12, 24)
    assert Recipe(dim=7).resolved_nested(source) == (7,)
    assert Recipe(dim=16, nested=(5, 3)).resolved_nested(source) == (3, 5, 16)
    with pytest.raises(UsageError, match="names 17 dimensions, but the code has 16"):
        Recipe(dim=16, nested=(17,)).check(source)


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_mrl", "export", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_command_line_fits_and_tells(model: Path, corpus: Path, tmp_path: Path) -> None:
    base = (model, "--dim", "16", "--corpus", corpus, "--head", "linear", "--nested", "4,8")
    done = run(*base, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head = json.loads(done.stdout)["head"]
    assert (head["kind"], head["nested"]) == ("linear", [4, 8, 16])
    assert set(head["held_out"]) == {"prefix", "linear"}
    shown = run(*base, "--force", cwd=tmp_path)
    assert "linear (--head linear)" in shown.stdout
    assert "52 held-out passages" in shown.stdout
    inspected = subprocess.run(
        [sys.executable, "-m", "edge_mrl", "inspect", tmp_path / "model-16"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "linear" in inspected.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head", "rotation"], "--corpus"),
        (["--head", "none.npy"], "cannot read the head none.npy"),
        (["--nested", "a,b"], "is not a list of sizes"),
    ],
)
def test_wrong_use_of_the_command_line_writes_nothing(
    arguments: list[str], message: str, model: Path, tmp_path: Path
) -> None:
    done = run(model, "--dim", "8", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
