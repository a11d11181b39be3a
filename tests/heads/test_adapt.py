"""Heads fitted on the device: exported bundles, real stores, real kills."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.bundle.head import derive_codes, read_head
from edge_mrl.bundle.manifest import GRAPH, HEAD, WEIGHTS, read_manifest
from edge_mrl.codes import Packing
from edge_mrl.documents import Document
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import verify
from edge_mrl.errors import BundleError, GateError, UsageError
from edge_mrl.heads.adaptation import OWN, adapt
from edge_mrl.heads.bundle import NewHead, place_for_head, with_head
from edge_mrl.index import Index
from edge_mrl.store import check
from edge_mrl_export.recipe import Recipe
from tests.export.test_head import rows_of, sentences, static_model
from tests.support.bundles import TINY
from tests.support.tiny import export

pytestmark = pytest.mark.test

DIM, DOCUMENTS = 8, 260
#: The first 8 dimensions of the model say little, so that a prefix is poor and a fitted head is not.
#: A matrix of 32 by 8 or more lies outside the graph.
SCALES = [0.1] * 8 + [1.0] * 12 + [0.3] * 12
#: float16 and int8 hold a full vector less exactly than the graph: a code may round the other way.
ROUNDING = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return static_model(tmp_path_factory.mktemp("model") / "model", rows_of(SCALES))


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(dim=DIM, precision="fp32", head="prefix")
    return export(str(model), tmp_path_factory.mktemp("bundles") / "plain", recipe).path


def make_store(path: Path, bundle: Path, keep_full: str | None = None) -> Path:
    documents = [Document(str(n), text, {"n": n}) for n, text in enumerate(sentences(DOCUMENTS))]
    documents.append(Document("empty", ""))
    with Index.open(path, bundle, keep_full=keep_full) as index:
        index.put(documents)
    return path


def codes_of(index: Index) -> tuple[NDArray[np.int8], list[str]]:
    """All stored codes, with the ids of their documents."""
    with index.store.reading() as view:
        codes, keys = view.codes.gather_levels(np.arange(view.codes.rows))
        names = index.store.ids(sorted(set(keys.tolist())))
    return codes, [names[key] for key in keys.tolist()]


def assert_codes_are_the_bundles(path: Path, bundle: Path) -> None:
    """What is stored is what the bundle makes of the texts, but for rounding."""
    with Index.open(path) as index, Encoder.open(bundle) as encoder:
        assert index.binding.code_id == encoder.manifest.code_id
        assert Path(index.binding.bundle) == bundle
        codes, names = codes_of(index)
        texts = [document.text for document in index.get(names).values()]
        assert len(set(names)) == DOCUMENTS
        wanted = encoder.encode(texts).coarse
        assert np.abs(codes.astype(int) - wanted).max() <= ROUNDING
        assert index.search(texts[7], k=1)[0].id == names[7]
        assert check(index.store).sound


@pytest.mark.parametrize(
    "keep_full",
    [
        None,
        "until-synced",
        pytest.param("fp16", marks=pytest.mark.nightly),
        pytest.param("int8", marks=pytest.mark.nightly),
    ],
)
def test_store_gets_a_head_of_its_own(keep_full: str | None, bundle: Path, tmp_path: Path) -> None:
    path = make_store(tmp_path / "notes.db", bundle, keep_full)
    synced = [str(n) for n in range(0, DOCUMENTS, 2)] if keep_full == "until-synced" else []
    stages = []
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}
    with Index.open(path) as index:
        assert index.store.forget_full(synced) == len(synced)
        done = adapt(
            index,
            output=tmp_path / "adapted",
            stage=lambda name, _: stages.append(name) or (lambda: None),  # type: ignore[func-returns-value]
        )
        with index.store.reading() as view:
            fulls = view.fulls(range(1, DOCUMENTS + 2))
        assert index.binding.code_id == read_manifest(tmp_path / "adapted").code_id
    kept = 0 if keep_full is None else DOCUMENTS - len(synced)
    assert len(fulls) == kept
    assert done.embedded == DOCUMENTS - kept  # each once
    assert (done.documents, done.passages, done.held_out) == (DOCUMENTS + 1, DOCUMENTS, 52)
    assert done.agreement_after > done.agreement_before + 0.2
    assert (done.tried[OWN], done.tried[done.kind]) == (done.score_before, done.score_after)
    assert done.score_after > done.score_before + 0.15
    assert done.excerpts > DOCUMENTS
    assert "held-out excerpts" in done.measured
    assert stages[-1] == "code documents"
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before
    assert_codes_are_the_bundles(path, tmp_path / "adapted")


def test_vectors_alone_are_fitted_on_without_the_model(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_store(tmp_path / "notes.db", bundle, "fp16")

    def encoder(_: Index) -> None:
        raise AssertionError("the store's own bundle was loaded")

    with Index.open(path) as index:
        monkeypatch.setattr(Index, "encoder", property(encoder))
        done = adapt(index, output=tmp_path / "adapted", excerpts=False)
        monkeypatch.undo()
    assert (done.excerpts, done.embedded, done.tried[OWN]) == (0, 0, done.agreement_before)
    assert done.agreement_after == done.score_after > done.score_before + 0.2
    assert "excerpts" not in done.measured
    assert_codes_are_the_bundles(path, tmp_path / "adapted")


def test_new_bundle_is_a_sound_one(bundle: Path, tmp_path: Path) -> None:
    path = make_store(tmp_path / "notes.db", bundle, "fp16")
    with Index.open(path) as index:
        done = adapt(index, output=tmp_path / "adapted")
    old, new = read_manifest(bundle), read_manifest(done.after)
    assert verify(done.after).passed
    assert (new.space_id, new.dims, new.source) == (old.space_id, old.dims, old.source)
    assert new.head.kind == done.kind
    assert new.head.id != old.head.id
    assert not {"report.json", "report.html"} & set(new.files)  # they tell of another head
    matrix = read_head(done.after)
    assert matrix is not None
    with Encoder.open(bundle) as left, Encoder.open(done.after) as right:
        one, two = (encoder.encode(sentences(30, seed=5)) for encoder in (left, right))
    np.testing.assert_array_equal(one.full, two.full)
    assert two.full is not None
    assert np.abs(two.coarse.astype(int) - derive_codes(two.full, matrix, dim=DIM)).max() <= 1


def test_nothing_changes_where_no_head_is_better(bundle: Path, tmp_path: Path) -> None:
    path = make_store(tmp_path / "notes.db", bundle, "fp16")
    with Index.open(path) as index:
        first = adapt(index, output=tmp_path / "adapted")
    stored = path.read_bytes()
    with Index.open(path) as index, pytest.raises(GateError, match="nothing was changed"):
        adapt(index)
    assert path.read_bytes() == stored
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["adapted"]
    command = [sys.executable, "-m", "edge_mrl", "adapt", "--store", str(path), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert json.loads(run.stdout)["error"]["kind"] == "GateError"
    assert_codes_are_the_bundles(path, Path(first.after))


def test_head_of_a_fitted_bundle_is_replaced_where_the_graph_reads_it(
    model: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(sentences(260, seed=3)), "utf-8")
    recipe = Recipe(dim=DIM, precision="fp32", corpus=corpus, head="pca")
    fitted = export(str(model), tmp_path / "fitted", recipe).path
    assert place_for_head(fitted) is None
    packing = read_manifest(fitted).code.packing
    matrix = np.random.default_rng(0).standard_normal((len(SCALES), DIM)).astype(np.float32)
    with_head(fitted, tmp_path / "new", NewHead(matrix, "matrix", packing))
    assert verify(tmp_path / "new").passed
    np.testing.assert_array_equal(read_head(tmp_path / "new"), matrix)
    assert (tmp_path / "new" / WEIGHTS).read_bytes() == (fitted / WEIGHTS).read_bytes()
    again = with_head(fitted, tmp_path / "new", NewHead(matrix, "matrix", packing))
    assert again == read_manifest(tmp_path / "new")
    with pytest.raises(UsageError, match="holds another bundle"):
        with_head(fitted, tmp_path / "new", NewHead(2 * matrix, "matrix", packing))
    (fitted / HEAD).write_bytes(b"x" * (fitted / HEAD).stat().st_size)
    with pytest.raises(BundleError):
        with_head(fitted, tmp_path / "third", NewHead(matrix, "matrix", packing))
    assert not (tmp_path / "third").exists()


def test_graph_that_reads_its_head_elsewhere_is_not_published(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = (bundle / GRAPH).read_bytes()
    packing = read_manifest(bundle).code.packing
    matrix = np.random.default_rng(0).standard_normal((len(SCALES), DIM)).astype(np.float32)
    monkeypatch.setattr("edge_mrl.heads.bundle.place_for_head", lambda _: None)
    with pytest.raises(BundleError, match="does not read its head"):
        with_head(bundle, tmp_path / "wrong", NewHead(matrix, "matrix", packing))
    assert list(tmp_path.iterdir()) == []
    assert (bundle / GRAPH).read_bytes() == graph


def test_graph_without_a_place_and_little_text_are_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no place for a head"):
        place_for_head(TINY)
    with Index.open(tmp_path / "notes.db", bundle) as index:
        index.put([Document(str(n), text) for n, text in enumerate(sentences(30))])
        with pytest.raises(UsageError, match=r"30 passages, too few .* nothing was changed"):
            adapt(index)


def test_one_bit_codes_get_directions_and_centre_of_their_own(model: Path, tmp_path: Path) -> None:
    recipe = Recipe(dim=DIM, precision="fp32", head="prefix", code="1bit")
    plain = export(str(model), tmp_path / "plain", recipe).path
    path = make_store(tmp_path / "notes.db", plain, "fp16")
    with Index.open(path) as index:
        done = adapt(index, output=tmp_path / "adapted")
        codes, names = codes_of(index)
        texts = [document.text for document in index.get(names).values()]
    packing = read_manifest(done.after).code.packing
    assert packing.centre is not None
    assert "1bit codes" in done.measured  # heads are compared by the codes that are kept
    with Encoder.open(done.after) as encoder:
        wanted = encoder.encode(texts).coarse > np.array(packing.centre)
    assert ((codes > np.array(packing.centre)) == wanted).mean() > 0.99
    assert 0.3 < wanted.mean() < 0.7


def test_bits_that_would_keep_less_are_not_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with too little text: the centre and rotation that were fitted are worse than the bundle's."""

    def bad(codes: NDArray[np.int8], kind: str) -> Packing:
        return Packing(kind, 1.0, (120,) * codes.shape[1])

    recipe = Recipe(dim=DIM, precision="fp32", head="prefix", code="1bit")
    plain = export(str(model), tmp_path / "plain", recipe).path
    path = make_store(tmp_path / "notes.db", plain, "fp16")
    monkeypatch.setattr("edge_mrl.heads.adaptation.centred_packing", bad)
    with (
        Index.open(path) as index,
        pytest.raises(GateError, match=r"1bit codes.*nothing was changed"),
    ):
        adapt(index, output=tmp_path / "adapted", excerpts=False)
    assert not (tmp_path / "adapted").exists()


