"""The source model as a graph: which output is kept, which fusions are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edge_mrl_export.graph import tracing
from edge_mrl_export.graph.tracing import FUSION_TOLERANCE, source_graph
from edge_mrl_export.source.onnx.file import read_whole
from edge_mrl_export.source.onnx.signature import Output, Signature
from tests.export.graphs import FLOATS, IDS, new_graph, output


def saved(path: Path, *, shift: float = 0.0) -> Path:
    """A graph with two outputs: hidden float32[texts, tokens, 4], and one number a text."""
    model, pen = new_graph(
        input_ids=(IDS, ["texts", "tokens"]), attention_mask=(IDS, ["texts", "tokens"])
    )
    table = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    hidden = pen.op("Gather", pen.const(table + np.float32(shift)), model.graph.inputs[0])
    counted = pen.op("Cast", model.graph.inputs[1], to=FLOATS)
    lengths = pen.op("ReduceSum", counted, pen.const([1], np.int64), keepdims=0)
    hidden.name, lengths.name = "hidden", "lengths"
    output(model, hidden)
    output(model, lengths)
    ir.save(model, path)
    return path


def test_graph_of_an_onnx_file_keeps_the_output_that_was_chosen(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.onnx")
    transformer = SimpleNamespace(
        path=path,
        output=Output("hidden", 3, 4, ""),
        signature=Signature({}, None, None),
        whole=lambda: read_whole(path),
    )
    source: Any = SimpleNamespace(model_type="onnx", transformer=transformer)
    (kept,) = source_graph(source, tmp_path).graph.outputs
    assert kept.name == "hidden"


@pytest.mark.parametrize(
    ("shift", "same"), [(0, True), (FUSION_TOLERANCE / 2, True), (0.01, False)]
)
def test_fused_graph_is_kept_only_if_it_gives_the_same(
    shift: float, same: bool, tmp_path: Path
) -> None:
    plain, fused = saved(tmp_path / "a.onnx"), saved(tmp_path / "b.onnx", shift=shift)
    assert tracing._same_output(plain, fused) is same


def test_other_architectures_are_not_fused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.onnx")
    source: Any = SimpleNamespace(model_type="modernbert")
    assert tracing._fuse(source, path) == path
    assert list(tmp_path.iterdir()) == [path]
