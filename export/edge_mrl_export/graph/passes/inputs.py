"""Reduce the graph's inputs to the two that every bundle has: input_ids and attention_mask."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edge_mrl.errors import UsageError
from edge_mrl_export.graph.passes.pen import Pen, constant, replace, tidy

__all__ = ["INPUTS", "FoldInputs"]

INPUTS = ("input_ids", "attention_mask")


class FoldInputs(ir.passes.InPlacePass):
    """Compute token_type_ids and position_ids in the graph.

    Requires: inputs named input_ids and attention_mask, and at most token_type_ids and position_ids.
    Ensures: exactly input_ids and attention_mask, int64[texts, tokens], in this order.

    A text is a single segment, so all its token types are 0 and their embedding is one constant row:
    where it is added to a table's rows, it is added to the table itself. Inputs are found by name,
    because architectures have different ones.

    Args:
        first_position: The position of the first token: 0, or behind the padding token's id for RoBERTa's
            relatives.
    """

    def __init__(self, first_position: int = 0) -> None:
        super().__init__()
        self._first_position = first_position

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        _refuse_unknown({str(value.name) for value in graph.inputs})
        inputs = {value.name: value for value in graph.inputs}
        pen = Pen(graph, "inputs")
        mask = inputs.get("attention_mask") or ir.val("attention_mask")  # pooling reads it
        if "token_type_ids" in inputs:
            _fold_token_types(pen, inputs["input_ids"], inputs["token_type_ids"])
        if "position_ids" in inputs:
            _count_positions(pen, mask, inputs["position_ids"], self._first_position)
        graph.inputs[:] = [inputs["input_ids"], mask]
        for value in graph.inputs:
            value.shape = ir.Shape(["texts", "tokens"])
            value.dtype = ir.DataType.INT64
        tidy(model)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        names = tuple(value.name for value in model.graph.inputs)
        if names != INPUTS:
            raise ir.passes.PostconditionError(f"inputs are {names}, expected {INPUTS}")


def _refuse_unknown(names: set[str]) -> None:
    """Called from ``call``, because onnx-ir replaces the message of an error in ``requires``."""
    if "input_ids" not in names or names - {*INPUTS, "token_type_ids", "position_ids"}:
        raise UsageError(
            f"the graph has the inputs {sorted(names)}; expected input_ids, attention_mask "
            "and at most token_type_ids and position_ids"
        )


def _fold_token_types(pen: Pen, input_ids: ir.Value, types: ir.Value) -> None:
    for use in tuple(types.uses()):
        table = constant(use.node.inputs[0])
        if use.node.op_type == "Gather" and use.idx == 1 and table is not None:
            row = pen.const(table[0], name=f"{use.node.inputs[0].name}/row_0")  # type: ignore[union-attr]
            replace(use.node.outputs[0], row)
            use.node.graph.remove(use.node, safe=True)  # type: ignore[union-attr]
            _add_to_table(pen, row)
    if types.uses():
        zeros = pen.op("Mul", input_ids, pen.const(0, np.int64))
        replace(types, zeros)


def _add_to_table(pen: Pen, row: ir.Value) -> None:
    """Turn Add(Gather(table, ids), row) into Gather(table + row, ids), where the table is used once."""
    for add in [use.node for use in row.uses() if use.node.op_type == "Add"]:
        for gathered in add.inputs:
            gather = None if gathered is None else gathered.producer()
            if gather is None or gather.op_type != "Gather" or len(gathered.uses()) != 1:  # type: ignore[union-attr]
                continue
            table = constant(gather.inputs[0])
            if table is None or table.ndim != 2 or len(gather.inputs[0].uses()) != 1:  # type: ignore[union-attr]
                continue
            summed = pen.const(table + constant(row), name=f"{gather.inputs[0].name}/typed")  # type: ignore[union-attr]
            gather.replace_input_with(0, summed)
            replace(add.outputs[0], gathered)  # type: ignore[arg-type]
            break


def _count_positions(pen: Pen, mask: ir.Value, positions: ir.Value, first: int) -> None:
    """Positions count real tokens from the first. Padding, left or right, gets some valid position."""
    counted = pen.op("CumSum", mask, pen.const(1, np.int64))
    shifted = pen.op("Add", counted, pen.const(first - 1, np.int64))
    replace(positions, pen.op("Max", shifted, pen.const(first, np.int64)))