KILLED = """
import sys
from pathlib import Path
from edge_mrl.heads import adapt
from edge_mrl.index import Index
def stage(name, steps):
    print(name, flush=True)
    return lambda: None
with Index.open(sys.argv[1]) as index:
    adapt(index, output=Path(sys.argv[2]), stage=stage)
print("done", flush=True)
"""
#: When it is killed: after the start of a stage, and at most so much later.
KILLS = [("write and verify the bundle", 0.1)] * 2 + [("code documents", 0.06)] * 6
FEW_KILLS = [KILLS[0], KILLS[-1]]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize(
    "kills", [FEW_KILLS, pytest.param(KILLS, marks=pytest.mark.nightly)], ids=["few", "many"]
)
def test_kill_leaves_the_old_state_or_the_new(
    kills: list[tuple[str, float]], bundle: Path, tmp_path: Path
) -> None:
    path, output = make_store(tmp_path / "notes.db", bundle, "fp16"), tmp_path / "adapted"
    chance = random.Random(1)
    states = []
    for stage, delay_s in kills:
        command = [sys.executable, "-c", KILLED, str(path), str(output)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            reached = any(line.strip() == stage for line in process.stdout)
            time.sleep(chance.uniform(0, delay_s))
            process.send_signal(signal.SIGKILL)
        if not reached:  # adapted already: it is told that no head is better
            break
        with Index.open(path) as index:
            now = Path(index.binding.bundle)
        states.append(now)
        assert now in (bundle, output)
        assert_codes_are_the_bundles(path, now)
    assert states[0] == bundle  # the kill came before the end
    with Index.open(path) as index:
        if states[-1] == bundle:
            adapt(index, output=output)
    assert_codes_are_the_bundles(path, output)


def test_command_line_tells_what_was_gained(bundle: Path, tmp_path: Path) -> None:
    path = make_store(tmp_path / "notes.db", bundle, "int8")
    command = [sys.executable, "-m", "edge_mrl", "adapt", "--store", str(path)]
    output = ["-o", str(tmp_path / "mine")]
    run = subprocess.run([*command, *output], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"head fitted on {DOCUMENTS} passages" in run.stdout
    assert f"bundle is {tmp_path / 'mine'}" in run.stdout
    assert run.stderr == ""
