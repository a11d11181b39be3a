"""Source models, loaded from a folder, an ``.onnx`` file or the hub.

sentence-transformers loads its own folders and plain transformers encoders; ONNX Runtime runs ``.onnx``
files; model2vec's folders are read here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edge_mrl.errors import UsageError
from edge_mrl_export.source.completeness import note_lost, refuse_changed_tokenizer
from edge_mrl_export.source.location import DEFAULT_MODEL, locate
from edge_mrl_export.source.model2vec import Model2Vec, is_model2vec
from edge_mrl_export.source.model_card import read_licence, read_mrl_dims
from edge_mrl_export.source.onnx.transformer import OnnxTransformer
from edge_mrl_export.source.opening import open_reference, try_out
from edge_mrl_export.source.positions import LONGEST_TRIED, longest_that_runs, position_rows
from edge_mrl_export.source.prompts import apply_settings, read_prompts
from edge_mrl_export.source.refusals import (
    check_pooled_prompts,
    checked_modules,
    refuse_unsupported,
)
from edge_mrl_export.source.source import Source
from edge_mrl_export.source.table import keep_within_table

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["load_source"]

#: Limit for models without one of their own (static ones), so that one text cannot fill the memory.
UNLIMITED_TOKENS = 8192
#: Model types whose published recipe has a layer norm before truncation (Nomic Embed v1.5).
LAYER_NORM_TYPES = {"nomic_bert"}


def load_source(
    model: str | None,
    *,
    pooling: str | None = None,
    output: str | None = None,
    prompts: Mapping[str, str] | None = None,
) -> Source:
    """Load a source model.

    Args:
        model: Hub id, local folder, ``.onnx`` file, or None for all-MiniLM-L6-v2.
        pooling: Pooling mode for an ``.onnx`` file that comes without one.
        output: The output of an ``.onnx`` file that holds the embeddings; None to choose it.
        prompts: By kind ("query", "document"), a prompt or the name of one that the model has; None for
            those that sentence-transformers uses.

    Raises:
        UsageError: There is no such model, or it cannot be exported; the message says why.
        NetworkError: A hub id was given and the hub cannot be reached.
    """
    folder, label = locate(model, default=DEFAULT_MODEL)
    given = dict(prompts or {})
    if folder.suffix == ".onnx" and folder.is_file():
        source = _load_onnx(folder, label, pooling, output, given)
    else:
        for option, value in (("--pooling", pooling), ("--output-name", output)):
            if value is not None:
                raise UsageError(f"{option} is for .onnx files; this model has its own pooling")
        if is_model2vec(folder):
            source = _load_model2vec(folder, label, given)
        else:
            refuse_unsupported(folder, label)
            source = _load_sentence_transformers(folder, label, given)
    source = keep_within_table(source)
    try_out(source, label)
    return source


def _published(label: str) -> str:
    """What a bundle says that it is made of: a hub's name as it is; of a path the last part alone.

    Bundles are published, and a path tells of a person's machine.
    """
    return Path(label).resolve().name if Path(label).exists() else label


def _load_sentence_transformers(folder: Path, label: str, given: Mapping[str, str]) -> Source:
    model = open_reference(folder, label)
    modules = checked_modules(model, label)
    first, rest = modules[0], modules[1:]
    if type(first).__name__ == "StaticEmbedding":
        return _static_source(folder, label, model, given)
    notes = note_lost(folder)
    tokenizer = _tokenizer_json(first.tokenizer, special_tokens=True)
    refuse_changed_tokenizer(folder, first.tokenizer, label)
    transformer, config = first.auto_model, first.auto_model.config
    prompts, told = read_prompts(model, folder, given)
    check_pooled_prompts(prompts, rest, label)
    pad_id = int(first.tokenizer.pad_token_id or 0)
    positions = _max_positions(transformer, pad_id)
    claimed = _max_tokens(first.max_seq_length, positions)
    limit = longest_that_runs(lambda tokens: _try(transformer, tokens, pad_id), claimed)
    if limit < claimed:
        notes.append(f"the files claim {claimed} tokens, but {limit} is the most that runs")
    return Source(
        name=label.rsplit("/", 1)[-1],
        model=_published(label),
        licence=read_licence(folder),
        architecture=type(transformer).__name__,
        transformer=transformer,
        modules=rest,
        tokenizer=tokenizer,
        prompts=prompts,
        width=int(model.get_embedding_dimension() or 0),
        max_tokens=limit,
        max_positions=positions if limit == claimed else limit,
        pad_id=pad_id,
        layer_norm=config.model_type in LAYER_NORM_TYPES,
        model_type=str(config.model_type),
        reference=model,
        token_rows=int(transformer.get_input_embeddings().weight.shape[0]),
        mrl_dims=read_mrl_dims(folder),
        notes=(*notes, *told),
    )


def _try(transformer: Any, tokens: int, pad_id: int) -> None:
    """Run an input of so many tokens; long ones take seconds, and are taken on trust."""
    if tokens > LONGEST_TRIED:
        return
    ids = torch.full((1, tokens), 1 if pad_id == 0 else 0)  # any token but padding
    with torch.inference_mode():
        transformer(input_ids=ids, attention_mask=torch.ones_like(ids))


def _load_model2vec(folder: Path, label: str, given: Mapping[str, str]) -> Source:
    from sentence_transformers import SentenceTransformer

    first = Model2Vec.open(folder, label)
    reference = SentenceTransformer(modules=[first], device="cpu")
    apply_settings(reference, folder)
    return _static_source(folder, label, reference, given)


def _static_source(
    folder: Path, label: str, model: SentenceTransformer, given: Mapping[str, str]
) -> Source:
    """A model without a transformer. It does not use special tokens."""
    first, *rest = checked_modules(model, label)
    prompts, told = read_prompts(model, folder, given)
    check_pooled_prompts(prompts, tuple(rest), label)
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
        modules=tuple(rest),
        tokenizer=_tokenizer_json(first.tokenizer, special_tokens=False),
        prompts=prompts,
        width=int(model.get_embedding_dimension() or 0),
        max_tokens=_max_tokens(limit, None),
        max_positions=None,
        pad_id=0,
        layer_norm=False,
        model_type="static",
        reference=model,
        token_rows=_static_rows(first),
        mrl_dims=read_mrl_dims(folder),
        notes=(*notes, *told),
    )


def _static_rows(module: Any) -> int:
    """Rows that a static model's token ids are looked up in."""
    if isinstance(module, Model2Vec):
        return len(module.embeddings if module.mapping is None else module.mapping)
    return len(module.embedding.weight)


