"""4-bit weights: MatMulNBits for products, GatherBlockQuantized for embedding tables."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_mrl_export.graph.passes.pen import CONTRIB, Pen, constant, replace, tidy
from edge_mrl_export.graph.passes.products import Product, find_products
from edge_mrl_export.graph.passes.tables import find_tables
from edge_mrl_export.graph.quantization import quantize_blocks

__all__ = ["BLOCK", "PackProducts", "PackTables", "count_packed_products"]

#: Weights that share a scale. 32 is the smallest block with fast kernels, and the most accurate.
BLOCK = 32
#: ONNX Runtime's "accuracy level" that computes on int8 activations, coded per block of each row.
INT8_ACTIVATIONS = 4


class PackProducts(ir.passes.InPlacePass):
    """Replace products by weight-only 4-bit ones.

    Requires: nothing.
    Ensures: one MatMulNBits for each product that was found.
    """

    def __init__(self) -> None:
        super().__init__()
        self._expected = 0

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        pen = Pen(model.graph, "int4")
        products = [product for group in find_products(model) for product in group]
        self._expected = len(products)
        for product in products:
            _replace_product(pen, product)
        model.opset_imports[CONTRIB] = 1
        tidy(model)
        return ir.passes.PassResult(model, modified=bool(products))

    def ensures(self, model: ir.Model) -> None:
        found = count_packed_products(model)
        if found != self._expected:
            raise ir.passes.PostconditionError(f"{found} 4-bit products, expected {self._expected}")


class PackTables(ir.passes.InPlacePass):
    """Store embedding tables in 4 bits with a scale per block of a row.

    Requires: nothing.
    Ensures: no fp32 table whose rows divide into blocks is left.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        pen = Pen(model.graph, "table4")
        nodes = _packable(model)
        for node in nodes:
            _replace_table(pen, node)
        model.opset_imports[CONTRIB] = 1
        tidy(model)
        return ir.passes.PassResult(model, modified=bool(nodes))

    def ensures(self, model: ir.Model) -> None:
        if _packable(model):
            raise ir.passes.PostconditionError("fp32 tables are left")


def count_packed_products(model: ir.Model) -> int:
    """How many products with 4-bit weights the graph has."""
    return sum(node.op_type == "MatMulNBits" for node in model.graph)


def _packable(model: ir.Model) -> list[ir.Node]:
    return [node for node in find_tables(model) if constant(node.inputs[0]).shape[1] % BLOCK == 0]  # type: ignore[union-attr]


def _replace_product(pen: Pen, product: Product) -> None:
    depth, width = product.weight.shape
    columns = np.pad(product.weight.T, ((0, 0), (0, -depth % BLOCK)))
    codes, scales = quantize_blocks(columns, BLOCK)
    name = str(product.node.inputs[1].name)  # type: ignore[union-attr]
    packed = _pack_nibbles(codes).reshape(width, -1, BLOCK // 2)
    result = pen.op(
        "MatMulNBits",
        product.value,
        pen.const(packed, name=f"{name}/int4"),
        pen.const(scales.reshape(-1), name=f"{name}/scale"),
        domain=CONTRIB,
        K=depth,
        N=width,
        bits=4,
        block_size=BLOCK,
        accuracy_level=INT8_ACTIVATIONS,
    )
    if product.bias is not None:
        result = pen.op("Add", result, pen.const(product.bias))
    replace(product.node.outputs[0], result)


def _replace_table(pen: Pen, node: ir.Node) -> None:
    table, ids = node.inputs[0], node.inputs[1]
    name = str(table.name)  # type: ignore[union-attr]
    codes, scales = quantize_blocks(constant(table), BLOCK)  # type: ignore[arg-type]
    rows = pen.op(
        "GatherBlockQuantized",
        pen.const(_pack_nibbles(codes), name=f"{name}/int4"),
        ids,
        pen.const(scales, name=f"{name}/scale"),
        pen.const(
            np.full((len(codes), -(-scales.shape[1] // 2)), 0x88, np.uint8), name=f"{name}/zero"
        ),
        domain=CONTRIB,
        bits=4,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )
    replace(node.outputs[0], rows)


def _pack_nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two codes per byte along the last axis, the first one in the low nibble."""
    low, high = codes[..., 0::2], codes[..., 1::2]
    return (low | (high << 4)).astype(np.uint8)
