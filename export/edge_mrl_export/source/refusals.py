"""What cannot be exported, refused with the reason, and what can, checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edge_mrl.errors import UsageError
from edge_mrl_export.source.completeness import listed_modules, refuse_incomplete
from edge_mrl_export.source.json_files import read_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["check_pooled_prompts", "checked_modules", "refuse_unsupported"]

SUPPORTED_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "StaticEmbedding")
#: Modules of our own, which read files of other kinds.
OWN_MODULES = ("OnnxTransformer", "Model2Vec")


def refuse_unsupported(folder: Path, label: str) -> None:
    """Refuse what must not even be loaded: code from a model's repository, and text generators.

    Raises:
        UsageError: The folder holds such a model, or none at all.
    """
    modules = listed_modules(folder)
    for module in modules:
        kind = module["type"]
        if not kind.startswith("sentence_transformers."):
            raise UsageError(
                f"{label} needs the module {kind!r}, which is code from the model's repository; "
                "edge-mrl runs no such code (trust_remote_code is not supported): "
                "export the model to .onnx with its own tools and pass that file"
            )
    config = read_json(folder / "config.json") or read_json(
        folder / "0_Transformer" / "config.json"
    )
    if not isinstance(config, dict):
        raise UsageError(
            f"config.json of {label} holds {type(config).__name__}, expected an object"
        )
    if not config and not modules:
        raise UsageError(
            f"{label} has neither modules.json nor config.json: it is not a model folder"
        )
    refuse_incomplete(folder, label, modules)
    if config.get("quantization_config"):
        method = config["quantization_config"]
        method = (
            method.get("quant_method") if isinstance(method, dict) else None
        ) or "quantization_config"
        raise UsageError(
            f"{label} is already quantised ({method}, in config.json): give the model with fp32 or fp16 "
            "weights; quantising twice loses accuracy"
        )
    model_type = config.get("model_type")
    static = bool(modules) and modules[0]["type"].endswith(".StaticEmbedding")
    if model_type and not static:
        _refuse_model_type(config, label, has_modules=bool(modules))


def _refuse_model_type(config: dict[str, Any], label: str, *, has_modules: bool) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    model_type = config["model_type"]
    if model_type not in CONFIG_MAPPING_NAMES:
        why = (
            "its own code (trust_remote_code)" if config.get("auto_map") else "a newer transformers"
        )
        raise UsageError(
            f"{label} has the type {model_type!r}, which needs {why}; edge-mrl runs no remote code: "
            "export the model to .onnx with its own tools and pass that file"
        )
    generator = (
        model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
    if generator and not has_modules:
        raise UsageError(
            f"{label} is a decoder ({model_type}) without an embedding recipe (no modules.json "
            "that says how to pool): it generates text and gives no useful embeddings"
        )


def checked_modules(model: SentenceTransformer, label: str) -> tuple[torch.nn.Module, ...]:
    """The model's modules without those that do nothing when encoding.

    Raises:
        UsageError: The bundle's graph cannot contain one of them.
    """
    modules = tuple(m for m in model if type(m).__name__ != "Dropout")
    for module in modules:
        name = type(module).__name__
        if name not in SUPPORTED_MODULES + OWN_MODULES:
            raise UsageError(
                f"{label} has the module {name!r}; supported are {', '.join(SUPPORTED_MODULES)}"
            )
        if getattr(module, "module_input_name", "sentence_embedding") != "sentence_embedding":
            raise UsageError(
                f"{label} has a {name} over {module.module_input_name!r} "
                "(late interaction?); only models with one vector for each text are supported"
            )
    if not modules or type(modules[0]).__name__ not in (
        "Transformer",
        "StaticEmbedding",
        *OWN_MODULES,
    ):
        raise UsageError(f"{label} does not start with a Transformer or StaticEmbedding module")
    return modules


def check_pooled_prompts(
    prompts: dict[str, str], modules: tuple[torch.nn.Module, ...], label: str
) -> None:
    """Refuse prompts whose tokens pooling leaves out.

    Raises:
        UsageError: There are such prompts.
    """
    if any(prompts.values()) and not all(getattr(m, "include_prompt", True) for m in modules):
        raise UsageError(
            f"{label} has prompts that its pooling leaves out (include_prompt=False, as INSTRUCTOR "
            "models do); only pooling over all tokens is supported"
        )
