"""Size of a model's weights in formats that others use."""

from __future__ import annotations

import numpy as np

from edge_mrl_export.source import Source

__all__ = ["usual_sizes"]


def usual_sizes(source: Source) -> dict[str, int]:
    """A source's number of parameters, and bytes of its weights in fp32, fp16 and stock int8."""
    values = [value for _, value in source.tensors() if np.issubdtype(value.dtype, np.floating)]
    parameters = sum(value.size for value in values)
    matrices = sum(value.size for value in values if value.ndim >= 2)
    return {
        "parameters": parameters,
        "fp32": 4 * parameters,
        "fp16": 2 * parameters,
        # As onnxruntime's quantize_dynamic leaves them: tables and products in 8 bits, the rest in 32.
        "stock_int8": matrices + 4 * (parameters - matrices),
    }
