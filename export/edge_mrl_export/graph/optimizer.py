"""ONNX Runtime's graph optimiser, run at export so that devices need not run it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

__all__ = ["optimize"]

#: Fusions that would hide a MatMul's weight or an embedding table from our own passes, and two whose
#: kernels are slower than what they replace (passes/kernels.py).
UNWANTED = [
    "AttentionFusion",
    "BiasGeluFusion",
    "EmbedLayerNormFusion",
    "GemmActivationFusion",
    "MatMulAddFusion",
    "MatMulActivationFusion",
    "DynamicQuantizeMatMulFusion",
    "SkipLayerNormFusion",
]


def optimize(model: ir.Model, folder: Path) -> ir.Model:
    """Fold constants and fuse operators for any CPU (level "extended", no changes of layout).

    Args:
        model: A complete graph.
        folder: An existing scratch folder.

    Returns:
        The optimised graph; it gives the same outputs.
    """
    before, after = folder / "before.onnx", folder / "after.onnx"
    ir.save(model, before, external_data="before.data", size_threshold_bytes=1 << 20)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(after)
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", "after.data"
    )
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(1 << 20)
    )
    ort.InferenceSession(
        str(before), options, providers=["CPUExecutionProvider"], disabled_optimizers=UNWANTED
    )
    optimized = ir.load(after)
    # Read the weights now: the files are overwritten by the next call.
    ir.external_data.load_to_model(optimized)
    return optimized
