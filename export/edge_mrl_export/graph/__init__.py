"""The ONNX graph: traced, transformed by passes, optimised and quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_export.graph.lowering import CARE, Lowered, lower
    from edge_mrl_export.graph.passes.contract import AppendContract
    from edge_mrl_export.graph.passes.inputs import FoldInputs
    from edge_mrl_export.graph.passes.positions import TrimPositions
    from edge_mrl_export.graph.passes.vocabulary import SelectRows
    from edge_mrl_export.graph.tracing import source_graph

__all__ = [
    "CARE",
    "AppendContract",
    "FoldInputs",
    "Lowered",
    "SelectRows",
    "TrimPositions",
    "lower",
    "source_graph",
]

__getattr__ = lazily(
    __name__,
    {
        "lowering": ("CARE", "Lowered", "lower"),
        "passes.contract": ("AppendContract",),
        "passes.inputs": ("FoldInputs",),
        "passes.positions": ("TrimPositions",),
        "passes.vocabulary": ("SelectRows",),
        "tracing": ("source_graph",),
    },
)
