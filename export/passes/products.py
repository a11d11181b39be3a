"""int8 products: MatMul and Gemm with a constant weight become MatMulIntegerToFloat per token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_mrl_export.passes.emit import CONTRIB, Pen, constant, replace, tidy
from edge_mrl_export.quantize import Plan, quantize_columns

__all__ = ["Product", "QuantizeProducts", "count_integer_products", "find_products", "is_gelu"]

GELUS = {"BiasGelu", "FastGelu", "Gelu", "QuickGelu", "Relu"}
#: Products smaller than this stay fp32: their weights are a few kB and their rounding buys nothing.
SMALLEST_WEIGHT = 1024
TINY = np.float32(1e-10)


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A node that multiplies an activation with a constant weight.

    Attributes:
        node: The MatMul or Gemm.
        value: The activation, float32[..., K].
        weight: float32[K, N].
        bias: float32[N] of a Gemm, or None.
    """

    node: ir.Node
    value: ir.Value
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    @property
    def shared(self) -> bool:
        """Whether other nodes use the weight too, as ALBERT's layers do: then it is stored once."""
        return len(self.node.inputs[1].uses()) > 1  # type: ignore[union-attr]


def find_products(model: ir.Model) -> list[list[Product]]:
    """All products worth quantising, grouped by the activation that they share.

    The head is left in fp32: it is small and makes the codes.
    """
    groups: dict[int, list[Product]] = {}
    for node in model.graph:
        product = _as_product(node)
        if product is not None:
            groups.setdefault(id(product.value), []).append(product)
    return list(groups.values())


def _as_product(node: ir.Node) -> Product | None:
    if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx"):
        return None
    value, weight_value = node.inputs[0], node.inputs[1]
    weight = constant(weight_value)
    if value is None or weight is None or weight.ndim != 2 or weight.size < SMALLEST_WEIGHT:
        return None
    if weight.dtype != np.float32 or str(weight_value.name).startswith("head/"):  # type: ignore[union-attr]
        return None
    bias = None
    if node.op_type == "Gemm":
        settings = {name: node.attributes[name].value for name in node.attributes}
        if (
            settings.get("transA")
            or settings.get("alpha", 1.0) != 1
            or settings.get("beta", 1.0) != 1
        ):
            return None
        weight = weight.T if settings.get("transB") else weight
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = constant(node.inputs[2])
            if bias is None:
                return None
    return Product(node, value, np.ascontiguousarray(weight), bias)


def is_gelu(value: ir.Value) -> bool:
    """Whether the value is never below GELU's minimum because an activation made it."""
    producer = value.producer()
    return producer is not None and producer.op_type in GELUS


class QuantizeProducts(ir.passes.InPlacePass):
    """Replace products by per-token int8 ones.

    Requires: a plan for each group's activation.
    Ensures: one MatMulIntegerToFloat for each product of a planned group. Quantisers have been seen
        to leave products in fp32 silently, so they are counted.

    Args:
        plans: Plan by the name of the activation.
    """

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        super().__init__()
        self._plans = plans
        self._expected = 0

    def requires(self, model: ir.Model) -> None:
        missing = [
            g[0].value.name for g in find_products(model) if g[0].value.name not in self._plans
        ]
        if missing:
            raise ir.passes.PreconditionError(f"no plan for the inputs {missing}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        groups = find_products(model)
        self._expected = count_integer_products(model) + sum(map(len, groups))
        pen = Pen(model.graph, "int8")
        for group in groups:
            plan = self._plans[str(group[0].value.name)]
            # Read anew: where products follow each other, the value found was replaced meanwhile.
            value = group[0].node.inputs[0]
            codes, zero, peak = _code_activation(pen, value, plan)  # type: ignore[arg-type]
            for product in group:
                _replace(pen, product, plan, codes, zero, peak)
        model.opset_imports[CONTRIB] = 1
        tidy(model)
        return ir.passes.PassResult(model, modified=bool(groups))

    def ensures(self, model: ir.Model) -> None:
        found = count_integer_products(model)
        if found != self._expected:
            raise ir.passes.PostconditionError(
                f"{found} integer products, expected {self._expected}"
            )


def count_integer_products(model: ir.Model) -> int:
    """How many products the graph runs on int8 codes."""
    return sum(node.op_type == "MatMulIntegerToFloat" for node in model.graph)


def _code_activation(pen: Pen, value: ir.Value, plan: Plan) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Per row: codes uint8[..., K], their zero point, and the peak float32[..., 1]."""
    scaled = value
    if plan.smooth is not None:
        scaled = pen.op("Mul", scaled, pen.const(plan.smooth))
    offset = plan.offset()
    last = pen.const([-1], np.int64)
    if offset is None:
        zero, steps = 128, 127.0
        highest = pen.op("ReduceMax", pen.op("Abs", scaled), last, keepdims=1)
    else:
        zero, steps = 0, 255.0
        scaled = pen.op("Add", scaled, pen.const(offset))
        highest = pen.op("ReduceMax", scaled, last, keepdims=1)
    peak = pen.op("Max", highest, pen.const(TINY))
    stretched = pen.op("Mul", scaled, pen.op("Div", pen.const(steps, np.float32), peak))
    point = pen.const(zero, np.uint8)
    return pen.op("QuantizeLinear", stretched, pen.const(1, np.float32), point), point, peak


def _replace(
    pen: Pen, product: Product, plan: Plan, codes: ir.Value, zero: ir.Value, peak: ir.Value
) -> None:
    weight = product.weight if plan.smooth is None else product.weight / plan.smooth[:, None]
    coded, scale = quantize_columns(weight)
    offset = plan.offset()
    steps = np.float32(127 if offset is None else 255)
    name = str(product.node.inputs[1].name)  # type: ignore[union-attr]
    sums = pen.op(
        "MatMulIntegerToFloat",
        codes,
        pen.const(coded, name=f"{name}/int8"),
        pen.const(1, np.float32),
        pen.const(scale / steps, np.float32, name=f"{name}/scale"),
        zero,
        domain=CONTRIB,
    )
    result = pen.op("Mul", sums, peak)
    bias = product.bias
    if offset is not None:
        shift = -(np.broadcast_to(offset, len(coded)) @ (coded.astype(np.float32) * scale))
        bias = shift if bias is None else bias + shift
    output = product.node.outputs[0]
    if bias is not None and not _fold_bias(pen, output, bias):
        result = pen.op("Add", result, pen.const(bias, np.float32))
    replace(output, result)


#: Where an operator takes the bias of the product that feeds its first input.
BIAS_INPUT = {"BiasGelu": 1, "SkipLayerNormalization": 4, "Add": 1}


def _fold_bias(pen: Pen, output: ir.Value, bias: NDArray[np.float32]) -> bool:
    """Add a constant to the bias that the only reader adds anyway; False where there is none."""
    uses = tuple(output.uses())
    if len(uses) != 1:
        return False
    reader = uses[0].node
    index = BIAS_INPUT.get(reader.op_type)
    if reader.op_type == "Add" and uses[0].idx == 1:
        index = 0
    elif uses[0].idx != 0:
        return False
    if index is None or len(reader.inputs) <= index:
        return False
    old = constant(reader.inputs[index])
    if old is None or old.shape != bias.shape:
        return False
    reader.replace_input_with(index, pen.const(old + bias, np.float32))
    return True
