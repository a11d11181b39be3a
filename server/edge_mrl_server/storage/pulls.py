"""Documents out: changes since a change, and everything that is live."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_mrl.wire import MAX_BODY_BYTES, MAX_ITEMS, Item, now_ms
from edge_mrl_server.errors import Refusal, UnavailableError
from edge_mrl_server.storage.accounts import require_tenant
from edge_mrl_server.storage.database import Database, Session
from edge_mrl_server.storage.pushes import restored
from edge_mrl_server.storage.records import Principal, Row, Tenant

__all__ = ["Changes", "Wanted", "changes_after", "live_pages", "note_pull"]

#: What a device's row says of when it pulled is this old at most; writing it costs a commit.
NOTE_MS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Some changes of a tenant, oldest first.

    Attributes:
        items: The documents; vectors float16[n, full_dim], or none where they were not asked for.
        cursor: The change that these lead to.
        more: Whether there are others behind them.
        fence: The tenant's fence.
        epoch: The tenant's epoch.
        full_dim: The dimensions of its vectors; None before the first.
    """

    items: list[Item]
    cursor: int
    more: bool
    fence: int
    epoch: str
    full_dim: int | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a device asks for.

    Attributes:
        since: The change that it has.
        limit: How many documents at most.
        vectors: Whether their vectors.
        text: Whether text and metadata.
        fence: The fence that stood when it began with nothing, if it is still at that.
        epoch: The epoch that ``since`` is of, empty where it knows none; None where it does not say.
    """

    since: int
    limit: int = MAX_ITEMS
    vectors: bool = True
    text: bool = False
    fence: int | None = None
    epoch: str | None = None


def changes_after(database: Database, tenant_name: str, wanted: Wanted) -> Changes:
    """The next changes: as many as are wanted, and about a megabyte at most.

    Raises:
        Refusal: Tombstones after ``wanted.since`` are forgotten, or it is of another epoch.
    """
    since = wanted.since
    with database.read() as session:
        tenant = require_tenant(session, tenant_name)
        if wanted.epoch is not None:
            same = wanted.epoch in ("", tenant.epoch)
            if not same or since > tenant.change:
                raise restored()
        if 0 < since < tenant.fence and wanted.fence != tenant.fence:
            raise Refusal(
                409,
                "fenced",
                "deletions after this change are forgotten: pull everything, from 0",
                fence=tenant.fence,
            )
        rows = _outlines(session, tenant_name, since, wanted.limit + 1, text=wanted.text)
        passage_bytes = 2 * (tenant.full_dim or 0) if wanted.vectors else 0
        taken = _within_budget(rows[: wanted.limit], passage_bytes)
        items = _load(session, tenant, taken, vectors=wanted.vectors, text=wanted.text)
        more = len(taken) < len(rows)
        cursor = taken[-1].change if more else tenant.change
        return Changes(items, cursor, more, tenant.fence, tenant.epoch, tenant.full_dim)


@contextmanager
def live_pages(
    database: Database, tenant_name: str, *, text: bool
) -> Iterator[tuple[Tenant, Iterator[list[Item]]]]:
    """All live documents with their vectors, in pages, as one state of the database has them."""
    with database.read() as session:
        tenant = require_tenant(session, tenant_name)
        yield tenant, _pages(session, tenant, text=text)


def _pages(session: Session, tenant: Tenant, *, text: bool) -> Iterator[list[Item]]:
    since = 0
    while True:
        rows = _outlines(session, tenant.name, since, MAX_ITEMS, text=text, live=True)
        if not rows:
            return
        rows = _within_budget(rows, 2 * (tenant.full_dim or 0))
        yield _load(session, tenant, rows, vectors=True, text=text)
        since = rows[-1].change


def note_pull(database: Database, principal: Principal, since: int) -> None:
    """Remember how far a device has pulled, for the operator."""
    now = now_ms()
    where = "WHERE tenant = ? AND device = ?"
    with database.read() as session:
        rows = session.rows(
            f"SELECT pulled, pulled_ms FROM devices {where}",  # noqa: S608
            principal.tenant,
            principal.device,
        )
    if not rows or (rows[0][1] is not None and now - rows[0][1] < NOTE_MS):
        return
    # Its row may be held by a push that waits for a standby: pulls must not wait for that too.
    with suppress(UnavailableError), database.write(lazily=True) as session:
        session.run(
            f"UPDATE devices SET pulled = ?, pulled_ms = ? {where}",  # noqa: S608
            since,
            now,
            principal.tenant,
            principal.device,
        )


class _Outline(NamedTuple):
    """A document without its text and vectors."""

    id: str
    stamp: int
    device: str
    change: int
    deleted: bool
    passages: int
    text_bytes: int


def _outlines(
    session: Session, tenant: str, since: int, limit: int, *, text: bool, live: bool = False
) -> list[_Outline]:
    size = (
        "coalesce(length(text), 0) + coalesce(length(metadata), 0) + coalesce(length(spans), 0)"
        if text
        else "0"
    )
    sql = (
        f"SELECT id, stamp, device, change, deleted, passages, {size} FROM documents "  # noqa: S608
        f"WHERE tenant = ? AND change > ? {'AND NOT deleted' if live else ''} "
        "ORDER BY change LIMIT ?"
    )
    return [_Outline(*row) for row in session.rows(sql, tenant, since, limit)]


def _within_budget(rows: Sequence[_Outline], passage_bytes: int) -> list[_Outline]:
    """The first rows that take about a megabyte; at least one."""
    taken: list[_Outline] = []
    total = 0
    for row in rows:
        total += row.passages * passage_bytes + row.text_bytes
        if taken and total > MAX_BODY_BYTES:
            break
        taken.append(row)
    return taken


def _load(
    session: Session, tenant: Tenant, rows: Sequence[_Outline], *, vectors: bool, text: bool
) -> list[Item]:
    live = [row.id for row in rows if not row.deleted]
    none = np.zeros((0, tenant.full_dim or 1), np.float16)
    arrays = session.vectors(tenant.name, live) if vectors and live else {}
    contents: dict[str, Row] = {}
    if text and live:
        sql = (
            "SELECT id, text, spans, metadata FROM documents "  # noqa: S608
            f"WHERE tenant = ? AND id {session.among}"
        )
        found = session.rows(sql, tenant.name, session.pack(live))
        contents = {row[0]: row[1:] for row in found}
    items = []
    for row in rows:
        body, spans, metadata = contents.get(row.id, (None, None, None))
        item = Item(
            row.id,
            row.stamp,
            arrays.get(row.id, none),
            bool(row.deleted),
            row.device,
            None if body is None else bytes(body).decode(),
            None if metadata is None else json.loads(bytes(metadata)),
            _spans(spans) if vectors else (),
        )
        items.append(item)
    return items


def _spans(data: bytes | None) -> list[tuple[int, int]]:
    flat = np.frombuffer(data or b"", "<u4").tolist()
    return list(zip(flat[::2], flat[1::2], strict=True))
