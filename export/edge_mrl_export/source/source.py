"""The source model: where it comes from, and how it encodes text by itself.

A source is loaded by sentence-transformers (which also loads plain transformers encoders), or is an
``.onnx`` file that ONNX Runtime runs. Either way it keeps the *reference* encoder: what a bundle is
verified against is the source as its own library runs it, never our reading of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from edge_mrl.errors import UsageError, reason
from edge_mrl_export.source.batches import encode_texts
from edge_mrl_export.source.card import read_licence, read_mrl_dims
from edge_mrl_export.source.location import DEFAULT_MODEL
from edge_mrl_export.source.model2vec import Model2Vec, is_model2vec
from edge_mrl_export.source.reference import OnnxTransformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Source", "load_source"]

#: Models without a limit of their own (static ones) are cut here, so that one text cannot fill the RAM.
UNLIMITED_TOKENS = 8192
#: Model types whose published recipe takes a layer norm before the cut (Nomic Embed v1.5).
LAYER_NORM_TYPES = {"nomic_bert"}
SUPPORTED_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "StaticEmbedding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source model, loaded.

    Attributes:
        name: Short name, for people.
        model: Hub id, package or file name; never a path of this machine.
        licence: SPDX-like id, or "unknown".
        architecture: Class of the transformer, e.g. "BertModel".
        transformer: The network that gives token embeddings: a transformers model, an
            ``OnnxTransformer``, or a StaticEmbedding or Model2Vec module.
        modules: What follows it, as sentence-transformers modules in order.
        tokenizer: Parsed tokenizer.json, with neither truncation nor padding.
        prompts: Text put before the input, by kind ("query", "document").
        width: Dimensions of the full vector.
        max_tokens: Longest input in tokens, special tokens included.
        max_positions: What the architecture allows, or None.
        pad_id: Token id used as padding.
        layer_norm: Whether the cut is preceded by a layer norm (Nomic-type models).
        model_type: transformers' ``model_type``; "static" or "onnx" otherwise.
        reference: The whole model as its own library runs it.
        mrl_dims: Prefix sizes that it was trained for (Matryoshka representation learning), empty
            where its files say that it was but not for which; None where they say nothing.
        notes: What the user should know about how it was read.
    """

    name: str
    model: str
    licence: str
    architecture: str
    transformer: Any
    modules: tuple[torch.nn.Module, ...]
    tokenizer: dict[str, Any]
    prompts: dict[str, str]
    width: int
    max_tokens: int
    max_positions: int | None
    pad_id: int
    layer_norm: bool
    model_type: str
    reference: SentenceTransformer
    mrl_dims: tuple[int, ...] | None = None
    notes: tuple[str, ...] = field(default=())

    def encode(self, texts: Sequence[str], *, kind: str, max_tokens: int) -> NDArray[np.float32]:
        """Encode with the source's own library: float32[n, D], unit length."""
        self._limit(max_tokens)
        # Padded on the left, absolute positions shift: then only a text alone is what the model means.
        side = getattr(self.reference.tokenizer, "padding_side", "right")
        prompt = self.prompts[kind]
        return encode_texts(self.reference, texts, prompt, padded=side == "right")

    def token_ids(self, texts: Sequence[str], *, kind: str, max_tokens: int) -> list[list[int]]:
        """Token ids as the source's own library makes them, without padding."""
        self._limit(max_tokens)
        rows = []
        for text in texts:
            features = self.reference.preprocess([text], prompt=self.prompts[kind])
            rows.append([int(i) for i in features["input_ids"].reshape(-1)])
        return rows

    def _limit(self, max_tokens: int) -> None:
        """Let the source's own library cut texts here."""
        if type(self.transformer).__name__ == "StaticEmbedding":  # its limit is its tokenizer's
            self.transformer.tokenizer.enable_truncation(max_tokens)
        else:
            self.reference.max_seq_length = max_tokens

    def tensors(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Name and value of each weight, the transformer's first."""
        parts: list[tuple[str, Any]] = [("transformer", self.transformer)]
        parts += [(f"module.{i}", module) for i, module in enumerate(self.modules)]
        for prefix, part in parts:
            for name, tensor in sorted(part.state_dict().items()):
                value = tensor.detach().to(torch.float32) if tensor.is_floating_point() else tensor
                yield f"{prefix}.{name}", value.cpu().numpy()

    def baked(self) -> list[str]:
        """What follows the network, in order, in words."""
        steps = []
        for module in self.modules:
            name = type(module).__name__.lower()
            if name == "pooling":
                modes = module.pooling_mode
                name = f"{modes if isinstance(modes, str) else ' + '.join(modes)} pooling"
            elif name == "dense":
                name = f"dense layer, {module.in_features} to {module.out_features} dimensions"
            elif name == "layernorm":
                name = "layer norm"
            elif name == "normalize":
                name = "unit length"
            steps.append(name)
        return steps or ["mean of the tokens' rows"]

    def space_id(self) -> str:
        """SHA-256 that names the embedding space of ``full`` (FORMAT.md, "Space")."""
        digest = hashlib.sha256()
        for name, value in self.tensors():
            digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).data)
        modules = [(type(m).__name__, _settings(m)) for m in self.modules]
        contract = {"tokenizer": self.tokenizer, "modules": modules, "prompts": self.prompts}
        digest.update(
            json.dumps(contract, sort_keys=True, ensure_ascii=False).encode(
                "utf-8", "surrogatepass"
            )
        )
        return digest.hexdigest()

    def check_finite(self) -> None:
        """Raise UsageError naming the first weight that holds NaN or infinity."""
        for name, value in self.tensors():
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                bad = int((~np.isfinite(value)).sum())
                raise UsageError(
                    f"weight {name!r} of {self.name} holds {bad} values that are not finite; "
                    "the model is damaged: get it again"
                )


