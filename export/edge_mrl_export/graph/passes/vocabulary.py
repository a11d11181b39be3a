"""The token table, reduced to the tokens that are kept."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_mrl.errors import UsageError
from edge_mrl_export.graph.passes.pen import Pen, constant, tidy

__all__ = ["SelectRows"]


class SelectRows(ir.passes.InPlacePass):
    """Keep some rows of the token table, in a new order.

    Requires: input_ids is looked up in at least one constant table.
    Ensures: every table that input_ids is looked up in has one row for each kept id.

    Args:
        kept: int64[V'], the old row of each new one.
    """

    def __init__(self, kept: NDArray[np.int64]) -> None:
        super().__init__()
        self._kept = kept

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = _token_tables(model)
        if not nodes:
            raise UsageError(
                "the graph looks up token ids in no constant table, so its vocabulary cannot be pruned"
            )
        pen = Pen(model.graph, "vocabulary")
        for node in nodes:
            table = node.inputs[0]
            rows = constant(table)
            node.replace_input_with(0, pen.const(rows[self._kept], name=f"{table.name}/kept"))  # type: ignore[index,union-attr]
        tidy(model)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        sizes = {len(constant(node.inputs[0])) for node in _token_tables(model)}  # type: ignore[arg-type]
        if sizes != {len(self._kept)}:
            raise ir.passes.PostconditionError(
                f"tables of {sizes} rows, expected {len(self._kept)}"
            )


def _token_tables(model: ir.Model) -> list[ir.Node]:
    ids = next(value for value in model.graph.inputs if value.name == "input_ids")
    nodes = [use.node for use in ids.uses() if use.node.op_type == "Gather" and use.idx == 1]
    return [node for node in nodes if constant(node.inputs[0]) is not None]
