"""A user's ``.onnx`` graph, made into one that the passes know: fp32, int64 ids, any number of texts.

Exporters write operators of other versions, half precision, int32 ids and fixed sizes. The file itself
stays the reference, so whatever goes wrong here shows in the measured fidelity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import version_converter

from edge_mrl.errors import UsageError, reason
from edge_mrl_export.graph.optimizer import optimize
from edge_mrl_export.graph.passes.pen import OPSET, Pen, constant, tidy
from edge_mrl_export.source import Source

__all__ = ["adopt"]

#: Floats of other widths, which become float32.
OTHER_FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
#: Attributes that name a type.
TYPE_ATTRIBUTES = ("to", "dtype")
#: Operators that take a constant with a row for each position.
WITH_POSITIONS = {"Add", "Gather", "Mul", "Sub", "Where"}
#: Texts and tokens of inputs that a graph of fixed sizes must take as well.
TRIED_SHAPES = ((1, 4), (3, 5))


def adopt(source: Source, folder: Path) -> ir.Model:
    """Read the graph of an ``.onnx`` source, with the chosen output alone.

    Args:
        source: A source whose transformer is an ``OnnxTransformer``.
        folder: An existing scratch folder.

    Returns:
        A graph of at least opset 18 with inputs int64[texts, tokens] and one output, float32.

    Raises:
        UsageError: The graph's operators cannot be brought to opset 18.
    """
    transformer = source.transformer
    model = ir.from_proto(_raised(transformer.whole(), transformer.path.name))
    fixed = transformer.signature.texts, transformer.signature.tokens
    _widen(model)
    if any(fixed):
        model = optimize(
            model, folder
        )  # while sizes are known: what depends on them becomes constant
        _loosen(model, *fixed)
    _take_int64(model)
    graph = model.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name == transformer.output.name]
    output = graph.outputs[0]
    middle = ["tokens"] if transformer.output.rank == 3 else []
    output.shape = ir.Shape(["texts", *middle, transformer.output.width])
    output.dtype = ir.DataType.FLOAT
    tidy(model)
    if any(fixed):
        _check_loose(model, transformer.path.name, *fixed)
    return model


def _raised(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with operators of at least opset 18, as the passes write them."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    if opset >= OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as error:  # the converter raises RuntimeError, ValueError and its own errors
        raise UsageError(
            f"{name} has operators of opset {opset}, which cannot be brought to {OPSET} "
            f"({reason(error)}): export it with opset {OPSET}"
        ) from error


def _widen(model: ir.Model) -> None:
    """Make all floats float32, and forget what is declared of values inside: it may hold no more."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in OTHER_FLOATS:
                wide = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
                value.const_value, value.dtype = wide, wide.dtype
        for value in (*graph.inputs, *graph.outputs):
            if value.dtype in OTHER_FLOATS:
                value.dtype = ir.DataType.FLOAT
        for node in graph:
            _widen_node(node)


def _widen_node(node: ir.Node) -> None:
    for name, attribute in tuple(node.attributes.items()):
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR and value.dtype in OTHER_FLOATS:
            wide = ir.tensor(value.numpy().astype(np.float32), name=value.name)
            node.attributes[name] = ir.AttrTensor(name, wide)
        elif name in TYPE_ATTRIBUTES and value in {int(kind) for kind in OTHER_FLOATS}:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    for output in node.outputs:
        if not output.is_graph_output():
            output.shape, output.type = None, None


def _loosen(model: ir.Model, texts: int | None, tokens: int | None) -> None:
    """Take any number of texts and tokens, where the graph has fixed ones written into it."""
    for value in model.graph.inputs:
        value.shape = ir.Shape(["texts", "tokens"])
    pen = Pen(model.graph, "loose")
    length = pen.op("Slice", pen.op("Shape", model.graph.inputs[0]), *_bounds(pen, 1, 2))
    for node in tuple(model.graph):
        sizes = constant(node.inputs[1]) if node.op_type in ("Reshape", "Expand") else None
        if sizes is not None:
            change = _loose_reshape if node.op_type == "Reshape" else _loose_expand
            loose = change([int(size) for size in sizes], texts, tokens)
            node.replace_input_with(1, pen.const(loose, np.int64))
        elif node.op_type in WITH_POSITIONS:
            _one_row(pen, node, texts)
            if tokens is not None:
                _cut_constants(pen, node, tokens, length)


