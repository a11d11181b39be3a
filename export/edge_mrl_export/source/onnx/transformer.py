"""An ``.onnx`` file as a sentence-transformers module, which is also the reference.

The file is run as it is, by ONNX Runtime: what the exporter makes of its graph is compared with this.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_mrl.errors import UsageError, reason
from edge_mrl_export.source.json_files import read_json
from edge_mrl_export.source.onnx.file import (
    is_linked,
    read_graph,
    read_whole,
    refuse_quantised,
    token_rows,
)
from edge_mrl_export.source.onnx.signature import Output, Signature, choose_output, read_signature
from edge_mrl_export.source.positions import first_position, longest_that_runs

__all__ = ["OnnxTransformer"]

POOLING_MODES = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
#: Tried where no file names a longest input. BERT and its descendants take 512.
USUAL_LENGTH = 512


class OnnxTransformer(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Runs an ``.onnx`` encoder with ONNX Runtime.

    Attributes:
        path: The ``.onnx`` file, as it was named.
        root: The folder with tokenizer.json (the file's own, or the one above it).
        output: The output that is taken, and what the others are.
        pooled: Whether the graph already gives one vector per text (rank 2).
        first_position: The position of the first token, where the graph has the input position_ids.
        token_rows: Rows of the table of tokens; None if the graph has no such table.
        notes: What the user should know about how it was read.
    """

    def __init__(self, path: Path, root: Path, *, output: str | None, pools: bool) -> None:
        super().__init__()
        import onnxruntime as ort
        from tokenizers import Tokenizer

        self.root = root
        model = read_graph(path)
        refuse_quantised(model, path.name)
        self.path = path
        self.token_rows = token_rows(model)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # batches run side by side
        linked = is_linked(path, model)
        graph = read_whole(path).SerializeToString() if linked else str(path)
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.signature: Signature = read_signature(self._session, path.name)
        self.tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
        self.config = read_json(root / "config.json")
        self.pad_id = _padding_id(root, self.config, self.tokenizer)
        self.tokenizer.no_padding()
        self.first_position = 0
        if "position_ids" in self.signature.types:
            self.first_position = first_position(root, path.name)
        found = choose_output(
            self._session, self.signature, self._feeds, wanted=output, pools=pools, name=path.name
        )
        self.output: Output = found
        self.pooled, self.width = found.rank == 2, found.width
        self.notes = [found.note] if found.note else []
        self.max_seq_length: int = self._limit(path.name)

    @classmethod
    def open(
        cls, path: Path, *, output: str | None = None, pooling: str | None = None
    ) -> OnnxTransformer:
        """Open the file with the tokenizer beside it or one folder above (the hub's onnx/ layout).

        Args:
            path: The file, as it was named.
            output: The output to take; None for the one that looks most like an embedding.
            pooling: Pooling that the user named, which needs an output for each token.

        Raises:
            UsageError: There is no tokenizer.json, or the graph is unreadable, already quantised, or
                cannot be run as an encoder.
        """
        roots = (path.parent, path.parent.parent)
        root = next((r for r in roots if (r / "tokenizer.json").exists()), None)
        if root is None:
            raise UsageError(f"{path.name} needs its tokenizer.json beside it, or one folder above")
        pools = pooling is not None or (root / "modules.json").exists()
        try:
            return cls(path, root, output=output, pools=pools)
        except UsageError:
            raise
        except Exception as error:  # ONNX Runtime's own errors share no narrower public base
            raise UsageError(f"{path.name} cannot be loaded: {reason(error)}") from error

    def _limit(self, name: str) -> int:
        """The longest input in tokens: what files claim, if it runs."""
        files = (
            ("sentence_bert_config.json", "max_seq_length"),
            (
                "tokenizer_config.json",
                "model_max_length",
            ),
        )
        claims = [read_json(self.root / file).get(key) for file, key in files]
        named = next((int(c) for c in claims if isinstance(c, int | float) and 0 < c < 1e9), None)
        positions = self.config.get("max_position_embeddings")
        limit = USUAL_LENGTH if named is None else named
        if isinstance(positions, int) and positions > 0:
            limit = min(limit, positions)
        if self.signature.tokens is not None:
            limit = min(limit, self.signature.tokens)
        runs = longest_that_runs(self._try, limit)
        if named is None:
            self.notes.append(
                f"no file names a longest input: the limit is {runs} tokens, which work"
            )
        elif runs < named:
            self.notes.append(
                f"the files of {name} claim {named} tokens, but {runs} is the most that runs"
            )
        return runs

    def _try(self, tokens: int) -> None:
        mask = np.ones((1, tokens), np.int64)
        # Any token but padding, which some graphs do not count.
        self._run(np.full_like(mask, 1 if self.pad_id == 0 else 0), mask)

    def modules_after(self, pooling: str | None) -> list[torch.nn.Module]:
        """The modules that follow the graph: from modules.json, or the pooling that the user named.

        Raises:
            UsageError: The pooling is not known, or a module is remote code.
        """
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
        from sentence_transformers.util import import_from_string

        if self.pooled:
            if pooling is not None:
                raise UsageError(
                    f"--pooling is for outputs with a vector for each token; {self.output.name} has one "
                    "for each text"
                )
            return [Normalize()]
        if pooling is not None:
            modes = tuple(pooling.split("+"))
            unknown = [mode for mode in modes if mode not in POOLING_MODES]
            if unknown:
                raise UsageError(
                    f"--pooling is {pooling!r}; expected {', '.join(POOLING_MODES)}, or several joined "
                    "with +"
                )
            return [Pooling(self.width, pooling_mode=modes), Normalize()]
        entries = read_json(self.root / "modules.json")
        if not entries:
            raise UsageError(
                f"{self.path.name} gives token embeddings and no modules.json says how to pool them: "
                f"pass --pooling ({', '.join(POOLING_MODES)}; join several with +)"
            )
        loaded: list[torch.nn.Module] = []
        for entry in entries[1:]:
            if not entry["type"].startswith("sentence_transformers."):
                raise UsageError(
                    f"the module {entry['type']!r} is remote code, which edge-mrl does not run"
                )
            kind = import_from_string(entry["type"])
            loaded.append(kind.load(str(self.root), subfolder=entry["path"], local_files_only=True))
        return loaded

    def whole(self) -> Any:
        """The file's contents, an onnx.ModelProto, with the data that lies beside it."""
        return read_whole(self.path)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        """The graph's initializers, by name."""
        from onnx import numpy_helper

        graph = self.whole().graph
        return {t.name: _tensor(numpy_helper.to_array(t)) for t in graph.initializer}

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Tokenise as sentence-transformers' own input modules do: int64[n, s] each."""
        self.tokenizer.enable_truncation(int(self.max_seq_length))
        rows = [
            e.ids for e in self.tokenizer.encode_batch([(prompt or "") + text for text in inputs])
        ]
        ids = np.full((len(rows), max(map(len, rows))), self.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = values
            mask[row, : len(values)] = 1
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def tokenize(self, texts: Sequence[str], **kwargs: Any) -> dict[str, Any]:
        """The older name of ``preprocess``."""
        return self.preprocess(texts, **kwargs)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Run the graph: adds token_embeddings float32[n, s, D], or sentence_embedding float32[n, D]."""
        ids, mask = features["input_ids"].numpy(), features["attention_mask"].numpy()
        key = "sentence_embedding" if self.pooled else "token_embeddings"
        return {**features, key: torch.from_numpy(self._run(ids, mask))}

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """The output for some texts, in the sizes and types that the graph asks for."""
        parts = []
        step = self.signature.texts or len(ids)
        for start in range(0, len(ids), step):
            count = len(ids[start : start + step])
            feeds = self._feeds(ids[start : start + step], mask[start : start + step])
            (found,) = self._session.run([self.output.name], feeds)
            parts.append(found[:count] if found.ndim == 2 else found[:count, : ids.shape[1]])
        result: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
        return result

    def _feeds(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """All inputs, padded to the sizes that a graph of fixed sizes has."""
        ids, mask = self.signature.padded(ids, self.pad_id), self.signature.padded(mask, 0)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        counted = np.arange(ids.shape[1])[None] + self.first_position
        feeds["position_ids"] = np.where(mask > 0, counted, self.first_position)
        return {name: feeds[name].astype(kind) for name, kind in self.signature.types.items()}

    def save(self, *_: Any, **__: Any) -> None:
        """Part of the module interface; a reference is never saved."""


def _padding_id(root: Path, config: dict[str, Any], tokenizer: Any) -> int:
    """The padding token's id, from whichever file names it; 0 if none does."""
    named = config.get("pad_token_id")
    if isinstance(named, int):
        return named
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    token = read_json(root / "tokenizer_config.json").get("pad_token")
    content = token.get("content") if isinstance(token, dict) else token
    found = tokenizer.token_to_id(content) if isinstance(content, str) else None
    return found or 0


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """A copy; types that torch does not have, such as ONNX's bfloat16 in numpy, as float32."""
    known = array.dtype.kind in "biuf" and array.dtype.itemsize <= 8 and array.dtype.isbuiltin
    return torch.from_numpy(array.copy() if known else array.astype(np.float32))
