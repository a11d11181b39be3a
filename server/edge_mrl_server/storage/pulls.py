"""Documents out: changes since a change, and everything that is live."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.wire import MAX_BODY_BYTES, MAX_ITEMS, Item, Sums, group_of, now_ms
from edge_mrl_server.errors import FencedError, RestoredError, UnavailableError
from edge_mrl_server.storage.accounts import present_tenant
from edge_mrl_server.storage.agreement.offers import offer_limit
from edge_mrl_server.storage.agreement.sums import read_sums
from edge_mrl_server.storage.database import Database, Transaction
from edge_mrl_server.storage.records import Principal, Row, Tenant
from edge_mrl_server.storage.spaces import require_space

__all__ = ["Changes", "LivePages", "PullQuery", "changes_after", "live_pages", "note_pull"]

#: A tenant as it was at the beginning, and its live documents in pages.
LivePages = tuple[Tenant, Iterator[list[Item]]]

#: Documents of some groups are found among all: so many rows at once, so often for a page.
SCAN_ROWS = 4_096
MAX_SCANS = 16
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
        space_id: Their space; None before the first.
        restamped: What devices need to know if stamps were brought back; empty if none ever were.
        offers: The largest stamp of others' versions that a device may offer; 0 for none.
        sums: The sums of the tenant's live documents, if these are its last changes, and they are there.
    """

    items: list[Item]
    cursor: int
    more: bool
    fence: int
    epoch: str
    full_dim: int | None
    space_id: str | None
    restamped: Mapping[str, Any] = field(default_factory=dict)
    offers: int = 0
    sums: Sums | None = None


@dataclass(frozen=True, slots=True)
class PullQuery:
    """What a device asks for.

    Attributes:
        since: The change that it has.
        limit: How many documents at most.
        vectors: Whether their vectors.
        text: Whether text and metadata.
        fence: The fence that stood when it began with nothing, if it is still at that.
        epoch: The epoch that ``since`` is of, empty where it knows none; None where it does not say.
        space_id: The space of its store; None where it does not say.
        groups: Documents of these groups alone (``wire.group_of``); None for all.
    """

    since: int
    limit: int = MAX_ITEMS
    vectors: bool = True
    text: bool = False
    fence: int | None = None
    epoch: str | None = None
    space_id: str | None = None
    groups: frozenset[int] | None = None


def changes_after(database: Database, tenant_name: str, wanted: PullQuery) -> Changes:
    """The next changes: as many as are wanted, and about a megabyte at most.

    Raises:
        FencedError: Tombstones after ``wanted.since`` are forgotten.
        RestoredError: ``wanted.since`` is of another epoch.
        SpaceMismatchError: The tenant's vectors are of another space than the device's store.
    """
    since = wanted.since
    with database.read() as transaction:
        tenant = present_tenant(transaction, tenant_name)
        require_space(tenant, wanted.space_id)
        if wanted.epoch is not None:
            same = wanted.epoch in ("", tenant.epoch)
            if not same or since > tenant.change:
                raise RestoredError
        if 0 < since < tenant.fence and wanted.fence != tenant.fence:
            raise FencedError(
                "deletions after this change are forgotten: pull everything, from 0",
                fence=tenant.fence,
            )
        rows, seen = _wanted_outlines(transaction, tenant, wanted)
        passage_bytes = 2 * (tenant.full_dim or 0) if wanted.vectors else 0
        taken = _within_budget(rows[: wanted.limit], passage_bytes)
        items = _load(transaction, tenant, taken, vectors=wanted.vectors, text=wanted.text)
        more = len(taken) < len(rows)
        cursor = taken[-1].change if more else seen
        more = cursor < tenant.change if wanted.groups is not None else more
        return Changes(
            items,
            cursor,
            more,
            tenant.fence,
            tenant.epoch,
            tenant.full_dim,
            tenant.space_id,
            json.loads(tenant.restamped),
            offer_limit(tenant),
            None if more else read_sums(transaction, tenant),
        )


def _wanted_outlines(
    transaction: Transaction, tenant: Tenant, wanted: PullQuery
) -> tuple[list[_Outline], int]:
    """One more than the documents that are wanted, and the change up to which all of them are there."""
    if wanted.groups is None:
        rows = _outlines(transaction, tenant.name, wanted.since, wanted.limit + 1, text=wanted.text)
        return rows, tenant.change
    found: list[_Outline] = []
    since = wanted.since
    for _ in range(MAX_SCANS):
        rows = _outlines(transaction, tenant.name, since, SCAN_ROWS, text=wanted.text)
        found += [row for row in rows if group_of(row.id) in wanted.groups]
        if len(rows) < SCAN_ROWS:
            return found[: wanted.limit + 1], tenant.change
        since = rows[-1].change
        if len(found) > wanted.limit:
            break
    return found[: wanted.limit + 1], since


