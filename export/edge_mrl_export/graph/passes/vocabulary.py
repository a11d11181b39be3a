"""The token table, reduced to the tokens that are kept."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_mrl.errors import UsageError
from edge_mrl_export.graph.passes.pen import Pen, constant, tidy

__all__ = ["SelectRows"]

#: Operators that look token ids up: kind and place of the ids, and place of the table.
LOOKUPS = {("Gather", 1): 0, ("EmbedLayerNormalization", 0): 2}
#: What may stand between the ids and the table.
PASSING = {"Cast", "Identity"}


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
        places = _token_tables(model)
        if not places:
            raise UsageError(
                "the graph looks up token ids in no constant table, so its vocabulary cannot be pruned"
            )
        pen = Pen(model.graph, "vocabulary")
        for node, place in places:
            table = node.inputs[place]
            rows = constant(table)
            node.replace_input_with(place, pen.const(rows[self._kept], name=f"{table.name}/kept"))  # type: ignore[index,union-attr]
        tidy(model)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        sizes = {len(constant(node.inputs[place])) for node, place in _token_tables(model)}  # type: ignore[arg-type]
        if sizes != {len(self._kept)}:
            raise ir.passes.PostconditionError(
                f"tables of {sizes} rows, expected {len(self._kept)}"
            )


def _token_tables(model: ir.Model) -> list[tuple[ir.Node, int]]:
    """Nodes that look ids up in a constant table, and the place of the table among their inputs."""
    found, values = [], [next(v for v in model.graph.inputs if v.name == "input_ids")]
    while values:
        for use in values.pop().uses():
            node = use.node
            place = LOOKUPS.get((node.op_type, use.idx))
            if node.op_type in PASSING:
                values.append(node.outputs[0])
            elif place is not None and constant(node.inputs[place]) is not None:
                found.append((node, place))
    return found
