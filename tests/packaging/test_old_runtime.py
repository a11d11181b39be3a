"""Bundles' graphs in ONNX Runtime 1.17, which phones and distributions ship."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_mrl.bundle.manifest import GRAPH
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import cosines
from edge_mrl_export.recipe import Recipe
from tests.support import tiny
from tests.support.fresh import Fresh, install
from tests.support.pythons import UnreachableError

pytestmark = pytest.mark.test

#: numpy 2 came after it.
OLD = ("onnxruntime==1.17.0", "numpy==1.26.4")
TEXTS = ["the cat", "a dog barking in the garden, and nobody came to see.", "0 1 2 3", "?", ""]
#: Two runtimes round differently; the gate between engines.
COSINE = 0.999
#: What runs there: a graph on token ids, with neither edge-mrl nor its tokenizer.
SCRIPT = """
import json, sys
import numpy as np, onnxruntime as ort
assert ort.__version__.startswith("1.17."), ort.__version__
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = {name: np.array(rows, np.int64) for name, rows in json.load(open(sys.argv[2])).items()}
names = [value.name for value in session.get_outputs()]
np.savez(sys.argv[3], **dict(zip(names, session.run(names, feeds))))
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """An environment with ONNX Runtime 1.17 and numpy alone."""
    try:
        return install(tmp_path_factory.mktemp("old"), *OLD, constraints=())
    except UnreachableError as error:
        pytest.skip(f"no network to install from: {error}")


def feeds(encoder: Encoder) -> dict[str, list[list[int]]]:
    rows = encoder.tokenize(TEXTS, kind="document")
    longest = max(map(len, rows))
    pad = encoder.manifest.padding.id
    return {
        "input_ids": [[*row, *[pad] * (longest - len(row))] for row in rows],
        "attention_mask": [[*[1] * len(row), *[0] * (longest - len(row))] for row in rows],
    }


def run(old: Fresh, graph: Path, inputs: dict[str, list[list[int]]], *, code: int = 0) -> str:
    (old.folder / "in.json").write_text(json.dumps(inputs), "utf-8")
    return old.run("python", "-c", SCRIPT, graph, "in.json", "out.npz", code=code)


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [("bert", "int8"), ("bert", "fp32"), ("xlm-roberta", "int8"), ("static", "int8")],
)
def test_graph_runs_in_an_old_runtime(
    architecture: str, precision: str, old: Fresh, tmp_path: Path
) -> None:
    static = architecture == "static"
    folder = tmp_path / "source"
    model = tiny.static_folder(folder) if static else tiny.sentence_folder(folder, architecture)
    recipe = Recipe(dim=16, precision=precision, head="prefix")
    bundle = tiny.export(str(model), tmp_path / "bundle", recipe).path
    with Encoder.open(bundle) as encoder:
        inputs, expected = feeds(encoder), encoder.encode(TEXTS)
    run(old, bundle / GRAPH, inputs)
    found = np.load(old.folder / "out.npz")
    some = np.linalg.norm(expected.full, axis=1) > 0  # a static model has nothing for some texts
    assert some.sum() >= 3
    assert cosines(found["full"][some], expected.full[some]).min() >= COSINE
    assert np.abs(found["coarse"].astype(int) - expected.coarse).max() <= 2


def test_graph_that_names_a_newer_set_of_operators_is_refused(old: Fresh, tmp_path: Path) -> None:
    """The sabotage twin: what ONNX Runtime 1.31 wrote into graphs."""
    bundle = tiny.export(
        str(tiny.sentence_folder(tmp_path / "source")),
        tmp_path / "bundle",
        Recipe(dim=16, head="prefix"),
    ).path
    with Encoder.open(bundle) as encoder:
        inputs = feeds(encoder)
    graph = onnx.load(bundle / GRAPH, load_external_data=False)
    graph.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 5))
    (bundle / GRAPH).write_bytes(graph.SerializeToString())
    assert "ai.onnx.ml" in run(old, bundle / GRAPH, inputs, code=1)