def live_pages(database: Database, tenant_name: str, *, text: bool) -> LivePages:
    """All live documents with their vectors, in pages, as a snapshot has them.

    Each page is a transaction of its own: one for all of them would keep the database from clearing up
    for as long as it takes (vacuum, or SQLite's log). So what changes meanwhile is left out from then on:
    it has a change behind the tenant's last one, from which a device with these pages goes on.

    Returns:
        The tenant as it was at the beginning, and the pages.

    Raises:
        UnavailableError: While they are read: the database was restored, or the tenant is another one.
    """
    with database.read() as transaction:
        tenant = present_tenant(transaction, tenant_name)
    return tenant, _pages(database, tenant, text=text)


def _pages(database: Database, tenant: Tenant, *, text: bool) -> Iterator[list[Item]]:
    since = 0
    while True:
        with database.read() as transaction:
            now = present_tenant(transaction, tenant.name)
            if now.epoch != tenant.epoch:
                raise UnavailableError("the database was restored while a snapshot was made")
            rows = _outlines(transaction, tenant.name, since, MAX_ITEMS, text=text, live=True)
            rows = [row for row in rows if row.change <= tenant.change]
            if not rows:
                return
            rows = _within_budget(rows, 2 * (tenant.full_dim or 0))
            page = _load(transaction, tenant, rows, vectors=True, text=text)
        yield page
        since = rows[-1].change


def note_pull(database: Database, principal: Principal, given: Changes) -> None:
    """Remember how far a device is with what it was given now, for the operator.

    The last page is noted when it is further than what was noted; others now and then.
    """
    now = now_ms()
    where = "WHERE tenant = ? AND device = ?"
    with database.read() as transaction:
        rows = transaction.rows(
            f"SELECT pulled, pulled_ms, pulled_epoch FROM devices {where}",  # noqa: S608
            principal.tenant,
            principal.device,
        )
    if not rows:
        return
    (row,) = rows
    recently = row["pulled_ms"] is not None and now - row["pulled_ms"] < NOTE_MS
    same = (row["pulled"], row["pulled_epoch"]) == (given.cursor, given.epoch)
    if recently and (given.more or same):
        return
    # Its row may be held by a push that waits for a standby: pulls must not wait for that too.
    with suppress(UnavailableError), database.write(lazily=True) as transaction:
        transaction.run(
            f"UPDATE devices SET pulled = ?, pulled_ms = ?, pulled_epoch = ? {where}",  # noqa: S608
            given.cursor,
            now,
            given.epoch,
            principal.tenant,
            principal.device,
        )


@dataclass(frozen=True, slots=True)
class _Outline:
    """A document without its text and vectors."""

    id: str
    stamp: int
    device: str
    change: int
    deleted: bool
    passages: int
    text_bytes: int


def _outlines(
    transaction: Transaction, tenant: str, since: int, limit: int, *, text: bool, live: bool = False
) -> list[_Outline]:
    size = (
        "coalesce(length(text), 0) + coalesce(length(metadata), 0) + coalesce(length(spans), 0)"
        if text
        else "0"
    )
    sql = (
        f"SELECT id, stamp, device, change, deleted, passages, {size} AS text_bytes FROM documents "  # noqa: S608
        f"WHERE tenant = ? AND change > ? {'AND NOT deleted' if live else ''} "
        "ORDER BY change LIMIT ?"
    )
    names = [field.name for field in fields(_Outline)]
    rows = transaction.rows(sql, tenant, since, limit)
    return [_Outline(**{name: row[name] for name in names}) for row in rows]


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
    transaction: Transaction, tenant: Tenant, rows: Sequence[_Outline], *, vectors: bool, text: bool
) -> list[Item]:
    live = [row.id for row in rows if not row.deleted]
    no_vectors = np.zeros((0, tenant.full_dim or 1), np.float16)
    arrays = transaction.vectors(tenant.name, live) if vectors and live else {}
    contents: dict[str, Row] = {}
    if text and live:
        found = transaction.documents(tenant.name, "id, text, spans, metadata", live)
        contents = {content["id"]: content for content in found}
    return [
        _item(row, arrays.get(row.id, no_vectors), contents.get(row.id), with_spans=vectors)
        for row in rows
    ]


def _item(
    row: _Outline, vectors: NDArray[np.float16], content: Row | None, *, with_spans: bool
) -> Item:
    text, spans, metadata = None, None, None
    if content is not None:
        text, spans, metadata = content["text"], content["spans"], content["metadata"]
    return Item(
        row.id,
        row.stamp,
        vectors,
        bool(row.deleted),
        row.device,
        None if text is None else bytes(text).decode(),
        None if metadata is None else json.loads(bytes(metadata)),
        _spans(spans) if with_spans else (),
    )


def _spans(data: bytes | None) -> list[tuple[int, int]]:
    flat = np.frombuffer(data or b"", "<u4").tolist()
    return list(zip(flat[::2], flat[1::2], strict=True))
