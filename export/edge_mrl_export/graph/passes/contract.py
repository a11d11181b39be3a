"""All that follows the transformer, in the graph: pooling, dense layers, norms, truncation, codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from edge_mrl.codes import CODE_MAX
from edge_mrl.errors import UsageError
from edge_mrl_export.graph.passes.inputs import INPUTS
from edge_mrl_export.graph.passes.pen import Pen, tidy

__all__ = ["ACTIVATIONS", "AppendContract"]

#: The smallest divisor for a norm, so that a text without tokens gives zeros and not NaN.
TINY = np.float32(1e-12)
#: Stands for minus infinity under max pooling; finite, because 0 * infinity is NaN.
LOWEST = np.float32(-3.0e38)


class AppendContract(ir.passes.InPlacePass):
    """Append everything that follows the transformer, up to the two outputs.

    Requires: inputs input_ids and attention_mask; first output float32[texts, tokens, width], or
        float32[texts, width] where the graph contains the pooling.
    Ensures: outputs ``coarse`` int8[texts, dim] and, unless ``coarse_only``, ``full``
        float32[texts, D].

    Args:
        modules: The sentence-transformers modules behind the transformer, in order.
        dim: Dimensions of the coarse code.
        width: Dimensions of the full vector.
        layer_norm: Whether a layer norm comes before the head, as Nomic's models need.
        head: float32[D, dim] of the head, or None for the identity.
        scale: Code scale: the value that the code 127 stands for.
        coarse_only: Drop the output ``full``.
    """

    def __init__(
        self,
        modules: tuple[torch.nn.Module, ...],
        *,
        dim: int,
        width: int,
        layer_norm: bool = False,
        head: NDArray[np.float32] | None = None,
        scale: float = 1.0,
        coarse_only: bool = False,
    ) -> None:
        super().__init__()
        self._modules = modules
        self._dim = dim
        self._width = width
        self._layer_norm = layer_norm
        self._head = head
        self._scale = scale
        self._coarse_only = coarse_only

    def requires(self, model: ir.Model) -> None:
        names = tuple(value.name for value in model.graph.inputs)
        if names != INPUTS:
            raise ir.passes.PreconditionError(
                f"inputs are {names}, expected {INPUTS}: run FoldInputs"
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        pen = Pen(graph, "contract")
        mask = pen.op("Cast", graph.inputs[1], to=int(ir.DataType.FLOAT))
        vector = graph.outputs.pop(0)
        graph.outputs.clear()
        for module in self._modules:
            vector = _append_module(pen, module, vector, mask)
        full = _unit_length(pen, vector)
        coarse = self._append_codes(pen, full)
        _output(graph, coarse, "coarse", ir.DataType.INT8, self._dim)
        if not self._coarse_only:
            _output(graph, full, "full", ir.DataType.FLOAT, self._width)
        tidy(model)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        names = [value.name for value in model.graph.outputs]
        if names != ["coarse", "full"][: len(names)]:
            raise ir.passes.PostconditionError(f"outputs are {names}, expected coarse and full")

    def _append_codes(self, pen: Pen, full: ir.Value) -> ir.Value:
        vector = full
        if self._layer_norm:
            # Scale is lost in the normalisation below, so that layer norm is centring.
            mean = pen.op("ReduceMean", vector, pen.const([-1], np.int64), keepdims=1)
            vector = pen.op("Sub", vector, mean)
        if self._head is not None:
            vector = pen.op("MatMul", vector, pen.const(self._head, np.float32, name="head/weight"))
        bounds = [pen.const([edge], np.int64) for edge in (0, self._dim, 1)]
        prefix = pen.op("Slice", vector, bounds[0], bounds[1], bounds[2])
        steps = pen.op(
            "Mul", _unit_length(pen, prefix), pen.const(CODE_MAX / self._scale, np.float32)
        )
        limits = pen.const(-CODE_MAX, np.float32), pen.const(CODE_MAX, np.float32)
        codes = pen.op("Clip", pen.op("Round", steps), *limits)
        return pen.op("Cast", codes, to=int(ir.DataType.INT8))


def _output(graph: ir.Graph, value: ir.Value, name: str, dtype: ir.DataType, width: int) -> None:
    value.name, value.dtype, value.shape = name, dtype, ir.Shape(["texts", width])
    graph.outputs.append(value)


def _append_module(pen: Pen, module: torch.nn.Module, vector: ir.Value, mask: ir.Value) -> ir.Value:
    kinds: dict[str, Callable[[], ir.Value]] = {
        "Pooling": lambda: _pool(pen, module, vector, mask),
        "Dense": lambda: _dense(pen, module, vector),
        "LayerNorm": lambda: _affine_layer_norm(pen, module, vector),
        "Normalize": lambda: _unit_length(pen, vector),
    }
    name = type(module).__name__
    if name not in kinds:
        raise UsageError(f"the module {name} cannot be exported; supported are {', '.join(kinds)}")
    return kinds[name]()


def _pool(pen: Pen, module: Any, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    """Every mode but max is a product, weights[texts, 1, tokens] @ hidden, where padding has weight 0."""
    modes = module.pooling_mode
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    pooled = [_pool_one(pen, mode, hidden, mask) for mode in modes]
    return pooled[0] if len(pooled) == 1 else pen.op("Concat", *pooled, axis=-1)


def _pool_one(pen: Pen, mode: str, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    last = pen.const([-1], np.int64)
    if mode == "max":
        kept = pen.op("Cast", pen.op("Unsqueeze", mask, last), to=int(ir.DataType.BOOL))
        shown = pen.op("Where", kept, hidden, pen.const(LOWEST))
        return pen.op("ReduceMax", shown, pen.const([1], np.int64), keepdims=0)
    rows = pen.op("Unsqueeze", _pool_weights(pen, mode, mask), pen.const([1], np.int64))
    return pen.op("Squeeze", pen.op("MatMul", rows, hidden), pen.const([1], np.int64))


def _pool_weights(pen: Pen, mode: str, mask: ir.Value) -> ir.Value:
    """float32[texts, tokens]: the weight of each token in this mode."""
    last, one = pen.const([-1], np.int64), pen.const(1, np.float32)
    counted = pen.op("CumSum", mask, pen.const(1, np.int64))
    total = pen.op("Max", pen.op("ReduceSum", mask, last, keepdims=1), one)
    if mode == "mean":
        return pen.op("Div", mask, total)
    if mode == "mean_sqrt_len_tokens":
        return pen.op("Div", mask, pen.op("Sqrt", total))
    if mode in ("cls", "lasttoken"):
        wanted = pen.op("Equal", counted, one if mode == "cls" else total)
        return pen.op("Mul", mask, pen.op("Cast", wanted, to=int(ir.DataType.FLOAT)))
    if mode == "weightedmean":
        weights = pen.op("Mul", mask, counted)
        sums = pen.op("ReduceSum", weights, last, keepdims=1)
        return pen.op("Div", weights, pen.op("Max", sums, one))
    raise UsageError(f"the pooling mode {mode!r} cannot be exported")


def _dense(pen: Pen, module: Any, vector: ir.Value) -> ir.Value:
    weight = module.linear.weight.detach().float().numpy()
    out = pen.op("MatMul", vector, pen.const(np.ascontiguousarray(weight.T)))
    if module.linear.bias is not None:
        out = pen.op("Add", out, pen.const(module.linear.bias.detach().float().numpy()))
    activation = type(module.activation_function).__name__
    if activation not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise UsageError(f"a Dense module has the activation {activation}; supported are {known}")
    return ACTIVATIONS[activation](pen, out)


def _gelu(pen: Pen, x: ir.Value) -> ir.Value:
    halves = pen.op("Erf", pen.op("Mul", x, pen.const(1 / np.sqrt(2), np.float32)))
    gate = pen.op("Add", halves, pen.const(1, np.float32))
    return pen.op("Mul", pen.op("Mul", x, gate), pen.const(0.5, np.float32))


ACTIVATIONS: dict[str, Callable[[Pen, ir.Value], ir.Value]] = {
    "ELU": lambda pen, x: pen.op("Elu", x),
    "GELU": _gelu,
    "Identity": lambda _pen, x: x,
    "LeakyReLU": lambda pen, x: pen.op("LeakyRelu", x),
    "ReLU": lambda pen, x: pen.op("Relu", x),
    "SELU": lambda pen, x: pen.op("Selu", x),
    "SiLU": lambda pen, x: pen.op("Mul", x, pen.op("Sigmoid", x)),
    "Sigmoid": lambda pen, x: pen.op("Sigmoid", x),
    "Softplus": lambda pen, x: pen.op("Softplus", x),
    "Tanh": lambda pen, x: pen.op("Tanh", x),
}


def _affine_layer_norm(pen: Pen, module: Any, vector: ir.Value) -> ir.Value:
    weight = pen.const(module.norm.weight.detach().float().numpy())
    bias = pen.const(module.norm.bias.detach().float().numpy())
    return pen.op("LayerNormalization", vector, weight, bias, axis=-1, epsilon=module.norm.eps)


def _unit_length(pen: Pen, vector: ir.Value) -> ir.Value:
    norm = pen.op("ReduceL2", vector, pen.const([-1], np.int64), keepdims=1)
    return pen.op("Div", vector, pen.op("Max", norm, pen.const(TINY)))
