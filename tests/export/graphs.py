"""Small graphs for tests: made, run and compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from edge_mrl_export.graph.passes.pen import Pen

__all__ = ["FLOATS", "IDS", "new_graph", "output", "relative_error", "run"]

FLOATS, IDS = int(ir.DataType.FLOAT), int(ir.DataType.INT64)


def new_graph(**inputs: tuple[int, list[Any]]) -> tuple[ir.Model, Pen]:
    """A graph with these inputs (type and shape by name), and a pen that writes into it."""
    values = [
        ir.val(name, dtype=ir.DataType(dtype), shape=ir.Shape(shape))
        for name, (dtype, shape) in inputs.items()
    ]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": 18, "com.microsoft": 1}, name="test")
    return ir.Model(graph, ir_version=9), Pen(graph, "test")


def run(model: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    """The graph's outputs for these inputs."""
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def output(model: ir.Model, value: ir.Value, dtype: int = FLOATS) -> ir.Model:
    """The graph with one more output."""
    value.dtype = ir.DataType(dtype)
    model.graph.outputs.append(value)
    return model


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The length of the difference, as a share of what was expected."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