def load_source(model: str | None, *, pooling: str | None = None) -> Source:
    """Load a source model.

    Args:
        model: Hub id, local folder, ``.onnx`` file, or None for all-MiniLM-L6-v2.
        pooling: Pooling mode for an ``.onnx`` file that comes without one.

    Raises:
        UsageError: No such model, or one that cannot be exported; the message names the reason.
        NetworkError: A hub id was given and the hub cannot be reached.
    """
    from edge_mrl_export.source.location import locate

    folder, label = locate(model, default=DEFAULT_MODEL)
    if folder.suffix == ".onnx":
        return _load_onnx(folder, label, pooling)
    if pooling is not None:
        raise UsageError("--pooling is for .onnx files; this model brings its own pooling")
    if is_model2vec(folder):
        return _load_model2vec(folder, label)
    _refuse_unsupported(folder, label)
    return _load_sentence_transformers(folder, label)


def _load_sentence_transformers(folder: Path, label: str) -> Source:
    model = _open_reference(folder, label)
    modules = _checked_modules(model, label)
    first, rest = modules[0], modules[1:]
    if type(first).__name__ == "StaticEmbedding":
        return _static_source(folder, label, model, modules)
    notes = []
    if not (folder / "modules.json").exists():
        notes.append("no modules.json: mean pooling is assumed, as sentence-transformers does")
    transformer, config = first.auto_model, first.auto_model.config
    positions = _max_positions(config)
    return Source(
        name=label.rsplit("/", 1)[-1],
        model=label,
        licence=read_licence(folder),
        architecture=type(transformer).__name__,
        transformer=transformer,
        modules=rest,
        tokenizer=_tokenizer_json(first.tokenizer, special_tokens=True),
        prompts=_checked_prompts(model, rest, label),
        width=int(model.get_embedding_dimension() or 0),
        max_tokens=_max_tokens(first.max_seq_length, positions),
        max_positions=positions,
        pad_id=int(first.tokenizer.pad_token_id or 0),
        layer_norm=config.model_type in LAYER_NORM_TYPES,
        model_type=str(config.model_type),
        reference=model,
        mrl_dims=read_mrl_dims(folder),
        notes=tuple(notes),
    )


