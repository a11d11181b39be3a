"""Loading a folder with sentence-transformers, quietly, and without weights that it would make up."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edge_mrl.errors import UsageError, reason
from edge_mrl.machine import memory

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from edge_mrl_export.source.source import Source

__all__ = ["open_reference", "try_out"]

#: Weights that no embedding is made of, and that checkpoints often lack.
UNUSED = ("pooler.", "lm_head.", "cls.", "position_ids")
#: Weights that a message names.
NAMED = 3


def open_reference(folder: Path, label: str) -> SentenceTransformer:
    """The folder as its own library loads it, in fp32.

    Raises:
        UsageError: It cannot be loaded, or lacks weights.
    """
    from sentence_transformers import SentenceTransformer

    try:
        with _quiet(), _missing_weights() as missing:
            model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                model_kwargs={"dtype": torch.float32},
            )
    except Exception as error:  # whatever files say, and three libraries make of it
        if memory.ran_out(error):
            raise
        raise UsageError(f"{label} cannot be loaded: {_told(error)}") from error
    lost = [name for name in missing if not any(part in name for part in UNUSED)]
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        raise UsageError(
            f"the weights of {label} lack {', '.join(lost[:NAMED])}{more}, which would be made up: the "
            "model is damaged, or of another type than config.json says. Get it again"
        )
    return model.eval()


def try_out(source: Source, label: str) -> None:
    """Encode two texts: what a folder says of itself must be what it does.

    Raises:
        UsageError: The model does not run, or gives other vectors than its files say.
    """
    try:
        vectors = source.encode(["a", "some words"], kind="document", max_tokens=source.max_tokens)
    except UsageError:
        raise
    except Exception as error:  # whatever files say, and three libraries make of it
        if memory.ran_out(error):
            raise
        raise UsageError(f"{label} cannot be run: {_told(error)}") from error
    if vectors.ndim != 2 or vectors.shape[1] != source.width:
        raise UsageError(
            f"{label} gives vectors of {vectors.shape[1]} dimensions, but its files say {source.width}"
        )
    if not np.isfinite(vectors).all():
        source.check_finite()
        raise UsageError(
            f"{label} gives vectors that are not finite: the model is damaged, get it again"
        )


def _told(error: Exception) -> str:
    """An error's first line; with its type where the message alone says nothing."""
    plain = isinstance(error, OSError | ValueError | ImportError | RuntimeError)
    return reason(error) if plain else f"{type(error).__name__}: {reason(error)}"


@contextmanager
def _missing_weights() -> Iterator[list[str]]:
    """Names of weights that transformers makes up meanwhile, because no file has them."""
    from transformers import PreTrainedModel

    missing: list[str] = []
    own = PreTrainedModel.__dict__["from_pretrained"]

    def load(cls: type[Any], *given: Any, **options: Any) -> Any:
        if options.pop("output_loading_info", False):
            return own.__func__(cls, *given, output_loading_info=True, **options)
        model, facts = own.__func__(cls, *given, output_loading_info=True, **options)
        missing.extend(sorted(facts.get("missing_keys") or ()))
        return model

    PreTrainedModel.from_pretrained = classmethod(load)
    try:
        yield missing
    finally:
        PreTrainedModel.from_pretrained = own


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
