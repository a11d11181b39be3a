"""Tables of positions, truncated to the longest input."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edge_mrl_export.graph.passes.pen import Pen, constant, tidy

__all__ = ["TrimPositions"]

Array = np.ndarray[Any, Any]


class TrimPositions(ir.passes.InPlacePass):
    """Truncate tables of absolute positions to the longest input.

    Requires: nothing; graphs whose positions do not come from a constant 0, 1, 2, ... are not changed.
    Ensures: such tables have at most ``max_tokens`` rows. A longer input is then an error.

    Args:
        max_tokens: The longest input.
    """

    def __init__(self, max_tokens: int) -> None:
        super().__init__()
        self._max_tokens = max_tokens

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        pen = Pen(model.graph, "positions")
        found = _tables(model, self._max_tokens)
        for gather, slice_, table, counted in found:
            gather.replace_input_with(0, pen.const(table[: self._max_tokens]))
            slice_.replace_input_with(0, pen.const(counted[:, : self._max_tokens]))
        tidy(model)
        return ir.passes.PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        if _tables(model, self._max_tokens):
            raise ir.passes.PostconditionError(
                "a table of positions is longer than the longest input"
            )


def _tables(model: ir.Model, limit: int) -> list[tuple[ir.Node, ir.Node, Array, Array]]:
    """Gather(table, Slice([[0, 1, 2, ...]])) with more rows than the limit."""
    found = []
    for gather in model.graph:
        ids = gather.inputs[1] if gather.op_type == "Gather" else None
        slice_ = None if ids is None else ids.producer()
        if slice_ is None or slice_.op_type != "Slice":
            continue
        table, counted = constant(gather.inputs[0]), constant(slice_.inputs[0])
        if table is None or counted is None or table.ndim != 2 or counted.ndim != 2:
            continue
        if len(table) > limit and np.array_equal(counted, np.arange(counted.size)[None]):
            found.append((gather, slice_, table, counted))
    return found
