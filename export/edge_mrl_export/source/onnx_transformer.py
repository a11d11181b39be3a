"""An ``.onnx`` file as a sentence-transformers module, which is also the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_mrl.errors import UsageError, reason
from edge_mrl_export.source.json_files import read_json

__all__ = ["OnnxTransformer"]

POOLING_MODES = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
#: Tried, in this order, where no file names a longest input. BERT and its descendants take 512.
USUAL_LENGTHS = (512, 256, 128, 64, 32)
INTEGER_OPS = {
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QLinearMatMul",
    "QuantizeLinear",
}


class OnnxTransformer(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Runs an fp32 ``.onnx`` encoder with ONNX Runtime.

    Attributes:
        path: The ``.onnx`` file.
        root: The folder with tokenizer.json (the file's own, or the one above it).
        pooled: Whether the graph already gives one vector per text (rank 2).
    """

    def __init__(self, path: Path, root: Path) -> None:
        super().__init__()
        import onnxruntime as ort
        from tokenizers import Tokenizer

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # batches run side by side
        self.path, self.root = path, root
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = {i.name for i in self._session.get_inputs()}
        self.output, self.pooled, self.width = self._choose_output()
        self.tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.config = read_json(root / "config.json")
        self.pad_id = int(self.config.get("pad_token_id") or 0)
        limits = (
            read_json(root / "sentence_bert_config.json"),
            read_json(root / "tokenizer_config.json"),
        )
        self.max_seq_length = limits[0].get("max_seq_length") or limits[1].get("model_max_length")

    @classmethod
    def open(cls, path: Path) -> OnnxTransformer:
        """Open the file with the tokenizer beside it or one folder above (the hub's onnx/ layout).

        Raises:
            UsageError: There is no tokenizer.json, or the graph is unreadable or already quantised.
        """
        root = next(
            (r for r in (path.parent, path.parent.parent) if (r / "tokenizer.json").exists()), None
        )
        if root is None:
            raise UsageError(f"{path.name} needs its tokenizer.json beside it, or one folder above")
        _refuse_quantised(path)
        try:
            return cls(path, root)
        except UsageError:
            raise
        except Exception as error:  # ONNX Runtime's own errors share no narrower public base
            raise UsageError(f"{path.name} cannot be loaded: {reason(error)}") from error

    def _choose_output(self) -> tuple[str, bool, int]:
        unknown = self._inputs - INPUTS
        if unknown or "input_ids" not in self._inputs:
            raise UsageError(
                f"{self.path.name} has the inputs {sorted(self._inputs)}; "
                f"expected input_ids and at most {sorted(INPUTS)}"
            )
        outputs = {o.name: o.shape for o in self._session.get_outputs()}
        wanted = ("last_hidden_state", "token_embeddings", "sentence_embedding")
        name = next((n for n in wanted if n in outputs), next(iter(outputs)))
        shape = outputs[name]
        if len(shape) not in (2, 3) or not isinstance(shape[-1], int):
            raise UsageError(
                f"{self.path.name}'s output {name} has the shape {shape}; "
                "expected [texts, tokens, width] or [texts, width] with a fixed width"
            )
        return name, len(shape) == 2, shape[-1]

    def longest_input(self) -> int:
        """The longest of some usual input lengths that the graph accepts, in tokens.

        Raises:
            UsageError: The graph accepts no such length.
        """
        for length in USUAL_LENGTHS:
            ids = torch.full((1, length), self.pad_id)
            try:
                self.forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            except Exception:  # noqa: BLE001, S112 - ONNX Runtime's errors share no narrower base
                continue
            return length
        raise UsageError(f"{self.path.name} accepts no input of {USUAL_LENGTHS} tokens")

    def modules_after(self, pooling: str | None) -> list[torch.nn.Module]:
        """The modules that follow the graph: from modules.json, or the pooling that the user named.

        Raises:
            UsageError: The pooling is not known, or a module is remote code.
        """
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
        from sentence_transformers.util import import_from_string

        if self.pooled:
            return [Normalize()]
        if pooling is not None:
            return [Pooling(self.width, pooling_mode=tuple(pooling.split("+"))), Normalize()]
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

    def state_dict(self, *_: Any, **__: Any) -> dict[str, torch.Tensor]:
        """The graph's initializers, by name."""
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(str(self.path)).graph
        return {
            t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer
        }

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Tokenise as sentence-transformers' own input modules do: int64[n, s] each."""
        if self.max_seq_length and self.max_seq_length < 1e9:
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
        feeds = {"input_ids": ids, "attention_mask": mask}
        feeds["token_type_ids"] = np.zeros_like(ids)
        feeds["position_ids"] = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        given = {name: value for name, value in feeds.items() if name in self._inputs}
        (output,) = self._session.run([self.output], given)
        key = "sentence_embedding" if self.pooled else "token_embeddings"
        return {**features, key: torch.from_numpy(output)}

    def save(self, *_: Any, **__: Any) -> None:
        """Part of the module interface; a reference is never saved."""


def _refuse_quantised(path: Path) -> None:
    import onnx

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError and OSError; onnx declares no common base
        raise UsageError(f"{path.name} is not an ONNX file: {error}") from error
    found = sorted({node.op_type for node in graph.node} & INTEGER_OPS)
    if found:
        raise UsageError(
            f"{path.name} is already quantised ({', '.join(found)}): give the fp32 file, "
            "quantising twice loses accuracy"
        )