def _load_model2vec(folder: Path, label: str) -> Source:
    from sentence_transformers import SentenceTransformer

    first = Model2Vec.open(folder, label)
    reference = SentenceTransformer(modules=[first], device="cpu")
    settings = _json(folder / "config_sentence_transformers.json")
    reference.prompts.update(settings.get("prompts") or {})
    return _static_source(folder, label, reference, (first,))


def _static_source(
    folder: Path, label: str, model: SentenceTransformer, modules: tuple[torch.nn.Module, ...]
) -> Source:
    """A model without a transformer, which reads tokens without special ones."""
    first, rest = modules[0], modules[1:]
    notes = ["a static model: the mean of its tokens' rows, without a transformer's products"]
    if isinstance(first, Model2Vec):
        notes.append("compared with what model2vec computes, done in float64 by the exporter")
        architecture = (first.config.get("architectures") or ["StaticModel"])[0]
        limit = first.max_seq_length
    else:
        first.float()  # the reference is the fp32 model, whatever the file's type
        architecture, limit = type(first).__name__, _truncation(first.tokenizer, label)
    if limit is None:
        notes.append(f"no file says how long an input may be: {UNLIMITED_TOKENS:,} tokens are read")
    return Source(
        name=label.rsplit("/", 1)[-1],
        model=label,
        licence=read_licence(folder),
        architecture=str(architecture),
        transformer=first,
        modules=rest,
        tokenizer=_tokenizer_json(first.tokenizer, special_tokens=False),
        prompts=_checked_prompts(model, rest, label),
        width=int(model.get_embedding_dimension() or 0),
        max_tokens=_max_tokens(limit, None),
        max_positions=None,
        pad_id=0,
        layer_norm=False,
        model_type="static",
        reference=model,
        mrl_dims=read_mrl_dims(folder),
        notes=tuple(notes),
    )


def _truncation(tokenizer: Any, label: str) -> int | None:
    """Where a StaticEmbedding's tokenizer cuts texts, in tokens."""
    settings = tokenizer.truncation
    if settings is None:
        return None
    if settings["direction"] != "right":
        raise UsageError(f"{label} cuts long texts on the left; only the right can be baked")
    return int(settings["max_length"])


def _load_onnx(path: Path, label: str, pooling: str | None) -> Source:
    from sentence_transformers import SentenceTransformer

    transformer = OnnxTransformer.open(path)
    modules = transformer.modules_after(pooling)
    reference = SentenceTransformer(modules=[transformer, *modules], device="cpu")
    root = transformer.root
    reference.prompts.update(_json(root / "config_sentence_transformers.json").get("prompts") or {})
    _checked_modules(reference, label)
    tokenizer = _tokenizer_json(transformer.tokenizer, special_tokens=True)
    config = _json(root / "config.json")
    positions = config.get("max_position_embeddings")
    notes = []
    if not transformer.max_seq_length or transformer.max_seq_length > 1e9:
        transformer.max_seq_length = transformer.longest_input()
        notes.append(
            f"no file says how long an input may be: {transformer.max_seq_length} tokens work"
        )
    return Source(
        name=root.name if path.stem.startswith("model") else path.stem,
        model=label,
        licence=read_licence(root),
        architecture=(config.get("architectures") or ["onnx"])[0],
        transformer=transformer,
        modules=tuple(modules),
        tokenizer=tokenizer,
        prompts=_prompts(reference),
        width=int(reference.get_embedding_dimension() or transformer.width),
        max_tokens=_max_tokens(transformer.max_seq_length, positions),
        max_positions=positions,
        pad_id=transformer.pad_id,
        layer_norm=config.get("model_type") in LAYER_NORM_TYPES,
        model_type="onnx",
        reference=reference,
        mrl_dims=read_mrl_dims(root),
        notes=tuple(notes),
    )


def _open_reference(folder: Path, label: str) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    try:
        with _quiet():
            model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                model_kwargs={"dtype": torch.float32},
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"{label} cannot be loaded: {reason(error)}") from error
    return model.eval()


