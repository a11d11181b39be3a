"""What the databases hold, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_mrl.wire import Item

__all__ = ["TENANT_COLUMNS", "NewVersion", "Principal", "Row", "Tenant", "new_version", "tenant_of"]


class Row(Protocol):
    """A row of a query's result. Columns are named, never counted."""

    def __getitem__(self, column: str, /) -> Any:
        """The value of a column."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant: documents, devices and a space of their own.

    Attributes:
        name: Its key.
        space_id: The space that it was bound to by its first vectors; None before.
        full_dim: The dimensions of that space's vectors.
        change: The last change number.
        fence: The last change among forgotten tombstones; 0 if none was.
        fence_stamp: The stamp of the newest version among forgotten tombstones.
        fence_device: The device of that version.
        documents: How many are live.
        tombstones: How many are remembered as deleted.
        passages: How many vectors.
        limits: See ``LIMITS``; a JSON object.
        created_ms: When it was made.
        epoch: Names the numbering of changes; another one since the database was restored from a copy.
        newest: The largest stamp that it ever accepted, or that was left when stamps were brought back.
        restamped: What devices are told of the last time that stamps were brought back; a JSON object.
        restored_ms: When that epoch began; 0 for the first one.
    """

    name: str
    space_id: str | None
    full_dim: int | None
    change: int
    fence: int
    fence_stamp: int
    fence_device: str
    documents: int
    tombstones: int
    passages: int
    limits: str
    created_ms: int
    epoch: str
    newest: int = 0
    restamped: str = "{}"
    restored_ms: int = 0

    def limit(self, name: str) -> float | None:
        """The limit of that name, if there is one."""
        value: float | None = json.loads(self.limits).get(name)
        return value


#: What a query for ``tenant_of`` selects.
TENANT_COLUMNS = ", ".join(
    "tenant AS name" if field.name == "name" else field.name for field in fields(Tenant)
)


def tenant_of(row: Row) -> Tenant:
    """A tenant from a row with ``TENANT_COLUMNS``."""
    return Tenant(**{field.name: row[field.name] for field in fields(Tenant)})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request, as its token says.

    Attributes:
        tenant: Its tenant.
        device: The device.
        limits: The tenant's limits.
        push: The number of the device's last push.
        kept: That of the last one when the tenant's epoch began.
        read_only: Whether it may only pull.
        marks: What is known of the copies of its store (``marks.judge``).
        secret: The tenant's, with which receipts are made; None before it was first needed.
    """

    tenant: str
    device: str
    limits: Mapping[str, float]
    push: int = 0
    kept: int = 0
    read_only: bool = False
    marks: str = ""
    secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class NewVersion:
    """A version of a document on its way into the database.

    Attributes:
        id: The document's name.
        stamp: Its version's stamp.
        change: The change number that it gets.
        vectors: float16[n, full_dim]; n is 0 where it was deleted.
        deleted: Whether this is a tombstone.
        text: UTF-8, or None.
        spans: uint32 start and end of each passage, or None.
        metadata: JSON in UTF-8, or None.
        device: The device that wrote it.
    """

    id: str
    stamp: int
    change: int
    vectors: NDArray[np.float16]
    deleted: bool
    text: bytes | None
    spans: bytes | None
    metadata: bytes | None
    device: str


def new_version(item: Item, writer: str, change: int) -> NewVersion:
    """An item of a push on its way into the database."""
    spans = None
    if item.text is not None:
        spans = np.array([n for span in item.spans for n in span], "<u4").tobytes()
    return NewVersion(
        item.id,
        item.stamp,
        change,
        item.vectors,
        item.deleted,
        None if item.text is None else item.text.encode(),
        spans,
        None if item.metadata is None else _dump(item.metadata),
        writer,
    )


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
