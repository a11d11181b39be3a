"""What a machine can do at most, and what a text asks of it, both in multiply-accumulates (MAC).

The peak is that of ONNX Runtime's own kernel for products of uint8 by int8, on a product large enough to
hide all else: what integer engines that run on it are up against. As a module it is a process that
bench/support/children.py asks; arguments: MODEL THREADS.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.encode.worker import keep_to
from bench.support.answers import serve

__all__ = ["Transformer", "main"]

#: A product's time is the least of those in a turn: the peak is what is left when nothing disturbs.
WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Transformer:
    """The sizes of a BERT-like encoder.

    Attributes:
        layers: How many.
        hidden: Width of a token.
        intermediate: Width between the two products of the feed-forward part.
    """

    layers: int
    hidden: int
    intermediate: int

    @classmethod
    def read(cls, config: Path) -> Self:
        """From a model's config.json."""
        data = json.loads(config.read_bytes())
        return cls(data["num_hidden_layers"], data["hidden_size"], data["intermediate_size"])

    def gmac(self, lengths: Iterable[int]) -> float:
        """Billions of MAC for texts of so many tokens each, without padding.

        By token: query, key, value and output, and two products of the feed-forward part. By pair of
        tokens: the scores and their use. Embeddings, norms and activations are not counted.
        """
        by_token = 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        by_pair = 2 * self.hidden
        macs = (self.layers * (by_token * n + by_pair * n * n) for n in lengths)
        return sum(macs) / 1e9


class Product:
    """A product by constant weights in ONNX Runtime (bench/encode/models.py makes the file)."""

    def __init__(self, model: Path, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session: Any = ort.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        rows, inner = self._session.get_inputs()[0].shape
        columns = self._session.get_outputs()[0].shape[1]
        self._gmac: float = rows * inner * columns / 1e9
        self._x = np.random.default_rng(2).integers(0, 256, (rows, inner)).astype(np.uint8)

    def measure(self, seconds: float) -> float:
        """Billions of MAC a second, by the quickest of the products in so long."""
        for _ in range(WARM_UP):
            self._session.run(None, {"x": self._x})
        quickest, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            self._session.run(None, {"x": self._x})
            quickest = min(quickest, time.perf_counter() - start)
        return self._gmac / quickest


def main() -> int:
    """Answer requests until standard input ends."""
    model, threads = sys.argv[1:]
    keep_to(int(threads))
    return serve([Product(Path(model), int(threads)).measure])