def _refuse_unsupported(folder: Path, label: str) -> None:
    """Refuse what must not even be loaded: remote code and text generators."""
    modules = _json(folder / "modules.json", default=[])
    for module in modules:
        kind = module.get("type", "")
        if not kind.startswith("sentence_transformers."):
            raise UsageError(
                f"{label} needs the module {kind!r}, which is code from the model's repository; "
                "edge-mrl runs none (trust_remote_code is not supported): "
                "export the model to .onnx with its own tools and pass that file"
            )
    config = _json(folder / "config.json") or _json(folder / "0_Transformer" / "config.json")
    if not config and not modules:
        raise UsageError(f"{label} has neither modules.json nor config.json: it is no model folder")
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
            f"{label} is of type {model_type!r}, which needs {why}; edge-mrl runs no remote code: "
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


def _checked_modules(model: SentenceTransformer, label: str) -> tuple[torch.nn.Module, ...]:
    """The model's modules without those that do nothing when encoding."""
    modules = tuple(m for m in model if type(m).__name__ != "Dropout")
    for module in modules:
        name = type(module).__name__
        if name not in (*SUPPORTED_MODULES, "OnnxTransformer"):
            raise UsageError(
                f"{label} has the module {name!r}; supported are {', '.join(SUPPORTED_MODULES)}"
            )
        if getattr(module, "module_input_name", "sentence_embedding") != "sentence_embedding":
            raise UsageError(
                f"{label} has a {name} over {module.module_input_name!r} "
                "(late interaction?); only one vector per text is supported"
            )
    if not modules or type(modules[0]).__name__ not in (
        "Transformer",
        "StaticEmbedding",
        "OnnxTransformer",
    ):
        raise UsageError(f"{label} does not start with a Transformer or StaticEmbedding module")
    return modules


def _tokenizer_json(tokenizer: Any, *, special_tokens: bool) -> dict[str, Any]:
    """The Rust tokenizer as parsed tokenizer.json, without truncation and padding."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        raise UsageError(
            f"{type(tokenizer).__name__} has no fast version: a tokenizer.json is needed"
        )
    parsed: dict[str, Any] = json.loads(backend.to_str())
    parsed["truncation"] = parsed["padding"] = None
    if not special_tokens:
        parsed["post_processor"] = None
    return parsed


def _prompts(model: SentenceTransformer) -> dict[str, str]:
    """Prompts by kind; passages and corpora are documents, and a default prompt serves both."""
    known = model.prompts
    default = known.get(model.default_prompt_name or "", "") or ""

    def first(*names: str) -> str:
        return next((known[n] for n in names if known.get(n)), default)

    return {
        "document": first("document", "passage", "corpus", "search_document"),
        "query": first("query", "search_query"),
    }


def _checked_prompts(
    model: SentenceTransformer, modules: tuple[torch.nn.Module, ...], label: str
) -> dict[str, str]:
    prompts = _prompts(model)
    if any(prompts.values()) and not all(getattr(m, "include_prompt", True) for m in modules):
        raise UsageError(
            f"{label} has prompts that its pooling leaves out (include_prompt=False, as INSTRUCTOR "
            "models do); only pooling over all tokens can be baked"
        )
    return prompts


def _max_positions(config: Any) -> int | None:
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    # RoBERTa's positions start behind the padding id, so that many rows of the table are never used.
    offset = (config.pad_token_id or 0) + 1 if config.model_type in _SHIFTED_POSITIONS else 0
    return int(limit) - offset


_SHIFTED_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"}


def _max_tokens(own: float | None, positions: int | None) -> int:
    limits = [int(x) for x in (own, positions) if x is not None and math.isfinite(x) and x < 1e9]
    return min([*limits, UNLIMITED_TOKENS])


def _settings(module: torch.nn.Module) -> dict[str, Any]:
    config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return {key: str(value) for key, value in sorted(config.items())}


def _json(path: Path, default: Any = None) -> Any:
    if not path.exists():
        return {} if default is None else default
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UsageError(f"{path.name} is not valid JSON: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading prints advice for people who train; none of it helps here."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
