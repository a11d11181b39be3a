"""Quality by dimension, for the report: what the chosen head and the cut keep of near neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes
from edge_mrl.heads import TOP, Trial, agreement, nested_sizes

__all__ = ["curve_of_texts", "curve_of_trial"]

Float = NDArray[np.float32]


def curve_of_trial(trial: Trial, heads: Mapping[str, Float | None]) -> dict[str, Any]:
    """Scores on held-out text of some heads' prefixes.

    Args:
        trial: What they were fitted by.
        heads: float32[D, dim] by kind, None for the prefix; fitted without the held-out text.
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
    """Agreement of int8 codes' nearest with the full vectors', among texts that no head was fitted on.

    Args:
        full: float32[n, D] of the source.
        kind: The head's.
        matrix: float32[D, dim], or None for the prefix.
        dim: Dimensions of the code.
        layer_norm: Whether the head reads centred vectors.
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
