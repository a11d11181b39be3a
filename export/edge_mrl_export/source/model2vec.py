"""model2vec folders as a sentence-transformers module, which is also the reference.

Such a folder has ``config.json``, ``tokenizer.json`` and ``model.safetensors`` with the tensor
``embeddings``; a model with a quantised vocabulary also has ``mapping`` (the row of each token) and
``weights`` (the weight of each token). The library itself cannot be used: its dependencies exclude the
transformers release that the exporter needs. So its computation is repeated here, in float64, and the
tests compare it with the library.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from edge_mrl.errors import UsageError, reason
from edge_mrl_export.source.json_files import read_json

__all__ = ["Model2Vec", "is_model2vec"]

WEIGHTS = "model.safetensors"
#: The limit of models whose config names none.
DEFAULT_TOKENS = 512
DTYPES = ("float16", "float32", "float64", "int8")


def is_model2vec(folder: Path) -> bool:
    """Whether a folder is model2vec's, by the tensor's name or by the config.

    model2vec also writes a modules.json, with which sentence-transformers reads the folder; but that
    leaves out the mapping, the weights and the limit, and keeps unknown tokens. A folder with more
    modules than these two is sentence-transformers' own.
    """
    modules = read_json(folder / "modules.json") or []
    known = ("StaticEmbedding", "Normalize")
    if any(module.get("type", "").rsplit(".", 1)[-1] not in known for module in modules):
        return False
    names = _tensor_names(folder / WEIGHTS)
    if "embedding.weight" in names:
        return False
    config = read_json(folder / "config.json") or {}
    return "embeddings" in names or config.get("model_type") == "model2vec"


class Model2Vec(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Computes what model2vec's ``StaticModel`` does.

    Tokens come from the tokenizer without special tokens, truncated to the limit; unknown tokens are
    left out; the vector is the mean of their weighted rows, or zeros if no token is left. model2vec
    also truncates a text by characters before that, to the length that the limit's tokens would have
    if all were of median length: this saves time on long texts, and is not repeated here.

    Attributes:
        embeddings: float32[K, D], or int8[K, D] as the folder has them.
        mapping: int64[V], the row of each token, or None where tokens and rows are the same.
        weights: float64[V], the weight of each token, or None for 1.
        tokenizer: The Rust tokenizer.
        unknown: Id of the unknown token, or None.
        max_seq_length: Longest input in tokens, or None for no limit.
        config: Parsed config.json.
    """

    def __init__(
        self,
        embeddings: NDArray[Any],
        tokenizer: Tokenizer,
        config: dict[str, Any],
        *,
        mapping: NDArray[np.int64] | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__()
        self.embeddings, self.mapping, self.weights = embeddings, mapping, weights
        self.tokenizer, self.config = tokenizer, config
        self.tokenizer.no_padding()
        self.unknown = _unknown(tokenizer)
        self.max_seq_length = config.get("max_length", DEFAULT_TOKENS)

    @classmethod
    def open(cls, folder: Path, label: str) -> Model2Vec:
        """Read a folder.

        Raises:
            UsageError: A file or tensor is missing, or its shape or type does not fit.
        """
        config = read_json(folder / "config.json")
        if not isinstance(config, dict) or not (folder / "config.json").is_file():
            raise UsageError(
                f"{label} has no config.json with an object: it is not a model2vec folder"
            )
        limit = config.get("max_length", DEFAULT_TOKENS)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise UsageError(
                f"{label}: max_length is {limit!r}, expected a number of tokens above 0, or null"
            )
        tokenizer = _tokenizer(folder, label)
        tensors = _tensors(folder, label)
        size = max(tokenizer.get_vocab().values()) + 1
        rows, mapping = tensors["embeddings"], tensors.get("mapping")
        weights = tensors.get("weights")
        _check_tensors(rows, mapping, weights, size, label)
        return cls(
            rows if rows.dtype == np.int8 else rows.astype(np.float32),
            tokenizer,
            config,
            mapping=None if mapping is None else mapping.astype(np.int64),
            weights=None if weights is None else weights.astype(np.float64),
        )

    def get_embedding_dimension(self) -> int:
        """Dimensions of the vector."""
        return int(self.embeddings.shape[1])

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        """The tensors, by the names that they have in the folder."""
        named = {"embeddings": self.embeddings, "mapping": self.mapping, "weights": self.weights}
        return {name: torch.from_numpy(value) for name, value in named.items() if value is not None}

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Tokenise, unknown tokens included: int64[tokens] of all texts, and where each begins."""
        if self.max_seq_length is None:
            self.tokenizer.no_truncation()
        else:
            self.tokenizer.enable_truncation(self.max_seq_length)
        texts = [(prompt or "") + text for text in inputs]
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        lengths = [0, *(len(e.ids) for e in encodings)]
        ids = [i for e in encodings for i in e.ids]
        return {
            "input_ids": torch.tensor(ids, dtype=torch.long),
            "offsets": torch.tensor(np.cumsum(lengths[:-1]), dtype=torch.long),
        }

    def tokenize(self, texts: Sequence[str], **kwargs: Any) -> dict[str, Any]:
        """The older name of ``preprocess``."""
        return self.preprocess(texts, **kwargs)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add sentence_embedding float32[n, D]."""
        ids, starts = features["input_ids"].numpy(), features["offsets"].numpy()
        vectors = [self._mean(row) for row in np.split(ids, starts[1:])]
        stacked = np.stack(vectors).astype(np.float32)
        return {**features, "sentence_embedding": torch.from_numpy(stacked)}

    def save(self, *_: Any, **__: Any) -> None:
        """Part of the module interface; a reference is never saved."""

    def _mean(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        known = ids if self.unknown is None else ids[ids != self.unknown]
        if not len(known):
            return np.zeros(self.embeddings.shape[1])
        rows = self.embeddings[known if self.mapping is None else self.mapping[known]]
        rows = rows.astype(np.float64)
        if self.weights is not None:
            rows *= self.weights[known][:, None]
        mean: NDArray[np.float64] = rows.mean(axis=0)
        return mean


def _tensors(folder: Path, label: str) -> dict[str, NDArray[Any]]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise UsageError(f"{label} has no {WEIGHTS}, where a model2vec folder has its table")
    try:
        tensors: dict[str, NDArray[Any]] = load_file(path)
    except (SafetensorError, OSError, TypeError, KeyError) as error:  # the last two: odd types
        raise UsageError(f"{label}: {WEIGHTS} cannot be loaded: {reason(error)}") from error
    if "embeddings" not in tensors:
        raise UsageError(
            f"{label}: {WEIGHTS} has the tensors {sorted(tensors)}, expected 'embeddings'"
        )
    return tensors


def _check_tensors(
    rows: NDArray[Any],
    mapping: NDArray[Any] | None,
    weights: NDArray[Any] | None,
    size: int,
    label: str,
) -> None:
    if rows.ndim != 2 or not rows.size or rows.dtype.name not in DTYPES:
        raise UsageError(
            f"{label}: embeddings is {rows.dtype.name}{list(rows.shape)}, expected [tokens, width] "
            f"of {', '.join(DTYPES)}"
        )
    if mapping is None and len(rows) != size:
        raise UsageError(
            f"{label}: embeddings has {len(rows):,} rows, but the tokenizer has {size:,} tokens, "
            "and there is no tensor 'mapping'"
        )
    for name, value, kinds in (("mapping", mapping, "iu"), ("weights", weights, "f")):
        if value is not None and (value.shape != (size,) or value.dtype.kind not in kinds):
            raise UsageError(
                f"{label}: {name} is {value.dtype.name}{list(value.shape)}, expected one "
                f"{'integer' if kinds == 'iu' else 'float'} for each of {size:,} tokens"
            )
    if mapping is not None and not (mapping.min() >= 0 and mapping.max() < len(rows)):
        raise UsageError(
            f"{label}: mapping names rows {mapping.min()} to {mapping.max()}, "
            f"but embeddings has {len(rows):,} rows"
        )


def _tokenizer(folder: Path, label: str) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UsageError(f"{label} has no tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust binding raises bare Exception
        raise UsageError(f"{label}: tokenizer.json cannot be loaded: {reason(error)}") from error


def _unknown(tokenizer: Tokenizer) -> int | None:
    """Id of the token for text that is not in the vocabulary; None if there is no such token."""
    model = json.loads(tokenizer.to_str())["model"]
    if model["type"] == "Unigram":
        unknown: int | None = model.get("unk_id")
        return unknown
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


def _tensor_names(path: Path) -> set[str]:
    from safetensors import safe_open

    if not path.is_file():
        return set()
    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except (SafetensorError, OSError):
        return set()
