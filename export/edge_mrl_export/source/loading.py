"""Source models, loaded from a folder, an ``.onnx`` file or the hub.

sentence-transformers loads its own folders and plain transformers encoders; ONNX Runtime runs ``.onnx``
files; model2vec's folders are read here.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from edge_mrl.errors import UsageError, reason
from edge_mrl_export.source.json_files import read_json
from edge_mrl_export.source.location import DEFAULT_MODEL, locate
from edge_mrl_export.source.model2vec import Model2Vec, is_model2vec
from edge_mrl_export.source.model_card import read_licence, read_mrl_dims
from edge_mrl_export.source.onnx_transformer import OnnxTransformer
from edge_mrl_export.source.refusals import (
    checked_modules,
    checked_prompts,
    read_prompts,
    refuse_unsupported,
)
from edge_mrl_export.source.source import Source

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["load_source"]

#: Limit for models without one of their own (static ones), so that one text cannot fill the memory.
UNLIMITED_TOKENS = 8192
#: Model types whose published recipe has a layer norm before truncation (Nomic Embed v1.5).
LAYER_NORM_TYPES = {"nomic_bert"}
SHIFTED_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"}


def load_source(model: str | None, *, pooling: str | None = None) -> Source:
    """Load a source model.

    Args:
        model: Hub id, local folder, ``.onnx`` file, or None for all-MiniLM-L6-v2.
        pooling: Pooling mode for an ``.onnx`` file that comes without one.

    Raises:
        UsageError: There is no such model, or it cannot be exported; the message says why.
        NetworkError: A hub id was given and the hub cannot be reached.
    """
    folder, label = locate(model, default=DEFAULT_MODEL)
    if folder.suffix == ".onnx":
        return _load_onnx(folder, label, pooling)
    if pooling is not None:
        raise UsageError("--pooling is for .onnx files; this model has its own pooling")
    if is_model2vec(folder):
        return _load_model2vec(folder, label)
    refuse_unsupported(folder, label)
    return _load_sentence_transformers(folder, label)


def _published(label: str) -> str:
    """What a bundle says that it is made of: a hub's name as it is; of a path the last part alone.

    Bundles are published, and a path tells of a person's machine.
    """
    return Path(label).resolve().name if Path(label).exists() else label


def _load_sentence_transformers(folder: Path, label: str) -> Source:
    model = _open_reference(folder, label)
    modules = checked_modules(model, label)
    first, rest = modules[0], modules[1:]
    if type(first).__name__ == "StaticEmbedding":
        return _static_source(folder, label, model, modules)
    notes = []
    if not (folder / "modules.json").exists():
        notes.append("no modules.json: mean pooling is assumed, as in sentence-transformers")
    transformer, config = first.auto_model, first.auto_model.config
    positions = _max_positions(config)
    return Source(
        name=label.rsplit("/", 1)[-1],
        model=_published(label),
        licence=read_licence(folder),
        architecture=type(transformer).__name__,
        transformer=transformer,
        modules=rest,
        tokenizer=_tokenizer_json(first.tokenizer, special_tokens=True),
        prompts=checked_prompts(model, rest, label),
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
    settings = read_json(folder / "config_sentence_transformers.json")
    reference.prompts.update(settings.get("prompts") or {})
    return _static_source(folder, label, reference, (first,))


def _static_source(
    folder: Path, label: str, model: SentenceTransformer, modules: tuple[torch.nn.Module, ...]
) -> Source:
    """A model without a transformer. It does not use special tokens."""
    first, rest = modules[0], modules[1:]
    notes = [
        "a static model: a text's vector is the mean of its tokens' rows, without a transformer"
    ]
    if isinstance(first, Model2Vec):
        notes.append("the reference is model2vec's computation, done in float64 by the exporter")
        architecture = (first.config.get("architectures") or ["StaticModel"])[0]
        limit = first.max_seq_length
    else:
        first.float()  # the reference is the fp32 model, whatever the file's type
        architecture, limit = type(first).__name__, _truncation(first.tokenizer, label)
    if limit is None:
        notes.append(f"no file names a longest input: the limit is {UNLIMITED_TOKENS:,} tokens")
    return Source(
        name=label.rsplit("/", 1)[-1],
        model=_published(label),
        licence=read_licence(folder),
        architecture=str(architecture),
        transformer=first,
        modules=rest,
        tokenizer=_tokenizer_json(first.tokenizer, special_tokens=False),
        prompts=checked_prompts(model, rest, label),
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
    """Where a StaticEmbedding's tokenizer truncates texts, in tokens; None if it does not."""
    settings = tokenizer.truncation
    if settings is None:
        return None
    if settings["direction"] != "right":
        raise UsageError(f"{label} truncates long texts on the left; only the right is supported")
    return int(settings["max_length"])


def _load_onnx(path: Path, label: str, pooling: str | None) -> Source:
    from sentence_transformers import SentenceTransformer

    transformer = OnnxTransformer.open(path)
    modules = transformer.modules_after(pooling)
    reference = SentenceTransformer(modules=[transformer, *modules], device="cpu")
    root = transformer.root
    reference.prompts.update(
        read_json(root / "config_sentence_transformers.json").get("prompts") or {}
    )
    checked_modules(reference, label)
    tokenizer = _tokenizer_json(transformer.tokenizer, special_tokens=True)
    config = read_json(root / "config.json")
    positions = config.get("max_position_embeddings")
    notes = []
    if not transformer.max_seq_length or transformer.max_seq_length > 1e9:
        transformer.max_seq_length = transformer.longest_input()
        notes.append(
            f"no file names a longest input: the limit is {transformer.max_seq_length} tokens, which work"
        )
    return Source(
        name=root.name if path.stem.startswith("model") else path.stem,
        model=_published(label),
        licence=read_licence(root),
        architecture=(config.get("architectures") or ["onnx"])[0],
        transformer=transformer,
        modules=tuple(modules),
        tokenizer=tokenizer,
        prompts=read_prompts(reference),
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


def _max_positions(config: Any) -> int | None:
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    # RoBERTa's positions start behind the padding id, so that many rows of the table are never used.
    offset = (config.pad_token_id or 0) + 1 if config.model_type in SHIFTED_POSITIONS else 0
    return int(limit) - offset


def _max_tokens(own: float | None, positions: int | None) -> int:
    limits = [int(x) for x in (own, positions) if x is not None and math.isfinite(x) and x < 1e9]
    return min([*limits, UNLIMITED_TOKENS])


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what transformers prints when it loads a model: advice for training."""
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