def _bounds(pen: Pen, start: int, end: int) -> list[ir.Value]:
    return [pen.const([number], np.int64) for number in (start, end, 0)]


def _loose_reshape(sizes: list[int], texts: int | None, tokens: int | None) -> list[int]:
    """A Reshape's sizes with the fixed ones replaced: 0 copies the input's size at the same place.

    Encoders' reshapes keep texts and tokens as the first two sizes; the heads are split off behind them.
    """
    loose = list(sizes)
    if texts is not None and loose and loose[0] == texts:
        loose[0] = 0
    if tokens is not None and len(loose) > 2 and loose[1] == tokens:
        loose[1] = 0
    return loose


def _loose_expand(sizes: list[int], texts: int | None, tokens: int | None) -> list[int]:
    """An Expand's sizes with the fixed ones replaced: 1 keeps the input's, which broadcasts later."""
    fixed = [size == tokens or (place == 0 and size == texts) for place, size in enumerate(sizes)]
    return [1 if gone else size for size, gone in zip(sizes, fixed, strict=True)]


def _one_row(pen: Pen, node: ir.Node, texts: int | None) -> None:
    """Keep one row of constants that are the same for each of the fixed texts."""
    for place, value in enumerate(node.inputs):
        array = constant(value)
        if array is None or array.ndim < 2 or len(array) != texts:
            continue
        if (array == array[:1]).all():
            node.replace_input_with(place, pen.const(array[:1]))


def _cut_constants(pen: Pen, node: ir.Node, tokens: int, length: ir.Value) -> None:
    """Cut constants with a row for each of the fixed positions to the text's own length."""
    for place, value in enumerate(node.inputs):
        array = constant(value)
        if array is None or value is None or array.ndim < 2:
            continue
        # [1, tokens] of positions, [1, tokens, width] of their rows, [1, 1, tokens, tokens] of a mask
        axes = {2: (1,), 3: (1,)}.get(array.ndim, (-2, -1))
        for axis in axes:
            if array.shape[axis] == tokens and (array.ndim > 2 or array.shape[0] == 1):
                parts = pen.const([0], np.int64), length, pen.const([axis], np.int64)
                cut = pen.op("Slice", node.inputs[place], *parts)
                node.replace_input_with(place, cut)


def _check_loose(model: ir.Model, name: str, texts: int | None, tokens: int | None) -> None:
    """Refuse a graph of fixed sizes that still takes no others.

    Raises:
        UsageError: It is such a graph.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for shape in TRIED_SHAPES:
            ones = np.ones(shape, np.int64)
            session.run(None, {value.name: ones for value in model.graph.inputs})
    except Exception as error:  # ONNX Runtime's own errors share no narrower public base
        raise UsageError(
            f"{name} takes inputs of the fixed shape [{texts or 'texts'}, {tokens or 'tokens'}], and its "
            "operators are made for that: export it again with dynamic axes"
        ) from error


def _take_int64(model: ir.Model) -> None:
    """Take int64 inputs, and cast them where the graph computes with another type.

    A lookup takes int64 as it is, so that tables of tokens are still found.
    """
    pen = Pen(model.graph, "inputs/cast")
    for value in model.graph.inputs:
        kind = value.dtype
        value.dtype = ir.DataType.INT64
        if kind in (None, ir.DataType.INT64):
            continue
        uses = [use for use in tuple(value.uses()) if not _is_lookup(use)]
        if uses:
            cast = pen.op("Cast", value, to=int(kind))
            for use in uses:
                use.node.replace_input_with(use.idx, cast)


def _is_lookup(use: Any) -> bool:
    return bool(use.node.op_type == "Gather" and use.idx == 1)
