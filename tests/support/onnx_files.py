"""``.onnx`` files as other people's exporters write them, made from tiny models."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers

__all__ = ["to_hub_cache", "to_onnx", "with_external_data"]

#: Where torch's exporter writes a length that varies.
DYNAMIC = {0: "texts", 1: "tokens"}


class Network(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """A transformers model whose inputs have an order, and whose outputs are tensors."""

    def __init__(self, model: Any, outputs: list[str]) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, ids: Any, mask: Any, positions: Any = None) -> Any:
        given = {} if positions is None else {"position_ids": positions}
        hidden = self.model(input_ids=ids, attention_mask=mask, **given).last_hidden_state
        shares = mask.unsqueeze(-1).to(hidden.dtype)
        made = {
            "last_hidden_state": hidden,
            "sentence_embedding": (hidden * shares).sum(1) / shares.sum(1),
            "cls": hidden[:, 0],
            "other": hidden * 2,
        }
        return tuple(made[name] for name in self.outputs)


def to_onnx(
    folder: Path,
    target: Path,
    *,
    opset: int = 18,
    ids: torch.dtype = torch.int64,
    positions: bool = False,
    static: tuple[int, int] | None = None,
    outputs: tuple[str, ...] = ("last_hidden_state",),
) -> Path:
    """Write target/model.onnx from a model's folder, with copies of what describes it.

    Args:
        folder: A sentence-transformers folder.
        target: The folder to write to.
        opset: Version of the operators.
        ids: Type of the inputs.
        positions: Whether there is an input position_ids.
        static: Texts and tokens, where they are fixed.
        outputs: Names of the outputs: last_hidden_state, sentence_embedding, cls, other.
    """
    model = transformers.AutoModel.from_pretrained(str(folder), attn_implementation="eager").eval()
    shape = static or (2, 7)
    rows = torch.randint(4, 40, shape, dtype=ids, generator=torch.Generator().manual_seed(5))
    inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    if positions:
        inputs["position_ids"] = torch.arange(2, 9).expand(2, 7)
    axes = {} if static else dict.fromkeys([*inputs, "last_hidden_state", "other"], DYNAMIC)
    if not static:
        axes |= {name: {0: "texts"} for name in ("sentence_embedding", "cls")}
    target.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Network(model, list(outputs)).eval(),
            tuple(inputs.values()),
            str(target / "model.onnx"),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=opset,
            dynamic_axes={name: axes[name] for name in [*inputs, *outputs] if name in axes},
            dynamo=False,
        )
    for path in folder.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, target)
        elif path.is_dir():
            shutil.copytree(path, target / path.name, dirs_exist_ok=True)
    return target / "model.onnx"


def with_external_data(path: Path) -> Path:
    """Move the weights into model.onnx_data, beside the file."""
    onnx.save_model(
        onnx.load(str(path)),
        str(path),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    return path


def to_hub_cache(folder: Path, cache: Path) -> Path:
    """The folder as a hub's cache keeps it: links in a snapshot, which lead to blobs without suffixes."""
    blobs, snapshot = (
        cache / "models--me--tiny" / "blobs",
        cache / "models--me--tiny" / "snapshots" / "abc",
    )
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        shutil.copy(path, blobs / f"9f{number}")
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(
            Path("/".join([".."] * len(link.parent.relative_to(cache / "models--me--tiny").parts)))
            / "blobs"
            / f"9f{number}"
        )
    return snapshot
