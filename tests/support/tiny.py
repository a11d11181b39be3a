"""Tiny random-weight models of real architectures, as sentence-transformers folders."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH = 32
MAX_TOKENS = 48
_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
_COMMON: dict[str, Any] = {
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
    config = kind(**{**_COMMON, "vocab_size": len(tokens), **ids, **extra})
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
