"""Record what goes into each product while real text runs through the fp32 graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

__all__ = ["CALIBRATION_ROWS", "record_inputs"]

#: Rows kept per product. 512 tokens of different texts fix a channel's peak to a few per cent, and
#: more changed no choice of plan on MiniLM.
CALIBRATION_ROWS = 1024


def record_inputs(
    model: ir.Model,
    values: Sequence[ir.Value],
    token_ids: Sequence[Sequence[int]],
    folder: Path,
    *,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, NDArray[np.float32]]:
    """Run texts one by one (no padding) and keep rows of the given values.

    Args:
        model: The fp32 graph; it is left as it was.
        values: float32[texts, tokens, K] or float32[texts, K] inside the graph.
        token_ids: Token ids of the calibration texts.
        folder: An existing scratch folder.
        advance: Called after each text.

    Returns:
        For each value's name float32[r, K], r <= CALIBRATION_ROWS, evenly spread over the texts.
    """
    outputs = list(model.graph.outputs)
    path = folder / "calibrate.onnx"
    model.graph.outputs[:] = values
    ir.save(model, path, external_data="calibrate.data", size_threshold_bytes=1 << 20)
    model.graph.outputs[:] = outputs
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    share = max(1, CALIBRATION_ROWS // max(len(token_ids), 1))
    kept: list[list[NDArray[np.float32]]] = [[] for _ in values]
    for ids in token_ids:
        feed = np.asarray([ids], dtype=np.int64)
        results = session.run(None, {"input_ids": feed, "attention_mask": np.ones_like(feed)})
        for rows, result in zip(kept, results, strict=True):
            flat = result.reshape(-1, result.shape[-1])
            picks = np.linspace(0, len(flat) - 1, min(share, len(flat))).round().astype(int)
            rows.append(flat[picks])
        advance()
    return {str(v.name): np.concatenate(rows) for v, rows in zip(values, kept, strict=True)}
