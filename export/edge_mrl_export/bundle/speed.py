"""How fast a written bundle encodes on this machine, through the real runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_mrl.encode import Encoder, available_threads

__all__ = ["Speed", "measure_speed"]

#: Queries that are timed: the first words of as many texts.
QUERIES, QUERY_WORDS = 24, 8


@dataclass(frozen=True, slots=True)
class Speed:
    """What the exporting machine needs to encode text.

    Attributes:
        query_ms: Median time of one short query by itself, in milliseconds.
        documents_per_s: Documents a second, encoded together.
        documents: How many documents that was measured on.
        threads: Threads that were used at most.
    """

    query_ms: float
    documents_per_s: float
    documents: int
    threads: int

    def text(self) -> str:
        """For people."""
        return (
            f"{self.query_ms:.1f} ms for a query, {self.documents_per_s:,.0f} documents/s "
            f"(this machine, {self.threads} thread{'' if self.threads == 1 else 's'})"
        )


def measure_speed(encoder: Encoder, texts: Sequence[str]) -> tuple[Speed, NDArray[np.int8]]:
    """Time some queries one by one, and all texts together.

    Args:
        encoder: The bundle; it has encoded something already, so that nothing is loaded any more.
        texts: Documents, at least one.

    Returns:
        The speed, and the documents' codes int8[n, dim].
    """
    times = []
    for text in texts[:QUERIES]:
        query = " ".join(text.split()[:QUERY_WORDS])
        start = time.perf_counter()
        encoder.encode([query], kind="query")
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    codes = encoder.encode(texts).coarse
    took = time.perf_counter() - start
    speed = Speed(
        query_ms=round(1000 * statistics.median(times), 3),
        documents_per_s=round(len(texts) / took, 1),
        documents=len(texts),
        threads=available_threads(),
    )
    return speed, codes
