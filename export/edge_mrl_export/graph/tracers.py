"""Programs that turn a transformers model into an ONNX graph, behind one call.

- "torchscript": ``torch.onnx.export`` with ``dynamo=False``. Its graphs are those that ONNX Runtime's
  fusions know.
- "dynamo": ``torch.onnx.export`` with ``dynamo=True``. It takes longer, and of its graphs no attention is
  fused.
- "optimum": optimum-onnx, an extra of its own (``export-optimum``), for transformers below 4.58.
- "auto": torchscript, and dynamo where that fails.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from edge_mrl.errors import MissingDependencyError, UsageError, reason
from edge_mrl_export.graph.passes.pen import OPSET

__all__ = ["HIDDEN", "TRACERS", "hushed", "trace"]

#: Name of the traced graph's output, float32[texts, tokens, width].
HIDDEN = "last_hidden_state"
#: What tracers raise for a model that they cannot trace.
_FAILURES = (
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    RuntimeError,
    NotImplementedError,
)
#: What expands a mask over texts, heads, queries and keys in transformers 4 and 5.
_VMAPS = ("_vmap_for_bhqkv", "_vmap_expansion_sdpa")
#: What lets vmap index, which TorchScript cannot trace either.
_INDEXING = "TransformGetItemToIndex"
#: Texts to trace with: of different lengths, and with padding behind one, as in any batch.
_IDS = ((1, 5, 6, 7, 8, 9, 2), (1, 9, 8, 7, 2, 0, 0))


def trace(model: Any, architecture: str, folder: Path, *, tracer: str = "auto") -> Path:
    """Trace a transformers model.

    Args:
        model: The model; its weights, mode and kind of attention are left as they are.
        architecture: Its name, for messages.
        folder: An existing scratch folder.
        tracer: A key of TRACERS.

    Returns:
        An ONNX file in the folder with opset 18, the inputs input_ids, attention_mask and, where a model
        has it, token_type_ids, all int64[texts, tokens], and the output HIDDEN.

    Raises:
        UsageError: The model cannot be traced.
        MissingDependencyError: The tracer is not installed, or does not go with the transformers that is.
    """
    try:
        with hushed():
            return TRACERS[tracer](model, folder)
    except _FAILURES as error:
        raise UsageError(
            f"{architecture} cannot be traced to ONNX: {reason(error)}; "
            "export it to .onnx with the model's own tools and pass that file"
        ) from error


class _Hidden(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Only the network: the inputs that a bundle has, and one output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        accepted = inspect.signature(model.forward).parameters
        self.names = ["input_ids", "attention_mask"]
        types = getattr(model.config, "type_vocab_size", None)
        if "token_type_ids" in accepted and types:
            self.names.append("token_type_ids")
        self._fixed = {"use_cache": False} if "use_cache" in accepted else {}

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """float32[texts, tokens, width] of tensors in the order of ``names``."""
        named = dict(zip(self.names, tensors, strict=True))
        hidden: torch.Tensor = self.model(**named, **self._fixed, return_dict=True)[HIDDEN]
        return hidden

    def examples(self) -> tuple[torch.Tensor, ...]:
        """int64[2, 7] for each name."""
        ids = torch.tensor(_IDS)
        mask = (ids != 0).long()
        return (ids, mask, torch.zeros_like(ids))[: len(self.names)]


@contextlib.contextmanager
def _ready(model: Any) -> Iterator[_Hidden]:
    """The model as it is traced: not in training, with attention as plain products.

    The fusions know only plain products, and what the reference runs must not change by an export.
    """
    attention = getattr(model.config, "_attn_implementation", None)
    training = model.training
    model.set_attn_implementation("eager")
    try:
        yield _Hidden(model).eval()
    finally:
        model.train(training)  # exporters restore the mode of a wrapper, not that of what it holds
        if attention is not None:
            model.set_attn_implementation(attention)


@contextlib.contextmanager
def _broadcast_masks() -> Iterator[None]:
    """Let transformers make masks by broadcasting, where it does so by ``torch.vmap``.

    TorchScript cannot trace vmap, and decoders need it. If a release has another name for this, they are
    traced by dynamo.
    """
    from transformers import masking_utils

    def broadcast(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        def call(texts: Any, heads: Any, queries: Any, keys: Any) -> Any:
            rows = texts[:, None, None, None], heads[None, :, None, None]
            return function(*rows, queries[None, None, :, None], keys[None, None, None, :])

        return call

    changes = {**dict.fromkeys(_VMAPS, broadcast), _INDEXING: contextlib.nullcontext}
    kept = {name: getattr(masking_utils, name) for name in changes if hasattr(masking_utils, name)}
    for name in kept:
        setattr(masking_utils, name, changes[name])
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(masking_utils, name, function)


def _torchscript(model: Any, folder: Path) -> Path:
    path = folder / "torchscript.onnx"
    with _ready(model) as network, _broadcast_masks():
        torch.onnx.export(
            network,
            network.examples(),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=network.names,
            output_names=[HIDDEN],
            dynamic_axes={name: {0: "texts", 1: "tokens"} for name in [*network.names, HIDDEN]},
        )
    return path


def _dynamo(model: Any, folder: Path) -> Path:
    path = folder / "dynamo.onnx"
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    with _ready(model) as network:
        torch.onnx.export(
            network,
            network.examples(),
            str(path),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=network.names,
            output_names=[HIDDEN],
            dynamic_shapes=(tuple(sizes for _ in network.names),),
        )
    return path


def _optimum(model: Any, folder: Path) -> Path:
    try:
        from optimum.exporters.onnx import onnx_export_from_model
    except ImportError as error:
        raise MissingDependencyError(
            f"the tracer optimum cannot be loaded: {reason(error)}; it needs transformers below 4.58: "
            'pip install "edge-mrl[export-optimum]" in an environment of its own, or leave --tracer out'
        ) from error
    out = folder / "optimum"
    onnx_export_from_model(
        model,
        out,
        opset=OPSET,
        task="feature-extraction",
        library_name="transformers",
        do_validation=False,
        no_post_process=True,
    )
    return out / "model.onnx"


def _auto(model: Any, folder: Path) -> Path:
    return _first(model, folder, (_torchscript, _dynamo))


def _first(model: Any, folder: Path, tracers: Sequence[Callable[[Any, Path], Path]]) -> Path:
    """What the first tracer makes that can."""
    *others, last = tracers
    for tracer in others:
        with contextlib.suppress(*_FAILURES):
            return tracer(model, folder)
    return last(model, folder)


#: Tracers by name; each gets the model and a scratch folder, and gives the file that it wrote.
TRACERS: dict[str, Callable[[Any, Path], Path]] = {
    "auto": _auto,
    "torchscript": _torchscript,
    "dynamo": _dynamo,
    "optimum": _optimum,
}


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Hide warnings of tracing about dynamic shapes: the result shows that they are wrong."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    quiet = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
