"""Programs that trace: what they make of each architecture, what they leave alone, what is refused."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import transformers

from edge_mrl.bundle.manifest import GRAPH
from edge_mrl.errors import MissingDependencyError, UsageError
from edge_mrl_export import build
from edge_mrl_export.graph import tracers, tracing
from edge_mrl_export.graph.tracers import HIDDEN, TRACERS, trace
from edge_mrl_export.recipe import TRACERS as NAMES
from edge_mrl_export.recipe import Recipe
from tests.support import tiny

LAYERS = 2
#: fp32 kernels of two libraries differ by some 1e-6.
TOLERANCE = 1e-5
#: Batches of other sizes than the one that is traced with: texts, tokens, and padding behind each.
BATCHES = (((3, 11), (0, 3, 6)), ((1, 30), (0,)), ((2, 3), (0, 1)))
#: Architectures whose attention ONNX Runtime has one operator for.
FUSED = ("bert", "distilbert", "electra", "roberta", "xlm-roberta")


def model(architecture: str) -> Any:
    kind, extra, _ = tiny.CONFIGS[architecture]
    torch.manual_seed(7)
    return transformers.AutoModel.from_config(
        kind(**{**tiny.MODEL, "vocab_size": 60, **extra})
    ).eval()


def furthest(network: Any, path: Path) -> float:
    """Largest difference between a model and its graph, in real tokens of all batches."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    worst = 0.0
    random = np.random.default_rng(1)
    for shape, padding in BATCHES:
        ids = random.integers(3, 40, shape)
        mask = np.ones_like(ids)
        for row, count in enumerate(padding):
            if count:
                ids[row, -count:], mask[row, -count:] = 1, 0
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (got,) = session.run(None, {name: feeds[name] for name in names})
        with torch.no_grad():
            expected = network(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            )[HIDDEN].numpy()
        worst = max(worst, float(np.abs(got - expected)[mask.astype(bool)].max()))
    return worst


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in ir.load(path).graph)


@pytest.mark.test
@pytest.mark.parametrize("architecture", sorted(tiny.CONFIGS))
def test_torchscript_traces_networks_for_any_batch(architecture: str, tmp_path: Path) -> None:
    network = model(architecture)
    assert furthest(network, trace(network, architecture, tmp_path, tracer="torchscript")) < (
        TOLERANCE
    )


@pytest.mark.test
@pytest.mark.parametrize("architecture", FUSED)
def test_attention_of_each_layer_is_one_operator(architecture: str, tmp_path: Path) -> None:
    network = model(architecture)
    path = trace(network, architecture, tmp_path)
    source: Any = SimpleNamespace(model_type=network.config.model_type, transformer=network)
    found = operators(tracing._fuse(source, path))
    assert (found["MultiHeadAttention"], found["Softmax"]) == (LAYERS, 0)
    # As many products as a layer has weights, and ELECTRA's one more before them.
    assert found["MatMul"] == 6 * LAYERS + (architecture == "electra")


@pytest.mark.test
def test_products_are_counted_where_nothing_is_fused(tmp_path: Path) -> None:
    network = model("bert")  # the twin of the test above: it can fail
    found = operators(trace(network, "bert", tmp_path))
    assert (found["MultiHeadAttention"], found["Softmax"], found["MatMul"]) == (0, 2, 8 * LAYERS)


@pytest.mark.nightly
def test_decoder_is_traced_by_dynamo_where_torchscript_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracers, "_VMAPS", ())  # as of a release that has other names
    network = model("gemma3")
    path = trace(network, "gemma3", tmp_path)
    assert path.stem == "dynamo"
    assert furthest(network, path) < TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize("architecture", ["bert", "modernbert", "mpnet", "xlm-roberta"])
def test_dynamo_traces_networks_for_any_batch(architecture: str, tmp_path: Path) -> None:
    network = model(architecture)
    path = trace(network, architecture, tmp_path, tracer="dynamo")
    assert path.stem == "dynamo"
    assert furthest(network, path) < TOLERANCE


@pytest.mark.test
@pytest.mark.parametrize("training", [False, True])
def test_model_is_left_as_it_was(training: bool, tmp_path: Path) -> None:
    network = model("bert").train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attention = network.config._attn_implementation
    assert attention != "eager"
    trace(network, "bert", tmp_path)
    assert network.config._attn_implementation == attention
    assert all(module.training is training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_second_tracer_takes_what_the_first_cannot(tmp_path: Path) -> None:
    def fail(*_: Any) -> Path:
        raise RuntimeError("unordered_map::at")

    def work(_: Any, folder: Path) -> Path:
        return folder / "made"

    assert tracers._first(None, tmp_path, (fail, work)) == tmp_path / "made"
    with pytest.raises(RuntimeError):
        tracers._first(None, tmp_path, (work, fail)[::-1][:1])


def test_error_of_this_program_is_no_failure_of_a_tracer(tmp_path: Path) -> None:
    def fail(*_: Any) -> Path:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tracers._first(None, tmp_path, (fail, fail))


def test_architecture_that_cannot_be_traced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Path:
        raise NotImplementedError("no such operator")

    monkeypatch.setitem(TRACERS, "torchscript", fail)
    with pytest.raises(UsageError, match=r"OddModel cannot be traced .*no such operator"):
        trace(None, "OddModel", tmp_path, tracer="torchscript")


def test_optimum_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with pytest.raises(MissingDependencyError, match=r"edge-mrl\[export-optimum\]"):
        trace(None, "BertModel", tmp_path, tracer="optimum")


def test_each_tracer_can_be_asked_for() -> None:
    assert tuple(TRACERS) == NAMES


@pytest.mark.test
def test_bundles_of_all_tracers_pass_the_same_gates(tmp_path: Path) -> None:
    """With what is installed: optimum goes with transformers 4 only, and is tried in test_ends.py."""
    folder = tiny.sentence_folder(tmp_path / "source")
    bundles = {}
    for tracer in ("torchscript", *(["optimum"] if has_optimum() else [])):
        recipe = Recipe(dim=16, head="prefix", tracer=tracer)
        done = build.export(str(folder), tmp_path / tracer, recipe)  # its gates are on
        bundles[tracer] = done
        assert done.manifest.precision.integer_products == 6 * LAYERS
        found = Counter(node.op_type for node in ir.load(done.path / GRAPH).graph)
        assert (found["MultiHeadAttention"], found["Softmax"]) == (LAYERS, 0)
        assert ("optimum" in done.manifest.tools) == (tracer == "optimum")
    sizes = {tracer: done.manifest.size_bytes for tracer, done in bundles.items()}
    assert max(sizes.values()) <= 1.02 * min(sizes.values()), sizes
    # One space, so that what one bundle has encoded the other can search.
    assert len({done.manifest.space_id for done in bundles.values()}) == 1


def has_optimum() -> bool:
    version = importlib.metadata.version("transformers")
    there = importlib.util.find_spec("optimum") is not None
    return (
        there
        and version.startswith("4.")
        and importlib.util.find_spec("optimum.exporters") is not None
    )
