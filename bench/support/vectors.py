"""Seeded clustered vectors, queries like them, and the exact answers, kept in build/bench-search.

Rows are drawn around random centres whose spectrum decays, as embeddings' does. The noise is such that
1-bit codes alone find a tenth to a half of the true neighbours, and int8 codes nearly all. Where a
centre has fewer rows than are asked for, the rest come from other centres and hardly differ from what
is not found: that is what makes a shortlist by bits hard, so set the centres with the rows in mind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes.packing import normalize, quantize

__all__ = [
    "CACHE",
    "CENTRES",
    "DIM",
    "NOISE",
    "QUERIES",
    "TRUTH",
    "DataSet",
    "clustered",
    "nearest_rows",
    "prepare",
]

CACHE = Path(__file__).parent.parent.parent / "build" / "bench-search"
DIM = 128
QUERIES = 100
#: Exact neighbours kept for each query.
TRUTH = 100
CENTRES = 4000  # by default
#: Dimension i is scaled by (i + 1) ** -DECAY.
DECAY = 0.5
#: Length of the noise beside a centre of length 1.
NOISE = 0.65
#: Rows drawn or compared at a time; a block's numbers depend on its index and the seed alone.
BLOCK = 50_000
#: The block that the queries are drawn from, behind every row's.
QUERY_BLOCK = 2**31


@dataclass(frozen=True, slots=True)
class DataSet:
    """A folder of .npy files.

    Attributes:
        rows: Number n of vectors.
        folder: Holds vectors.npy float32[n, dim], codes.npy int8[n, dim], queries.npy
            float32[q, dim], query_codes.npy int8[q, dim] and truth.npy int64[q, TRUTH].
    """

    rows: int
    folder: Path

    def load(self, name: str) -> NDArray[np.generic]:
        """One of the arrays, mapped into memory."""
        array: NDArray[np.generic] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array


def clustered(
    rows: int, *, seed: int, centres: int = CENTRES, first_block: int = 0
) -> NDArray[np.float32]:
    """Draw unit-length vectors around the seed's centres.

    Args:
        rows: How many; fewer are a prefix of more.
        seed: Of the centres and the rows.
        centres: How many the rows are drawn around.
        first_block: Where to start; other blocks are other rows around the same centres.

    Returns:
        float32[rows, DIM].
    """
    spectrum = (np.arange(1, DIM + 1) ** -DECAY).astype(np.float32)
    spectrum /= np.linalg.norm(spectrum)
    drawn = np.random.default_rng(seed).standard_normal((centres, DIM), dtype=np.float32)
    middles = normalize(drawn * spectrum)
    found = np.empty((rows, DIM), np.float32)
    for block, start in enumerate(range(0, rows, BLOCK), first_block):
        part = found[start : start + BLOCK]
        rng = np.random.default_rng([seed, block])
        chosen = middles[rng.integers(0, centres, BLOCK)[: len(part)]]
        noise = rng.standard_normal((len(part), DIM), dtype=np.float32) * spectrum
        part[:] = normalize(chosen + np.float32(NOISE) * noise)
    return found


def nearest_rows(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], *, k: int
) -> NDArray[np.int64]:
    """Exact neighbours by dot product, from the best; the lower row first among equals.

    Args:
        queries: float32[q, d].
        vectors: float32[n, d], n >= k; compared in blocks, so it may be mapped from a file.
        k: Neighbours of each query.

    Returns:
        int64[q, k], rows of ``vectors``.
    """
    rows = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(vectors), BLOCK):
        block = queries @ vectors[start : start + BLOCK].T
        scores = np.hstack([scores, block])
        rows = np.hstack([rows, np.broadcast_to(start + np.arange(block.shape[1]), block.shape)])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
    return rows


def prepare(rows: int, *, centres: int = CENTRES, seed: int = 1) -> DataSet:
    """Make the data set, or take the one made before."""
    data = DataSet(rows, CACHE / f"{rows}x{DIM}-centres{centres}-noise{NOISE}-seed{seed}")
    if (data.folder / "truth.npy").exists():  # written last
        return data
    data.folder.mkdir(parents=True, exist_ok=True)
    vectors = clustered(rows, seed=seed, centres=centres)
    queries = clustered(QUERIES, seed=seed, centres=centres, first_block=QUERY_BLOCK)
    arrays: dict[str, NDArray[np.generic]] = {
        "vectors": vectors,
        "codes": _codes(vectors),
        "queries": queries,
        "query_codes": quantize(queries),
        "truth": nearest_rows(queries, vectors, k=TRUTH),
    }
    for name, array in arrays.items():
        partial = data.folder / f"{name}.partial.npy"
        np.save(partial, array)
        partial.rename(data.folder / f"{name}.npy")
    return data


def _codes(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    codes = np.empty(vectors.shape, np.int8)
    for start in range(0, len(vectors), BLOCK):
        codes[start : start + BLOCK] = quantize(vectors[start : start + BLOCK])
    return codes
