"""Encoding with the source's own library: batches of similar length in parallel, one thread each.

Torch would divide each product among its threads instead, which wait for each other in busy loops. That
gains little on short text, and takes many times as long when another program uses a processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge_mrl.encode import available_threads

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["encode_texts"]

#: Characters of a batch, padding included, and its texts: larger batches are no faster, and divide less
#: evenly among threads.
BATCH_LETTERS, BATCH_TEXTS = 6000, 32


def encode_texts(
    model: SentenceTransformer, texts: Sequence[str], prompt: str, *, padded: bool
) -> NDArray[np.float32]:
    """Encode texts as ``model.encode`` does: float32[n, D], unit length.

    Args:
        model: The whole model; it truncates texts at its ``max_seq_length``.
        texts: At least one text.
        prompt: Text to put before each of them.
        padded: Whether texts may share a batch.
    """
    model.eval()
    batches = list(_batches(texts, padded=padded))
    # Tokenizers are not thread-safe; they take little of the time.
    features = (model.preprocess([texts[i] for i in rows], prompt=prompt) for rows in batches)
    with _one_thread_each() as pool:
        parts = list(pool.map(lambda batch: _forward(model, batch), features))
    vectors = np.concatenate(parts)
    vectors[np.concatenate(batches)] = vectors.copy()
    return vectors


def _batches(texts: Sequence[str], *, padded: bool) -> Iterator[list[int]]:
    """Row numbers of the texts, the longest first, so that threads finish at about the same time."""
    most = BATCH_TEXTS if padded else 1
    rows: list[int] = []
    for row in sorted(range(len(texts)), key=lambda row: -len(texts[row])):
        if rows and (len(rows) == most or (len(rows) + 1) * len(texts[rows[0]]) > BATCH_LETTERS):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


@torch.inference_mode()  # type: ignore[untyped-decorator]  # torch is not followed by mypy
def _forward(model: SentenceTransformer, features: dict[str, Any]) -> NDArray[np.float32]:
    vectors = model(features)["sentence_embedding"].float()
    unit: NDArray[np.float32] = torch.nn.functional.normalize(vectors, p=2, dim=1).numpy()
    return unit


@contextmanager
def _one_thread_each() -> Iterator[ThreadPoolExecutor]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    threads = available_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