def _truncation(tokenizer: Any, label: str) -> int | None:
    """Where a StaticEmbedding's tokenizer truncates texts, in tokens; None if it does not."""
    settings = tokenizer.truncation
    if settings is None:
        return None
    if settings["direction"] != "right":
        raise UsageError(f"{label} truncates long texts on the left; only the right is supported")
    return int(settings["max_length"])


def _load_onnx(
    path: Path, label: str, pooling: str | None, output: str | None, given: Mapping[str, str]
) -> Source:
    from sentence_transformers import SentenceTransformer

    transformer = OnnxTransformer.open(path, output=output, pooling=pooling)
    modules = transformer.modules_after(pooling)
    reference = SentenceTransformer(modules=[transformer, *modules], device="cpu")
    root, config = transformer.root, transformer.config
    apply_settings(reference, root)
    checked_modules(reference, label)
    prompts, told = read_prompts(reference, root, given)
    check_pooled_prompts(prompts, tuple(modules), label)
    limit = transformer.max_seq_length
    return Source(
        name=_onnx_name(path, label, root),
        model=_published(label),
        licence=read_licence(root),
        architecture=str((config.get("architectures") or ["onnx"])[0]),
        transformer=transformer,
        modules=tuple(modules),
        tokenizer=_tokenizer_json(transformer.tokenizer, special_tokens=True),
        prompts=prompts,
        width=int(reference.get_embedding_dimension() or transformer.width),
        max_tokens=_max_tokens(limit, None),
        max_positions=limit,
        pad_id=transformer.pad_id,
        layer_norm=config.get("model_type") in LAYER_NORM_TYPES,
        model_type="onnx",
        reference=reference,
        token_rows=transformer.token_rows,
        first_position=transformer.first_position,
        mrl_dims=read_mrl_dims(root),
        notes=(*transformer.notes, *told),
    )


def _onnx_name(path: Path, label: str, root: Path) -> str:
    """The file's name, or where that says nothing the folder's; a hub's snapshot has the model's."""
    if not path.stem.startswith("model"):
        return path.stem
    return root.name if "/" not in label else label.split("/")[1]


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


def _max_positions(transformer: Any, pad_id: int) -> int | None:
    """Tokens that the table of positions serves, or as many as the configuration says."""
    found = position_rows(transformer, pad_id)
    limit = getattr(transformer.config, "max_position_embeddings", None)
    return found[1] if found is not None else None if limit is None else int(limit)


def _max_tokens(own: float | None, positions: int | None) -> int:
    limits = [int(x) for x in (own, positions) if x is not None and math.isfinite(x) and x < 1e9]
    return min([*limits, UNLIMITED_TOKENS])
