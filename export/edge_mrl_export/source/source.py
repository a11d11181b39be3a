"""A source model, loaded: its weights and settings, and how it encodes text by itself.

It keeps the *reference* encoder: what a bundle is verified against is the source as its own library runs
it, never our reading of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_mrl.errors import UsageError
from edge_mrl_export.source.batches import encode_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Source"]


#: What sentence-transformers 6 says of modules and 5 does not, where it changes nothing: a space must not
#: depend on the release that read the model.
_NEWER: dict[str, dict[str, object]] = {
    "Dense": {"use_residual": False},
    "Normalize": {
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
    },
}


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
        max_positions: The architecture's limit in tokens; None if it has none.
        pad_id: Id of the padding token.
        layer_norm: Whether a layer norm comes before truncation (Nomic's models).
        model_type: transformers' ``model_type``; "static" or "onnx" otherwise.
        reference: The whole model as its own library runs it.
        token_rows: Rows of the table of tokens; None if the network looks ids up in no table.
        first_position: The position of the first token, for graphs that ask for positions.
        mrl_dims: Prefix sizes that it was trained for (Matryoshka representation learning); empty if
            its files mention such training without sizes, None if they do not mention it.
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
    token_rows: int | None = None
    first_position: int = 0
    mrl_dims: tuple[int, ...] | None = None
    notes: tuple[str, ...] = field(default=())

    def encode(self, texts: Sequence[str], *, kind: str, max_tokens: int) -> NDArray[np.float32]:
        """Encode with the source's own library: float32[n, D], unit length."""
        self._limit(max_tokens)
        # Padding on the left shifts absolute positions: then texts must be encoded one by one.
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
        """Make the source's own library truncate texts here."""
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


def _settings(module: torch.nn.Module) -> dict[str, Any]:
    config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    newer = _NEWER.get(type(module).__name__, {})
    kept = {key: value for key, value in config.items() if (key, value) not in newer.items()}
    return {key: str(value) for key, value in sorted(kept.items())}
