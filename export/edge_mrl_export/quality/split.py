"""What is held out: questions that choose no code, and passages that no fit sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_mrl.heads import spread
from edge_mrl_export.texts import Retrieval

__all__ = ["halves", "hold_out"]

Rows = NDArray[np.intp]

#: Of the order in which questions are divided into those that choose and those that report.
SEED = 0
#: One passage in so many gives a question where people gave none; the others are fitted on.
HELD_OUT_OF = 3


def halves(questions: int) -> tuple[Rows, Rows]:
    """Divide questions: rows of those that choose, and of those that report, intp[about half] each."""
    order = np.random.default_rng(SEED).permutation(questions)
    return order[: questions // 2], order[questions // 2 :]


def hold_out(data: Retrieval) -> tuple[Retrieval, Rows]:
    """A set whose questions come from passages that no fit sees.

    A head that was fitted to a passage finds it by its own sentences, better than it will find the text
    of tomorrow. So where questions were taken from passages, at most a third of the passages give some.

    Args:
        data: The set.

    Returns:
        The set, perhaps with fewer questions, and the rows of the documents to fit on, ascending.
    """
    rows = np.arange(len(data.documents))
    if data.origins is None:  # people's questions: no fit sees these, nor the judgements
        return data, rows
    kept = spread(range(len(data.queries)), max(len(rows) // HELD_OUT_OF, 1))
    origins = [data.origins[i] for i in kept]
    fewer = replace(
        data,
        queries=[data.queries[i] for i in kept],
        own=None if data.own is None else [data.own[i] for i in kept],
        origins=origins,
    )
    return fewer, np.setdiff1d(rows, origins)
