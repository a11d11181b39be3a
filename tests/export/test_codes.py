"""Exports whose stores keep other codes than int8."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.bundle.head import bundle_codes, read_head
from edge_mrl.bundle.manifest import read_manifest
from edge_mrl.cli import main
from edge_mrl.codes.packing import INT8, Packing, int4_step, plain_packing, similarity
from edge_mrl.documents import Document
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import verify
from edge_mrl.errors import UsageError
from edge_mrl.heads.fixed_rotation import random_rotation
from edge_mrl.index import Index
from edge_mrl_export import build
from edge_mrl_export.cli.export import _default_output
from edge_mrl_export.codes.head import FEW_PASSAGES, shipped_texts
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.source.loading import load_source
from tests.export.test_head import ORTHONORMAL, sentences
from tests.support import tiny
from tests.support.tiny import export

pytestmark = pytest.mark.test

DIM = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentence_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "notes.txt"
    path.write_text("\n".join(sentences(FEW_PASSAGES + 20)), "utf-8")
    return path


def test_int4_has_the_step_that_suits_its_dimensions(model: Path, tmp_path: Path) -> None:
    plain = export(str(model), tmp_path / "int8", Recipe(dim=DIM, head="prefix")).manifest
    manifest = export(
        str(model), tmp_path / "int4", Recipe(dim=DIM, head="prefix", code="int4")
    ).manifest
    assert (plain.version, plain.code.packing) == (1, INT8)
    assert (manifest.version, manifest.code.packing) == (2, Packing("int4", int4_step(DIM)))
    assert manifest.code_id != plain.code_id
    assert manifest.head == plain.head
    assert verify(tmp_path / "int4").passed


@pytest.mark.parametrize(("kind", "version", "size"), [("2bit", 3, 4), ("1bit", 2, 2)])
def test_codes_of_few_bits_are_turned_and_centred_on_the_users_text(
    kind: str,
    version: int,
    size: int,
    model: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = tmp_path / "bundle"
    options = ["--code", kind, "--head", "prefix", "--corpus", str(corpus), "--json"]
    assert main(["export", str(model), "--dim", str(DIM), *options, "-o", str(bundle)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["code"], facts["code_bytes"]) == (kind, size)
    assert facts["head"]["turned_for_bits"] == FEW_PASSAGES + 20
    assert facts["head"]["why"] == f"--head prefix; rotated for {kind[0]}-bit codes"
    recipe = Recipe(dim=DIM, head="prefix", code=kind, corpus=corpus)
    twin = build.export(str(model), tmp_path / "twin", recipe).path  # equal text gives equal bytes
    assert all((twin / path.name).read_bytes() == path.read_bytes() for path in bundle.iterdir())
    manifest = read_manifest(bundle)
    assert (manifest.version, manifest.head.kind) == (version, "rotation")
    assert verify(bundle).passed
    matrix = read_head(bundle, manifest)
    assert matrix is not None
    assert np.abs(matrix.T @ matrix - np.eye(DIM)).max() < ORTHONORMAL
    assert (matrix[DIM:] == 0).all()  # within the span of the prefix
    packing = manifest.code.packing
    assert packing.centre is not None
    with Encoder.open(bundle) as encoder:
        codes = encoder.encode(corpus.read_text("utf-8").splitlines()).coarse
    # The graph's int8 products against the source's own fp32.
    np.testing.assert_allclose(packing.centre, codes.mean(axis=0), atol=2.0)
    documents = [Document(str(n), text) for n, text in enumerate(sentences(50, seed=3))]
    with Index.open(tmp_path / "notes.db", bundle=bundle) as index:
        index.put(documents)
        chosen = random.Random(2).sample(documents, 10)
        ranks = [
            [hit.id for hit in index.search(document.text, k=50)].index(document.id)
            for document in chosen
        ]
        # 16 bits tell 50 texts apart well enough for a text to find itself.
        assert np.mean(ranks) < 3
        assert index.stats().code_bytes == size


def test_one_bit_codes_without_text_are_signs_and_say_so(model: Path, tmp_path: Path) -> None:
    recipe = Recipe(dim=DIM, head="prefix", code="1bit")
    done = export(str(model), tmp_path / "bits", recipe)
    assert recipe.resolved_dim(load_source(str(model))) == DIM
    assert done.manifest.code.packing == Packing("1bit")
    assert any("1-bit codes keep more with --corpus" in note for note in done.report["notes"])


def test_two_bit_codes_without_text_have_the_step_of_their_dimensions(
    model: Path, tmp_path: Path
) -> None:
    done = export(str(model), tmp_path / "bits", Recipe(dim=DIM, head="prefix", code="2bit"))
    assert done.manifest.code.packing == plain_packing("2bit", DIM)
    assert verify(tmp_path / "bits").passed
    assert any("2-bit codes keep more with --corpus" in note for note in done.report["notes"])


def test_two_bit_codes_are_centred_on_the_shipped_text_that_the_head_was_fitted_to(
    model: Path, tmp_path: Path
) -> None:
    done = export(str(model), tmp_path / "bits", Recipe(dim=DIM, code="2bit", head="auto"))
    packing = done.manifest.code.packing
    if done.manifest.head.kind == "prefix":  # it was no worse: then nothing was fitted for it
        pytest.fail("the tiny model's prefix is its best head: take another seed")
    assert packing.centre is not None
    assert any(packing.centre)
    with Encoder.open(tmp_path / "bits") as encoder:
        codes = encoder.encode(shipped_texts(load_source(str(model)))).coarse
    # The graph's int8 products against the source's own fp32; the trial's texts are a sample of these.
    assert np.corrcoef(packing.centre, codes.mean(axis=0))[0, 1] > 0.99


@pytest.mark.parametrize(("kind", "size"), [("2bit", 8), ("1bit", 4)])
def test_few_bits_of_all_dimensions_have_the_fixed_rotation_without_text(
    kind: str, size: int, model: Path, tmp_path: Path
) -> None:
    width = 32
    done = export(str(model), tmp_path / "bits", Recipe(dim=width, code=kind))
    manifest = done.manifest
    assert (manifest.version, manifest.head.kind) == (3, "random")
    assert manifest.code.packing.bytes(width) == size
    matrix = read_head(tmp_path / "bits", manifest)
    assert matrix is not None
    assert (matrix == random_rotation(width, width)).all()
    assert verify(tmp_path / "bits").passed
    assert_a_store_finds_what_codes_say(tmp_path / "bits", tmp_path / "s.db")


def assert_a_store_finds_what_codes_say(bundle: Path, path: Path) -> None:
    """Compare a store's answers with cosines of codes that are made of the full vectors."""
    texts = sentences(60)
    with Index.open(path, bundle) as index:
        index.put([Document(f"{n:02}", text) for n, text in enumerate(texts)])
        manifest, kept = index.encoder.manifest, index.store.binding.packing
        full, asked = (
            index.encoder.encode(some, kind=side).full
            for some, side in ((texts, "document"), ([texts[7]], "query"))
        )
        hits = index.search(texts[7], k=5, mode="vector").hits
    assert full is not None
    assert asked is not None
    head = read_head(bundle, manifest)
    documents, query = (bundle_codes(some, head, manifest) for some in (full, asked))
    cosines = similarity(query, kept.unpack(kept.pack(documents), manifest.dim))[0]
    best = sorted(range(60), key=lambda n: (-cosines[n], n))[:5]
    assert [hit.score for hit in hits] == pytest.approx([cosines[n] for n in best], abs=0.02)
    assert hits[0].id in {f"{n:02}" for n in best}


