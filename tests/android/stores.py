"""Stores for tests: the same documents, put by Python and by Kotlin."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_mrl.codes import Packing
from edge_mrl.documents import Document, PassageRule
from edge_mrl.store import Binding, Entry, Store
from tests.android.probe import Probe

__all__ = [
    "BATCH",
    "DIM",
    "KotlinStore",
    "batch",
    "binding_of",
    "entries",
    "python_store",
    "sent_entries",
]

WORDS = [
    "alpha", "beta", "gamma", "delta", "Straße", "ﬁne", "Ünïcode", "東京", "пять", "café",
    "naïve", "½", "ﷺ", "🫨", "e\u0301",
]  # fmt: skip
FULL_DIM = 24
#: Dimensions of the codes of stores that processes are killed in.
DIM = 64
#: Documents of a batch; 13 batches go to the code file together.
BATCH = 320


def binding_of(packing: Packing, dim: int, *, full: bool = False) -> Binding:
    """The binding of a store of tests."""
    return Binding("space", "code", dim, 1.0, "/bundle", FULL_DIM if full else None, packing)


def entries(seed: int, count: int, dim: int, *, most: int = 3, full: bool = False) -> list[Entry]:
    """Documents ``d0``, ``d1``, ... with random words, metadata and codes."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        passages = int(rng.integers(0 if number % 50 == 0 else 1, most + 1))
        words = rng.choice(WORDS, 6 * max(passages, 1)).tolist()
        text = " ".join(words)
        spans, at = [], 0
        for passage in range(passages):
            size = len(" ".join(words[6 * passage : 6 * passage + 6]))
            spans.append((at, at + size))
            at += size + 1
        metadata: dict[str, Any] = {
            "n": int(rng.integers(0, 20)), "x": float(rng.normal()), "tags": ["a", number % 3],
        }  # fmt: skip
        if number % 5 == 0:
            metadata = {"deep": {"é": [None, True, 1e300, "ü\n"]}, "n": number / 2}
        codes = np.clip(np.rint(rng.normal(0, 25, (passages, dim))), -127, 127).astype(np.int8)
        vectors = rng.normal(size=(passages, FULL_DIM)).astype(np.float32) if full else None
        if vectors is not None:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        document = Document(f"d{number}", text, metadata, None if number % 7 else f"f/{number}")
        made.append(Entry(document, spans, codes, vectors))
    return made


def batch(number: int, dim: int) -> list[Entry]:
    """Documents of one put, ``bNUMBER-0`` and following."""
    return [
        replace(one, document=replace(one.document, id=f"b{number}-{place}"))
        for place, one in enumerate(entries(number % 5, BATCH, dim, most=1))
    ]


def python_store(path: Path, binding: Binding, keep_full: str | None = None) -> Store:
    """A store that Python makes."""
    return Store.create(path, binding, PassageRule(100, 10), keep_full=keep_full)


def sent_entries(some: Iterable[Entry]) -> list[dict[str, Any]]:
    """Entries as the probe takes them."""
    return [
        {
            **sent_document(one.document),
            "spans": [list(span) for span in one.spans],
            "codes": [base64.b64encode(code.tobytes()).decode() for code in one.codes],
            "full": None if one.full is None else [[float(x) for x in row] for row in one.full],
        }
        for one in some
    ]


def sent_document(one: Document) -> dict[str, Any]:
    """A document as the probe takes it."""
    metadata = dict(one.metadata)
    return {"id": one.id, "text": one.text, "metadata": metadata, "source": one.source}


class KotlinStore:
    """A store that the probe has open."""

    def __init__(self, probe: Probe, path: Path) -> None:
        self._probe = probe
        self.path = path

    def __call__(self, command: str, **arguments: Any) -> Any:
        return self._probe(f"store.{command}", path=str(self.path), **arguments)

    def create(self, binding: Binding, keep_full: str | None = None) -> Any:
        packing = binding.packing
        centre = None if packing.centre is None else list(packing.centre)
        return self(
            "create", space_id=binding.space_id, code_id=binding.code_id, dim=binding.dim,
            bundle=binding.bundle, full_dim=binding.full_dim, kind=packing.kind, step=packing.step,
            centre=centre, keep_full=keep_full,
        )  # fmt: skip

    def put(self, some: Sequence[Entry], unchanged: Sequence[Document] = ()) -> Any:
        return self(
            "put", entries=sent_entries(some), unchanged=[sent_document(one) for one in unchanged]
        )
