"""Tiny models of real architectures with random weights, as folders of their libraries, and exports."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import shutil
import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from filelock import FileLock
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from edge_mrl_export import build
from edge_mrl_export.build import Export
from edge_mrl_export.bundle import check_output
from edge_mrl_export.codes import head
from edge_mrl_export.recipe import Recipe
from tests.support.bundles import SHARED, exporter_digest

WIDTH = 32
MAX_TOKENS = 48
_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
#: What each configuration below begins with.
MODEL: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}

#: transformers configuration by architecture, and how the model is pooled.
CONFIGS: dict[str, tuple[type, dict[str, Any], str]] = {
    "bert": (transformers.BertConfig, {}, "mean"),
    "roberta": (transformers.RobertaConfig, {}, "mean"),
    "xlm-roberta": (transformers.XLMRobertaConfig, {}, "cls"),
    "mpnet": (transformers.MPNetConfig, {}, "mean"),
    "distilbert": (
        transformers.DistilBertConfig,
        {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "mean",
    ),
    "electra": (transformers.ElectraConfig, {"embedding_size": 16}, "mean"),
    "albert": (transformers.AlbertConfig, {"embedding_size": 16}, "mean"),
    "deberta-v2": (
        transformers.DebertaV2Config,
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        "mean",
    ),
    "modernbert": (
        transformers.ModernBertConfig,
        {"global_attn_every_n_layers": 2, "local_attention": 8, "reference_compile": False},
        "cls",
    ),
    "gemma3": (
        transformers.Gemma3TextConfig,
        {
            "head_dim": 8,
            "num_key_value_heads": 2,
            "sliding_window": 16,
            "use_bidirectional_attention": True,
        },
        "mean",
    ),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 8, "num_key_value_heads": 2}, "lasttoken"),
}


def tokenizer(*, padding_side: str = "right") -> transformers.PreTrainedTokenizerFast:
    """A WordPiece tokenizer over letters, with <pad> at 1 as RoBERTa's positions expect."""
    pieces = [*string.ascii_lowercase, *string.digits, *".,:;!?'-"]
    words = ["the", "and", "of", "to", "a", "in", "##ing", "##ed", "##er", "##s"]
    tokens = [*_SPECIALS, *pieces, *(f"##{p}" for p in string.ascii_lowercase + string.digits)]
    tokens += [w for w in words if w not in tokens]
    rust = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    rust.normalizer = normalizers.BertNormalizer()
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
        padding_side=padding_side,
        model_input_names=["input_ids", "attention_mask"],
    )


def transformer_folder(folder: Path, architecture: str, *, padding_side: str = "right") -> Path:
    """Save a plain transformers model with random weights, larger than usual so that they matter."""
    kind, extra, _ = CONFIGS[architecture]
    tokens = tokenizer(padding_side=padding_side)
    ids = {"bos_token_id": 0, "cls_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
    config = kind(**{**MODEL, "vocab_size": len(tokens), **ids, **extra})
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def sentence_folder(
    folder: Path,
    architecture: str = "bert",
    *,
    pooling: str | tuple[str, ...] | None = None,
    modules: tuple[torch.nn.Module, ...] = (),
    prompts: dict[str, str] | None = None,
    padding_side: str = "right",
    **pooling_options: Any,
) -> Path:
    """Save a sentence-transformers model: transformer, pooling, and the given modules."""
    plain = transformer_folder(folder / "plain", architecture, padding_side=padding_side)
    first = Transformer(str(plain), max_seq_length=MAX_TOKENS)
    mode = pooling or CONFIGS[architecture][2]
    pool = Pooling(WIDTH, pooling_mode=mode, **pooling_options)
    model = SentenceTransformer(modules=[first, pool, *modules], device="cpu", prompts=prompts)
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def static_folder(
    folder: Path,
    *,
    width: int = 24,
    modules: tuple[torch.nn.Module, ...] = (),
    prompts: dict[str, str] | None = None,
    max_tokens: int | None = None,
) -> Path:
    """Save a StaticEmbedding model with random rows; its tokenizer adds special tokens if it is let."""
    torch.manual_seed(7)
    rust = tokenizer().backend_tokenizer
    if max_tokens is not None:
        rust.enable_truncation(max_tokens)
    first = StaticEmbedding(rust, embedding_weights=torch.randn(rust.get_vocab_size(), width))
    model = SentenceTransformer(modules=[first, *modules], device="cpu", prompts=prompts)
    model.save(str(folder), create_model_card=False)
    return folder


def model2vec_folder(
    folder: Path,
    *,
    width: int = 24,
    dtype: str = "float32",
    clusters: int | None = None,
    weights: bool = False,
    **config: Any,
) -> Path:
    """Save random rows as model2vec does: one for each token, or one for each cluster of tokens."""
    random = np.random.default_rng(7)
    rust = tokenizer().backend_tokenizer
    size = rust.get_vocab_size()
    rows = random.normal(size=(clusters or size, width))
    tensors = {"embeddings": (rows * 30 if dtype == "int8" else rows).astype(dtype)}
    if clusters is not None:
        tensors["mapping"] = random.integers(0, clusters, size)
    if weights:
        tensors["weights"] = random.uniform(1e-3, 1, size)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    rust.save(str(folder / "tokenizer.json"))
    settings = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True}
    (folder / "config.json").write_text(json.dumps({**settings, **config}), "utf-8")
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file in place."""
    data = json.loads(path.read_text("utf-8"))
    data.update(changes)
    path.write_text(json.dumps(data), encoding="utf-8")


def export(model: str, output: Path, recipe: Recipe, *, force: bool = False) -> Export:
    """What ``edge_mrl_export.build.export`` gives, made once for all tests, workers and runs.

    For tests of what an export gives. Those of how it comes about, and of what is refused, call the
    exporter itself. An export is kept by a digest of all that it depends on.
    """
    output = output.expanduser().absolute()
    check_output(output, force=force)
    kept = SHARED / f"tiny-{_digest(Path(model), recipe)[:24]}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):  # tests run side by side
        if not kept.exists():
            _make(model, kept, recipe)
    if output.exists():
        shutil.rmtree(output)
    shutil.copytree(kept / "bundle", output)
    done: Export = pickle.loads((kept / "export").read_bytes())
    return dataclasses.replace(done, path=output)


def _make(model: str, kept: Path, recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="making-") as scratch:
        folder = Path(scratch) / "made"
        done = build.export(model, folder / "bundle", recipe)
        (folder / "export").write_bytes(pickle.dumps(done))
        folder.rename(kept)


def _digest(model: Path, recipe: Recipe) -> str:
    """Of the exporter, the model, and what was asked for; files count by what is in them."""
    digest = hashlib.sha256(exporter_digest().encode())
    files = (
        sorted(path for path in model.rglob("*") if path.is_file()) if model.is_dir() else [model]
    )
    for path in files:
        digest.update(f"{path.relative_to(model.parent)}\0".encode())
        digest.update(path.read_bytes())
    asked = dataclasses.asdict(recipe)
    for name in ("corpus", "pairs", "head"):
        path = Path(asked[name] or "")
        if path.is_file():
            asked[name] = (path.name, path.read_bytes())
    digest.update(repr([*sorted(asked.items()), *head.shipped_passages()]).encode())
    return digest.hexdigest()