def test_the_fixed_rotation_can_be_asked_for(model: Path, corpus: Path, tmp_path: Path) -> None:
    recipe = Recipe(dim=DIM, code="int4", head="random", corpus=corpus)
    done = export(str(model), tmp_path / "bits", recipe)
    matrix = read_head(tmp_path / "bits", done.manifest)
    assert matrix is not None
    assert (matrix == random_rotation(32, DIM)).all()
    assert done.report["head"] == {"kind": "random", "why": "a fixed rotation"}
    assert Recipe(head="random").resolved_dim(load_source(str(model))) == 32


def test_codes_are_centred_but_not_turned_where_that_is_asked(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = Recipe(dim=DIM, head="prefix", code="2bit", corpus=corpus, turn=False)
    result = export(str(model), tmp_path / "b", recipe)
    head, packing = result.manifest.head, result.manifest.code.packing
    assert head.kind == "prefix"
    assert packing.centre is not None
    assert "turned_for_bits" not in result.report["head"]
    with pytest.raises(UsageError, match="int4 codes are never rotated"):
        Recipe(turn=False)


def test_own_matrix_is_not_turned(model: Path, corpus: Path, tmp_path: Path) -> None:
    width = 32
    matrix = np.random.default_rng(0).standard_normal((width, DIM)).astype(np.float32)
    np.save(tmp_path / "own.npy", matrix)
    recipe = Recipe(dim=DIM, head=str(tmp_path / "own.npy"), code="1bit", corpus=corpus)
    done = export(str(model), tmp_path / "bits", recipe)
    assert (read_head(tmp_path / "bits", done.manifest) == matrix).all()
    assert done.manifest.code.packing.centre is not None


@pytest.mark.parametrize(
    ("asked", "dim", "code", "name"),
    [
        ({}, 256, "int4", "model-256-int4"),
        ({"head": "random"}, 384, "int4", "model-int4"),
        ({"dim": 100}, 100, "int8", "model-100"),
        ({"code": "int8"}, 128, "int8", "model-128"),
        ({"code": "int4"}, 256, "int4", "model-256-int4"),
        ({"code": "2bit"}, 256, "2bit", "model-256-2bit"),
        ({"code": "1bit"}, 384, "1bit", "model-1bit"),
        ({"dim": 64, "code": "1bit"}, 64, "1bit", "model-64-1bit"),
        ({"code": "2bit", "head": "random"}, 384, "2bit", "model-2bit"),
    ],
)
def test_what_is_not_asked_for_has_a_default(
    asked: dict[str, Any], dim: int, code: str, name: str, model: Path
) -> None:
    source = load_source(str(model))
    wide = replace(source, width=384)
    recipe = Recipe(**asked)
    assert (recipe.resolved_dim(wide), recipe.resolved_code) == (dim, code)
    assert str(_default_output("org/model", recipe)) == name
    if recipe.dim is None:
        assert recipe.resolved_dim(source) == source.width == 32


@pytest.mark.parametrize(
    ("trained", "dim"), [((64, 128, 256, 768), 256), ((512, 768), 512), ((96, 192), 192), ((), 256)]
)
def test_matryoshka_models_have_a_size_that_they_were_trained_for(
    trained: tuple[int, ...], dim: int, model: Path
) -> None:
    source = replace(load_source(str(model)), width=768, mrl_dims=trained)
    for recipe in (Recipe(), Recipe(code="int4")):
        assert (recipe.resolved_dim(source), recipe.resolved_code) == (dim, "int4")
    assert Recipe(code="1bit").resolved_dim(source) == 768


def test_unknown_code_is_refused() -> None:
    with pytest.raises(UsageError, match="'int2', expected one of int8, int4, 2bit, 1bit"):
        Recipe(code="int2")
