"""Writing nodes and constants into a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["CONTRIB", "OPSET", "Pen", "constant", "replace", "tidy"]

#: The domain of ONNX Runtime's own operators.
CONTRIB = "com.microsoft"
#: Version of the ONNX operators that are traced to and written.
OPSET = 18


class Pen:
    """Appends nodes to a graph; ``tidy`` sorts them into place afterwards.

    Names count up from the prefix, so that the same model always gives the same names.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._count = 0

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        name: str | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Add a node with one output and return that output."""
        label = name or self._next(op_type)
        node = ir.node(
            op_type, inputs, attributes or None, domain=domain, num_outputs=1, name=label
        )
        node.outputs[0].name = label
        self._graph.append(node)
        return node.outputs[0]

    def const(self, value: Any, dtype: Any = None, *, name: str | None = None) -> ir.Value:
        """Add an initializer; an equal constant of the same name is not made twice."""
        array = np.asarray(value, dtype=dtype)
        label = name or self._next("const")
        known = self._graph.initializers.get(label)
        if known is not None and np.array_equal(constant(known), array):  # type: ignore[arg-type]
            return known
        tensor = ir.tensor(array, name=label)
        initializer = ir.Value(
            name=label,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.register_initializer(initializer)
        return initializer

    def _next(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}/{what}_{self._count}"


def constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The array of an initializer or a Constant node; None if the value is not constant."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def replace(old: ir.Value, new: ir.Value) -> None:
    """Use ``new`` wherever ``old`` is used, also as an output of the graph."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def tidy(model: ir.Model) -> None:
    """Remove unused nodes, and sort the others so that each comes after its inputs."""
    from onnx_ir.passes import common

    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)
