"""What codes cost on a device: storage, memory, network traffic and search time."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes import INT8, Packing, code_bytes, normalize, plain_packing, quantize
from edge_mrl.search import nearest
from edge_mrl.store import CodeBlock, CodeTable, Layout, Segment
from edge_mrl.wire import Item, encode_items

__all__ = ["MEASURED_ROWS", "Cost", "code_table", "cost", "search_seconds"]

#: Random codes to search: with so many, most of the time goes into the funnel's first stage.
MEASURED_ROWS = 100_000
QUERIES = 5
#: Documents in a frame, and a typical id.
FRAME, ID = 256, "notes/2026/{:08d}"
SEED = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of a code, for a number of documents with one passage each.

    Attributes:
        code_bytes: Size of one code.
        storage_bytes: Codes in the database and in the code file. Texts, metadata and the index of words
            come in addition, and are the same for every code.
        memory_bytes: What every search needs: the bits of all rows, and their distances.
        search_s: Seconds of a search on one thread of this machine, from a measurement on random codes.
        push_bytes: A document's full vector to a server, as float16.
        pull_bytes: A document's code from a server, as a store keeps it.
    """

    code_bytes: int
    storage_bytes: int
    memory_bytes: int
    search_s: float
    push_bytes: int
    pull_bytes: int


def cost(dim: int, kind: str, *, width: int, documents: int, seconds_per_row: float) -> Cost:
    """The costs of a code.

    Args:
        dim: Its dimensions.
        kind: One of ``edge_mrl.codes.packing.CODE_KINDS``.
        width: Dimensions of the full vector.
        documents: How many documents, with one passage each.
        seconds_per_row: From ``search_seconds``.
    """
    layout = _layout(dim, kind)
    distance = 1 if dim <= 256 else 2
    return Cost(
        code_bytes=code_bytes(dim, kind),
        storage_bytes=documents * code_bytes(dim, kind) + layout.file_bytes(documents),
        memory_bytes=documents * (8 * layout.words + distance),
        search_s=seconds_per_row * documents,
        push_bytes=_frame_bytes(np.zeros((1, width), np.float16)),
        pull_bytes=_frame_bytes(np.zeros((1, code_bytes(dim, kind)), np.uint8)),
    )


def search_seconds(dim: int, kind: str, *, rows: int = MEASURED_ROWS) -> float:
    """Seconds for each row, of a search by the store's own funnel: the median of a few searches."""
    chance = np.random.default_rng(SEED)
    codes = quantize(normalize(chance.standard_normal((rows, dim), dtype=np.float32)))
    layout = _layout(dim, kind)
    table = code_table(codes, layout.packing)
    times = []
    for query in range(QUERIES + 1):
        start = time.perf_counter()
        nearest(codes[query][None], table, k=10, width=max(1, rows // 200))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) / rows  # the first search warms up


def code_table(codes: NDArray[np.int8], packing: Packing = INT8) -> CodeTable:
    """Codes int8[n, dim] as a store's table in memory; row i is document i."""
    layout = Layout(codes.shape[1], packing=packing)
    keys = np.arange(len(codes), dtype=np.uint32)
    segment = layout.pack(packing.pack(codes), keys, 0)
    part = CodeBlock(0, segment, checked=False)
    names = {int(key): f"{key:08d}" for key in keys} if len(keys) <= MEASURED_ROWS else {}
    return CodeTable(
        layout,
        [part],
        np.empty(0, np.int64),
        load=_nothing_to_load,
        names=lambda some: {int(key): names.get(int(key), f"{key:08d}") for key in some},
    )


def _nothing_to_load(first: int, after: int) -> Segment:
    raise RuntimeError(f"rows {first} to {after} are in memory, and not read again")


def _layout(dim: int, kind: str) -> Layout:
    return Layout(dim, packing=plain_packing(kind, dim))


def _frame_bytes(vector: NDArray[np.float16] | NDArray[np.uint8]) -> int:
    """Bytes sent for one document, in a full frame."""
    items = [Item(ID.format(number), stamp=1 << 60, vectors=vector) for number in range(FRAME)]
    return round(len(encode_items({}, items, like=vector)) / FRAME)
