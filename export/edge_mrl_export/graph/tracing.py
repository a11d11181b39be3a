"""The source model as an fp32 ONNX graph with fused attention and layer norms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from edge_mrl_export.graph.adoption import adopt
from edge_mrl_export.graph.static_table import static_graph, static_table
from edge_mrl_export.graph.tracers import HIDDEN, hushed, trace
from edge_mrl_export.source import Source

__all__ = ["source_graph"]

#: Architectures for which ONNX Runtime's BERT fusions find something. Others are left to the fusions
#: that ONNX Runtime applies to every graph.
FUSED_TYPES = {"albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
#: Largest difference in the output that a fusion may make; fp32 kernels differ by some 1e-6.
FUSION_TOLERANCE = 1e-4


def source_graph(
    source: Source, folder: Path, *, precision: str = "fp32", tracer: str = "auto"
) -> ir.Model:
    """Trace the source's transformer, and fuse operators where that changes no result.

    Args:
        source: The loaded source model.
        folder: An existing scratch folder.
        precision: "int8" gives static models an int8 table at once; others are traced in fp32.
        tracer: What traces transformers models, a key of ``tracers.TRACERS``.

    Returns:
        A graph with the source's own inputs and first output float32[texts, tokens, width]; for
        static models and pooled .onnx files float32[texts, width].

    Raises:
        UsageError: The architecture cannot be traced.
        MissingDependencyError: The tracer is not installed.
    """
    if source.model_type == "static":
        return _static_graph(source, int8=precision == "int8")
    if source.model_type == "onnx":
        return adopt(source, folder)
    path = trace(source.transformer, source.architecture, folder, tracer=tracer)
    fused = _fuse(source, path)
    return _keep_output(ir.load(fused), HIDDEN)


def _static_graph(source: Source, *, int8: bool) -> ir.Model:
    table = static_table(source.transformer)
    mean = any(type(module).__name__ != "Normalize" for module in source.modules)
    return static_graph(table.as_int8() if int8 else table.as_float32(), mean=mean)


def _fuse(source: Source, path: Path) -> Path:
    """ONNX Runtime's transformer fusions, kept only if they change nothing but the speed."""
    if source.model_type not in FUSED_TYPES:
        return path
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    config = source.transformer.config
    options = FusionOptions("bert")
    options.use_multi_head_attention = True  # plain MatMuls stay outside, where they can be int8
    options.enable_embed_layer_norm = False  # the table stays a Gather, which can be int8
    fused = path.with_name("fused.onnx")
    with hushed():
        model = optimize_model(
            str(path),
            "bert",
            num_heads=getattr(config, "num_attention_heads", 0),
            hidden_size=getattr(config, "hidden_size", 0),
            optimization_options=options,
            opt_level=0,
        )
        model.save_model_to_file(str(fused))
    return fused if _same_output(path, fused) else path


def _same_output(left: Path, right: Path) -> bool:
    """Whether two graphs agree on a small padded batch."""
    import onnxruntime as ort

    ids = np.array([[1, 5, 6, 7, 8, 2], [1, 9, 2, 0, 0, 0]], dtype=np.int64)
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], dtype=np.int64)
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    results = []
    for path in (left, right):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = {i.name for i in session.get_inputs()}
        hidden = session.run(None, {k: v for k, v in feeds.items() if k in names})[0]
        results.append(hidden[mask.astype(bool)])
    return bool(np.abs(results[0] - results[1]).max() <= FUSION_TOLERANCE)


def _keep_output(model: ir.Model, name: str) -> ir.Model:
    kept = [value for value in model.graph.outputs if value.name == name]
    model.graph.outputs[:] = kept or model.graph.outputs[:1]
    return model
