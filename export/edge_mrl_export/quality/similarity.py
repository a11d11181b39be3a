"""How well cosines of codes follow people's scores of pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl_export.quality.cache import Cache
from edge_mrl_export.quality.coding import Coding, codes_of, levels, own_coding, truncated
from edge_mrl_export.quality.evaluation import KINDS
from edge_mrl_export.quality.subject import Encoded, Subject
from edge_mrl_export.texts import Similarity

__all__ = ["evaluate_pairs"]

Float = NDArray[np.float32]


def evaluate_pairs(
    subject: Subject, data: Similarity, cache: Cache, dims: Sequence[int]
) -> dict[str, Any]:
    """Spearman's rank correlation of cosines with people's scores, by dimension and kind.

    Both texts of a pair are encoded as documents, and both as codes.

    Returns:
        Values for JSON: name, number of pairs, and correlations: ``base`` (full fp32 vectors), ``full``
        (the bundle's full vectors, None for a source model) and ``rows`` (by dimensions and kind).
    """
    from scipy.stats import spearmanr

    def correlation(left: Float, right: Float) -> float:
        cosines = np.einsum("nd,nd->n", left, right)
        return round(float(spearmanr(cosines, data.scores).statistic), 4)

    texts = (data.left, data.right)
    base = [subject.base.vectors(cache, side, "document") for side in texts]
    own = base
    if subject.model is not subject.base:
        own = [subject.model.vectors(cache, side, "document") for side in texts]
    rows = []
    for dim in dims:
        for kind in KINDS:
            coding = own_coding(subject, dim, kind)
            sides = [_side(subject, side, coding, dim, kind) for side in own]
            rows.append({"dim": dim, "kind": kind, "spearman": correlation(sides[0], sides[1])})
    return {
        "name": data.name,
        "pairs": len(data.scores),
        "base": correlation(base[0].full, base[1].full),
        "full": None if own is base else correlation(own[0].full, own[1].full),
        "rows": rows,
    }


def _side(subject: Subject, texts: Encoded, coding: Coding, dim: int, kind: str) -> Float:
    if kind == "float32":
        return truncated(subject, texts.full, coding.head, dim)
    return levels(codes_of(subject, texts, coding.head, dim), coding.packing)
