"""int8 products: MatMul and Gemm with a constant weight become MatMulIntegerToFloat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_mrl_export.graph.passes.pen import CONTRIB, Pen, constant, replace, tidy
from edge_mrl_export.graph.quantization import ProductPlan, quantize_columns

__all__ = [
    "Product",
    "QuantizeProducts",
    "count_integer_products",
    "find_products",
    "is_gelu",
    "is_norm",
]

GELUS = {"BiasGelu", "FastGelu", "Gelu", "QuickGelu", "Relu"}
#: Smaller products stay fp32: their weights are a few kB, so that int8 would save nothing.
SMALLEST_WEIGHT = 1024
TINY = np.float32(1e-10)


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A node that multiplies an activation with a constant weight.

    Attributes:
        node: The MatMul or Gemm.
        value: The activation, float32[..., K].
        weight: float32[K, N].
        bias: float32[N] of a Gemm, or of the addition that follows; or None.
        output: The result, bias included.
    """

    node: ir.Node
    value: ir.Value
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    output: ir.Value

    @property
    def shared(self) -> bool:
        """Whether other nodes use the same weight, as in ALBERT's layers; then it is stored once."""
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
    bias, output = _added_bias(node.outputs[0], weight)
    if node.op_type == "Gemm":
        bias, output = None, node.outputs[0]
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
    return Product(node, value, np.ascontiguousarray(weight), bias, output)


def _added_bias(
    output: ir.Value, weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32] | None, ir.Value]:
    """The constant vector that is added to an output next, and the sum; (None, output) otherwise."""
    uses = tuple(output.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return None, output
    bias = constant(uses[0].node.inputs[1 - uses[0].idx])
    if bias is None or bias.shape != weight.shape[1:]:
        return None, output
    return bias, uses[0].node.outputs[0]


def is_norm(value: ir.Value) -> bool:
    """Whether a layer norm made the value, which bounds it."""
    producer = value.producer()
    return producer is not None and producer.op_type == "LayerNormalization"


def is_gelu(value: ir.Value) -> bool:
    """Whether an activation made the value, so that it is never below GELU's minimum."""
    producer = value.producer()
    return producer is not None and producer.op_type in GELUS


class QuantizeProducts(ir.passes.InPlacePass):
    """Replace products by int8 ones, with a scale per token or a fixed scale, as planned.

    Requires: a plan for each group's activation.
    Ensures: one MatMulIntegerToFloat for each product of a planned group. They are counted, because
        quantisers have left products in fp32 without a word.

    Args:
        plans: A plan by the name of the activation.
        unsigned: Store weights as uint8 with zero point 128. Processors that add pairs of products in
            16 bits (x86-64 without VNNI) saturate on uint8 times int8, and have a slower, exact kernel
            for this.
    """

    def __init__(self, plans: Mapping[str, ProductPlan], *, unsigned: bool = False) -> None:
        super().__init__()
        self._plans = plans
        self._unsigned = unsigned
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
            coded = _code_activation(pen, value, plan)  # type: ignore[arg-type]
            column = 0
            for product in group:
                _replace(pen, product, plan, coded, column=column, unsigned=self._unsigned)
                column += product.weight.shape[1]
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
    """How many int8 products the graph has."""
    return sum(node.op_type == "MatMulIntegerToFloat" for node in model.graph)


@dataclass(frozen=True, slots=True)
class Coded:
    """An activation's codes.

    Attributes:
        codes: uint8[..., K].
        zero: Their zero point.
        step: The scale: the value of one code. With a scale per token, in units of the peak.
        peak: float32[..., 1], the factor for the product of a token; None for a fixed scale.
    """

    codes: ir.Value
    zero: ir.Value
    step: np.float32
    peak: ir.Value | None


def _code_activation(pen: Pen, value: ir.Value, plan: ProductPlan) -> Coded:
    scaled = value
    if plan.smooth is not None:
        scaled = pen.op("Mul", scaled, pen.const(plan.smooth))
    if plan.step is not None:
        zero = pen.const(plan.zero, np.uint8)
        codes = pen.op("QuantizeLinear", scaled, pen.const(plan.step, np.float32), zero)
        return Coded(codes, zero, plan.step, None)
    offset = plan.offset()
    last = pen.const([-1], np.int64)
    if offset is None:
        zero, steps = pen.const(128, np.uint8), 127.0
        highest = pen.op("ReduceMax", pen.op("Abs", scaled), last, keepdims=1)
    else:
        zero, steps = pen.const(0, np.uint8), 255.0
        scaled = pen.op("Add", scaled, pen.const(offset))
        highest = pen.op("ReduceMax", scaled, last, keepdims=1)
    peak = pen.op("Max", highest, pen.const(TINY))
    stretched = pen.op("Mul", scaled, pen.op("Div", pen.const(steps, np.float32), peak))
    codes = pen.op("QuantizeLinear", stretched, pen.const(1, np.float32), zero)
    return Coded(codes, zero, np.float32(1 / steps), peak)


def _codes(product: Product, plan: ProductPlan, column: int) -> tuple[NDArray[np.int8], Any]:
    """The weights' codes and scales: the plan's own, which begin at a column, or the nearest ones."""
    if plan.codes is not None:
        codes, scale = plan.codes
        columns = slice(column, column + product.weight.shape[1])
        return np.ascontiguousarray(codes[:, columns]), scale[columns]
    weight = product.weight if plan.smooth is None else product.weight / plan.smooth[:, None]
    return quantize_columns(weight)


def _replace(
    pen: Pen, product: Product, plan: ProductPlan, coded: Coded, *, column: int, unsigned: bool
) -> None:
    codes, scale = _codes(product, plan, column)
    bias, offset = product.bias, plan.offset()
    if offset is not None:
        shift = -(np.broadcast_to(offset, len(codes)) @ (codes.astype(np.float32) * scale))
        bias = shift if bias is None else bias + shift
    name = str(product.node.inputs[1].name)  # type: ignore[union-attr]
    inside = bias is not None and coded.peak is None
    stored, weight_zero = codes, None
    if unsigned:
        stored = (codes.astype(np.int16) + 128).astype(np.uint8)
        weight_zero = pen.const(128, np.uint8)
    result = pen.op(
        "MatMulIntegerToFloat",
        coded.codes,
        pen.const(stored, name=f"{name}/int8"),
        pen.const(coded.step, np.float32),
        pen.const(scale, np.float32, name=f"{name}/scale"),
        coded.zero,
        *((weight_zero, pen.const(bias, np.float32)) if inside else (weight_zero,)),
        domain=CONTRIB,
    )
    if coded.peak is not None:
        result = pen.op("Mul", result, coded.peak)
        if bias is not None:
            result = pen.op("Add", result, pen.const(bias, np.float32))
    replace(product.output, result)
