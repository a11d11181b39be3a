"""The best way to make each code, by the questions that choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.cli import Progress
from edge_mrl.codes import code_bytes
from edge_mrl.errors import UsageError
from edge_mrl.heads import best_kind
from edge_mrl_export.quality.evaluation import Scale, SetVectors, ndcg_alone
from edge_mrl_export.quality.fitting import Candidate
from edge_mrl_export.quality.split import halves
from edge_mrl_export.quality.subject import Subject
from edge_mrl_export.texts import Retrieval

__all__ = ["Tried", "best_candidates", "try_candidates"]

Scores = NDArray[np.float64]
#: A less simple way is chosen only if it keeps more by this share.
MARGIN = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A way to make a code, and what the code keeps by itself, in the worst of the sets.

    Attributes:
        candidate: How the code is made.
        chosen: Share of the full fp32 vectors' nDCG@10 with the questions that choose.
        reported: The same with the held-out questions, which choose nothing.
    """

    candidate: Candidate
    chosen: float
    reported: float

    @property
    def code_bytes(self) -> int:
        """Bytes of a passage's code."""
        return code_bytes(self.candidate.dim, self.candidate.kind)

    def as_json(self) -> dict[str, Any]:
        """Values for JSON."""
        made = self.candidate
        return {
            "dim": made.dim,
            "kind": made.kind,
            "head": made.head,
            "turned": made.turned,
            "code_bytes": self.code_bytes,
            "chosen": round(self.chosen, 4),
            "reported": round(self.reported, 4),
        }


def try_candidates(
    subject: Subject,
    candidates: Sequence[Candidate],
    sets: Sequence[tuple[Retrieval, SetVectors]],
    *,
    quiet: bool = False,
) -> list[Tried]:
    """Search every set exhaustively with the code of every candidate.

    Args:
        subject: The model.
        candidates: Ways to make codes.
        sets: Texts with their vectors.
        quiet: Show no progress.

    Raises:
        UsageError: The full model finds too little with one half of the questions.
    """
    scales = [Scale.of(data, vectors) for data, vectors in sets]
    bases = [scale.base.ndcg_at_10 for scale in scales]
    for (data, _), base in zip(sets, bases, strict=True):
        if not all(base[half].any() for half in halves(len(base))):
            raise UsageError(f"{data.name}: the full model finds too little; give more queries")
    tried = []
    with Progress("try codes", len(candidates), quiet=quiet) as bar:
        for made in candidates:
            ours = [
                ndcg_alone(subject, vectors, scale, made.coding, dim=made.dim, kind=made.kind)
                for (_, vectors), scale in zip(sets, scales, strict=True)
            ]
            tried.append(Tried(made, *_shares(ours, bases)))
            bar.advance(1, note=f"{made.dim} {made.kind}")
    return tried


def _shares(ours: Sequence[Scores], bases: Sequence[Scores]) -> tuple[float, float]:
    """What is kept with the questions that choose, and with those that report, in the worst set."""
    by_set = [
        [float(mine[half].mean() / base[half].mean()) for half in halves(len(base))]
        for mine, base in zip(ours, bases, strict=True)
    ]
    chosen, reported = (min(column) for column in zip(*by_set, strict=True))
    return chosen, reported


def best_candidates(tried: Sequence[Tried]) -> Mapping[tuple[int, str], Candidate]:
    """By dimensions and kind, the way that keeps most with the questions that choose.

    Args:
        tried: The simplest way of each code first; a later one must be better by MARGIN.
    """
    codes = dict.fromkeys((t.candidate.dim, t.candidate.kind) for t in tried)
    best = {}
    for code in codes:
        ways = {t.candidate.how: t for t in tried if (t.candidate.dim, t.candidate.kind) == code}
        name = best_kind({how: t.chosen for how, t in ways.items()}, MARGIN)
        best[code] = ways[name].candidate
    return best
