"""Retrieval quality for the report: what codes keep, by dimension, and as a store keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes
from edge_mrl.codes import Packing, normalize
from edge_mrl.heads import TOP, HeadTrial, agreement, nested_sizes

__all__ = ["curve_of_texts", "curve_of_trial", "kept_by_stored_codes"]

Float = NDArray[np.float32]


def curve_of_trial(trial: HeadTrial, heads: Mapping[str, Float | None]) -> dict[str, Any]:
    """Scores of some heads on held-out text, at shorter prefixes too.

    Args:
        trial: What the heads were fitted on.
        heads: float32[D, dim] by kind, None for the plain prefix; fitted without the held-out text.
    """
    dim = trial.nested[-1]
    dims = list(nested_sizes(dim))
    scores = {
        kind: [round(replace(trial, nested=(size,)).score(matrix), 4) for size in dims]
        for kind, matrix in heads.items()
    }
    return {"dims": dims, "kept": scores, "measured": trial.measured}


def curve_of_texts(
    full: Float, kind: str, matrix: Float | None, *, dim: int, layer_norm: bool
) -> dict[str, Any]:
    """How many of the full vectors' nearest texts int8 codes find, at shorter prefixes too.

    Args:
        full: float32[n, D] of the source.
        kind: Kind of the head.
        matrix: float32[D, dim], or None for the prefix.
        dim: Dimensions of the code.
        layer_norm: Whether a layer norm comes before the head.
    """
    rows = np.arange(len(full))
    dims = list(nested_sizes(dim))
    heads = {"prefix": None, kind: matrix}
    scores = {
        name: [
            round(
                agreement(full, derive_codes(full, head, dim=size, layer_norm=layer_norm), rows),
                4,
            )
            for size in dims
        ]
        for name, head in heads.items()
    }
    measured = (
        f"share of the full vectors' top {TOP} that int8 codes find again, for {len(full)} texts among "
        "themselves"
    )
    return {"dims": dims, "kept": scores, "measured": measured}


def kept_by_stored_codes(
    full: Float, codes: NDArray[np.int8], packing: Packing
) -> tuple[float | None, str]:
    """Share of the full vectors' nearest texts that the codes of a store find again.

    Each text is searched for by its int8 code, among the others as a store keeps them.

    Args:
        full: float32[n, D] of the source, unit length.
        codes: int8[n, dim] of the same texts, by the bundle.
        packing: What a store keeps of them.

    Returns:
        The share, from 0 to 1, or None for a single text; and how it was measured.
    """
    top = min(TOP, len(full) - 1)
    measured = (
        f"share of the source's {top} nearest texts that the stored {packing.kind} codes find again, "
        f"for {len(full)} texts among themselves"
    )
    if top < 1:
        return None, measured
    stored = packing.unpack(packing.pack(codes), codes.shape[1])
    queries, documents = (normalize(c.astype(np.float32)) for c in (codes, stored))
    found, wanted = (_nearest(scores, top) for scores in (queries @ documents.T, full @ full.T))
    same = (found[:, :, None] == wanted[:, None, :]).any(axis=1)
    return round(float(same.mean()), 4), measured


def _nearest(scores: Float, top: int) -> NDArray[np.intp]:
    """intp[n, top]: the columns with the highest scores, but each row's own."""
    np.fill_diagonal(scores, -np.inf)
    order: NDArray[np.intp] = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return order
