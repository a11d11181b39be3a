"""Embedding tables with int8 rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edge_mrl_export.graph.passes.pen import Pen, constant, replace, tidy
from edge_mrl_export.graph.quantization import quantize_rows

__all__ = ["QuantizeTables", "count_int8_tables", "find_tables"]

#: Tables with fewer values stay fp32 (token types, relative position buckets).
SMALLEST_TABLE = 32_768


def find_tables(model: ir.Model) -> list[ir.Node]:
    """Gather nodes over a large constant fp32 table, by rows."""
    found = []
    for node in model.graph:
        if node.op_type != "Gather":
            continue
        table = constant(node.inputs[0])
        axis = node.attributes.get_int("axis", 0)
        if table is None or table.ndim != 2 or axis != 0 or table.dtype != np.float32:
            continue
        if table.size >= SMALLEST_TABLE:
            found.append(node)
    return found


def count_int8_tables(model: ir.Model) -> int:
    """How many tables with int8 rows the graph has."""
    tables = [constant(node.inputs[0]) for node in model.graph if node.op_type == "Gather"]
    return sum(table is not None and table.ndim == 2 and table.dtype == np.int8 for table in tables)


class QuantizeTables(ir.passes.InPlacePass):
    """Store tables as int8 rows with a scale per row; only the gathered rows are expanded.

    Requires: nothing.
    Ensures: no large fp32 table is gathered from.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        pen = Pen(model.graph, "table")
        nodes = find_tables(model)
        for node in nodes:
            _replace(pen, node)
        tidy(model)
        return ir.passes.PassResult(model, modified=bool(nodes))

    def ensures(self, model: ir.Model) -> None:
        left = [node.inputs[0].name for node in find_tables(model)]  # type: ignore[union-attr]
        if left:
            raise ir.passes.PostconditionError(f"fp32 tables left: {left}")


def _replace(pen: Pen, node: ir.Node) -> None:
    table, ids = node.inputs[0], node.inputs[1]
    codes, scale = quantize_rows(constant(table))  # type: ignore[arg-type]
    name = str(table.name)  # type: ignore[union-attr]
    rows = pen.op("Gather", pen.const(codes, name=f"{name}/int8"), ids)
    # float16 is within 0.05 % of a scale, a tenth of the rounding that it scales.
    halves = pen.op("Gather", pen.const(scale, np.float16, name=f"{name}/scale"), ids)
    wide = [pen.op("Cast", value, to=int(ir.DataType.FLOAT)) for value in (rows, halves)]
    expanded = pen.op("Mul", wide[0], wide[1])
    replace(node.outputs[0], expanded)
