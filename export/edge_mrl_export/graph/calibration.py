"""The inputs of each product, recorded while real text runs through the fp32 graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from edge_mrl.encode import available_threads

__all__ = ["CALIBRATION_ROWS", "CORRECTION_ROWS", "record_inputs"]

#: Rows kept for each product. 512 tokens of different texts give a channel's peak to a few per cent;
#: more of them changed no plan for MiniLM.
CALIBRATION_ROWS = 1024
#: Rows where codes of weights are fitted to them as well: as many as the inputs of most products.
CORRECTION_ROWS = 3072


def record_inputs(
    model: ir.Model,
    values: Sequence[ir.Value],
    token_ids: Sequence[Sequence[int]],
    folder: Path,
    *,
    most: int = CALIBRATION_ROWS,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, NDArray[np.float32]]:
    """Run texts one by one, without padding, and keep rows of the given values.

    Args:
        model: The fp32 graph; it is left as it was.
        values: float32[texts, tokens, K] or float32[texts, K] inside the graph.
        token_ids: Token ids of the calibration texts.
        folder: An existing scratch folder.
        most: Rows to keep of each value.
        advance: Called after each text.

    Returns:
        For each value's name float32[r, K], r <= ``most``, evenly spread over the texts.
    """
    outputs = list(model.graph.outputs)
    path = folder / "calibrate.onnx"
    model.graph.outputs[:] = values
    ir.save(model, path, external_data="calibrate.data", size_threshold_bytes=1 << 20)
    model.graph.outputs[:] = outputs
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Texts run side by side: threads of one text would wait for another's.
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    share = max(1, most // max(len(token_ids), 1))

    def record(ids: Sequence[int]) -> list[NDArray[np.float32]]:
        feed = np.asarray([ids], dtype=np.int64)
        results = session.run(None, {"input_ids": feed, "attention_mask": np.ones_like(feed)})
        return [_spread_rows(result, share) for result in results]

    kept = []
    with ThreadPoolExecutor(available_threads()) as pool:
        for rows in pool.map(record, token_ids):
            kept.append(rows)
            advance()
    columns = zip(*kept, strict=True)
    return {str(v.name): np.concatenate(rows) for v, rows in zip(values, columns, strict=True)}


def _spread_rows(result: NDArray[np.float32], share: int) -> NDArray[np.float32]:
    flat = result.reshape(-1, result.shape[-1])
    picks = np.linspace(0, len(flat) - 1, min(share, len(flat))).round().astype(int)
    rows: NDArray[np.float32] = flat[picks]
    return rows
