"""Devices that push as fast as they can, and remember what was acknowledged to them."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from dataclasses import replace

import numpy as np

from edge_mrl.wire.clock import COUNTER_BITS, now_ms
from edge_mrl.wire.frames import Item
from tests.faults.databases import Held
from tests.support.serving import Caller, units

__all__ = ["Load", "lost"]

BATCH = 12
#: Ids of one device: few enough that most writes replace or delete.
IDS = 300


class Load(threading.Thread):
    """A thread that pushes puts, changes and deletions to ids of its own.

    Args:
        caller: An enrolled device.
        seed: Of what it pushes.
        dim: Dimensions of its vectors.

    Attributes:
        acknowledged: The last version of each document that the server called durable.
        answers: How many pushes were acknowledged.
        refused: Statuses of the pushes that were not, by how often; 0 where no answer came.
    """

    def __init__(self, caller: Caller, seed: int, *, dim: int = 32) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[str, Item] = {}
        self.answers = 0
        self.refused: dict[int, int] = {}
        self.over = threading.Event()
        self._caller = caller
        self._rng = random.Random(seed)
        self._seed = seed
        self._dim = dim
        self._stamp = 0

    def run(self) -> None:
        """Push; a batch is sent until it is acknowledged, even after the end is asked for."""
        while not self.over.is_set():
            batch = self._batch()
            while not self._push(batch):
                time.sleep(0.02)
            self.acknowledged |= {item.id: item for item in batch}

    def finish(self, limit_s: float) -> None:
        """Let the last batch go through."""
        self.over.set()
        self.join(limit_s)
        assert not self.is_alive(), f"still refused after {limit_s} s: {self.refused}"
        self._caller.close()

    def _batch(self) -> list[Item]:
        names = self._rng.sample(range(IDS), BATCH)
        items = []
        for name in names:
            self._stamp = max(self._stamp + 1, now_ms() << COUNTER_BITS)
            gone = self._rng.random() < 0.2
            vectors = units(0 if gone else 1, self._dim, seed=self._rng.randrange(1 << 30))
            items.append(Item(f"{self._seed}/{name}", self._stamp, vectors, deleted=gone))
        return items

    def _push(self, batch: list[Item]) -> bool:
        status = 0
        try:
            reply = self._caller.push(*batch, dim=self._dim)
            status = reply.status
            if status == 200:
                said = [result["status"] for result in reply.json["results"]]
                assert said == ["applied"] * len(batch), said
                self.answers += 1
                return True
        except (OSError, http.client.HTTPException):
            with contextlib.suppress(OSError):
                self._caller.close()
        self.refused[status] = self.refused.get(status, 0) + 1
        return False


def lost(held: Held, loads: list[Load]) -> list[str]:
    """What was acknowledged and is not in a database as it was, and what is there more than once."""
    rows = {row.id: row for row in held.rows}
    problems = [] if len(rows) == len(held.rows) else ["an id is there twice"]
    for name, item in (pair for load in loads for pair in load.acknowledged.items()):
        row = rows.get(name)
        if row is None or (row.stamp, row.deleted) != (item.stamp, item.deleted):
            there = None if row is None else replace(row, text=None)
            problems.append(f"{name}: {there}, acknowledged {item.stamp} deleted={item.deleted}")
        elif not item.deleted and not np.array_equal(held.vectors[name], item.vectors):
            problems.append(f"{name}: another vector")
        elif item.deleted and name in held.vectors:
            problems.append(f"{name}: deleted, with a vector")
    return problems
