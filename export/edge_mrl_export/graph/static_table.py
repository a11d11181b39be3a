"""Static models: a text's vector is the mean of its tokens' rows in a table, with no transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edge_mrl.errors import UsageError
from edge_mrl_export.graph.passes.pen import OPSET, Pen
from edge_mrl_export.graph.quantization import quantize_rows
from edge_mrl_export.source import Model2Vec

__all__ = ["StaticTable", "static_graph", "static_table"]


@dataclass(frozen=True, slots=True, eq=False)
class StaticTable:
    """What a static model knows: ``sum(scale[i] * rows[index[i]] for i in ids)``, over its tokens.

    Attributes:
        rows: float32[K, D], or int8[K, D] where the source has no more than that.
        index: int32[V], the row of each token, or None where token i has row i.
        scale: float32[V], what each token's row is multiplied with, or None for 1.
    """

    rows: NDArray[np.float32] | NDArray[np.int8]
    index: NDArray[np.int32] | None = None
    scale: NDArray[np.float32] | None = None

    def as_float32(self) -> StaticTable:
        """The same with float32 rows."""
        return StaticTable(self.rows.astype(np.float32), self.index, self.scale)

    def as_int8(self) -> StaticTable:
        """int8 rows, symmetric; their scales join those of the tokens, and so cost nothing."""
        if self.rows.dtype == np.int8:
            codes, steps = self.rows, np.ones(len(self.rows), np.float32)
        else:
            codes, columns = quantize_rows(self.rows)  # type: ignore[arg-type]
            steps = columns[:, 0]
        scale = steps if self.index is None else steps[self.index]
        return StaticTable(codes, self.index, scale if self.scale is None else scale * self.scale)


def static_table(transformer: Any) -> StaticTable:
    """The table of a StaticEmbedding module or of a model2vec folder.

    Raises:
        UsageError: The tokenizer has tokens without a row, or the table does not hold floats.
    """
    if isinstance(transformer, Model2Vec):
        return _model2vec_table(transformer)
    rows = transformer.embedding.weight.detach().float().numpy()
    size = max(transformer.tokenizer.get_vocab().values()) + 1
    if len(rows) < size:
        raise UsageError(f"the table has {len(rows):,} rows, but the tokenizer {size:,} tokens")
    return StaticTable(rows)


def _model2vec_table(model: Model2Vec) -> StaticTable:
    """Weights go into the rows where each token has its own; an unknown token counts 0.

    That the mean is then taken over the unknown tokens too changes its length alone, and the vector is
    brought to unit length anyway.
    """
    rows, weights = model.embeddings, model.weights
    if model.mapping is None and (weights is None or rows.dtype != np.int8):
        rows = rows.copy() if weights is None else (rows * weights[:, None]).astype(np.float32)
        if model.unknown is not None:
            rows[model.unknown] = 0
        return StaticTable(rows)
    size = len(rows) if model.mapping is None else len(model.mapping)
    scale = np.ones(size, np.float32) if weights is None else weights.astype(np.float32)
    if model.unknown is not None:
        scale[model.unknown] = 0
    index = None if model.mapping is None else model.mapping.astype(np.int32)
    return StaticTable(rows, index, scale)


def static_graph(table: StaticTable, *, mean: bool) -> ir.Model:
    """The sum or mean of the tokens' rows as a graph: float32[texts, D].

    The scales go into the weights of the sum (one number a token), never into the rows (D numbers).

    Args:
        table: What to look up.
        mean: Divide by the number of tokens. Unit length makes that needless; a Dense layer does not.
    """
    ids = ir.val("input_ids", dtype=ir.DataType.INT64, shape=ir.Shape(["texts", "tokens"]))
    mask = ir.val("attention_mask", dtype=ir.DataType.INT64, shape=ir.Shape(["texts", "tokens"]))
    graph = ir.Graph(
        [ids, mask], [], nodes=[], opset_imports={"": OPSET, "com.microsoft": 1}, name="static"
    )
    pen = Pen(graph, "static")
    places = ids
    if table.index is not None:
        places = pen.op("Gather", pen.const(table.index, name="embedding/index"), ids)
    rows = pen.op("Gather", pen.const(table.rows, name="embedding/table"), places)
    if table.rows.dtype == np.int8:
        rows = pen.op("Cast", rows, to=int(ir.DataType.FLOAT))
    counted = pen.op("Cast", mask, to=int(ir.DataType.FLOAT))
    weights = counted
    if table.scale is not None:
        scales = pen.op("Gather", pen.const(table.scale, name="embedding/scale"), ids)
        weights = pen.op("Mul", weights, scales)
    middle = pen.const([1], np.int64)
    vector = pen.op("Squeeze", pen.op("MatMul", pen.op("Unsqueeze", weights, middle), rows), middle)
    if mean:
        total = pen.op("ReduceSum", counted, pen.const([-1], np.int64), keepdims=1)
        vector = pen.op("Div", vector, pen.op("Max", total, pen.const(1, np.float32)))
    graph.outputs.append(vector)
    return ir.Model(graph, ir_version=9)
