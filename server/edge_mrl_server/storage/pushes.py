"""Documents in: of two versions the newer stays, and what is answered is durable.

Whoever writes holds the tenant's row until the commit. So change numbers are given out in the order in
which transactions end, and whoever has seen a number has seen every lower one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.wire import COUNTER_BITS, Item, Version, format_stamp, now_ms
from edge_mrl_server.errors import Refusal
from edge_mrl_server.logs import LOGGER
from edge_mrl_server.storage.accounts import get_tenant, renew_epochs, require_tenant
from edge_mrl_server.storage.database import Database, Session
from edge_mrl_server.storage.records import Principal, Row, Tenant, Written

__all__ = ["Push", "Pushed", "Result", "purge", "push", "restored", "wrong_space"]

#: How far ahead of this clock a stamp may be.
MAX_AHEAD_MS = 5 * 60_000
#: Statuses of items whose documents the server knows.
_KNOWN = frozenset({"applied", "stale"})
#: Vectors are float16 of unit length: rounding moves the length of 4,096 of them by less than 0.1 %.
LENGTH_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """What a device sends.

    Attributes:
        space_id: The space of its vectors.
        items: Documents; none to ask what became of the push of this number.
        dim: The dimensions of their vectors.
        cursor: How far it has pulled.
        number: One more than that of its last push of which it knows what became; 0 where it counts none.
        epoch: In which the cursor counts; empty where it does not say.
    """

    space_id: str
    items: Sequence[Item]
    dim: int
    cursor: int
    number: int = 0
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an item: its status, and the server's stamp where that is newer."""

    status: str
    stamp: int | None = None

    def as_json(self) -> dict[str, str]:
        """As the answer to a push has it."""
        return {"status": self.status} | ({"v": format_stamp(self.stamp)} if self.stamp else {})


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a push: of each item; and ids refused, None where that push never arrived."""

    results: Sequence[Result]
    refused: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class _Last:
    """A device's last push: its number, and ids refused as a list in JSON; None if it never arrived."""

    number: int
    refused: str | None


def push(database: Database, principal: Principal, batch: Push) -> Pushed:
    """Apply what is newer than what is there; durable when this returns.

    Raises:
        Refusal: Another space, documents that may have been deleted and forgotten, a push that comes too
            late, or a device that has not seen that the database was restored.
    """
    judged = _judge(batch)  # before anything is locked
    with database.write() as session:
        tenant = session.lock_tenant(principal.tenant)
        assert tenant is not None  # its token was found, and tenants are never deleted
        last = _last_push(session, principal)
        if _is_behind(tenant, batch, last):
            LOGGER.warning(
                "restored",
                extra={"fields": {"tenant": tenant.name, "device": principal.device}},
            )
            renew_epochs(session, tenant.name)
            tenant = get_tenant(session, tenant.name) or tenant
            last = _Last(max(batch.number - 1, last.number), last.refused)
            _note_push(session, tenant.name, principal.device, last)
        if not batch.items or batch.epoch in ("", tenant.epoch):
            return _take(session, (tenant, principal.device), batch, last, judged)
    # Only now: the new epoch is to stay.
    raise restored()


def _is_behind(tenant: Tenant, batch: Push, last: _Last) -> bool:
    """Whether a device has seen what is not here, so that this is an older copy of what it knew.

    One of another epoch tells nothing new: that epoch has ended.
    """
    if batch.epoch != tenant.epoch:
        return batch.epoch == "" and batch.cursor > tenant.change
    return batch.cursor > tenant.change or batch.number > last.number + 1


def restored() -> Refusal:
    """The refusal of a device whose cursor is of another epoch."""
    return Refusal(
        409,
        "restored",
        "the server was restored from an older copy: pull everything, from 0, and send what it lacks",
    )


def _last_push(session: Session, principal: Principal) -> _Last:
    sql = "SELECT push, refused FROM devices WHERE tenant = ? AND device = ?"
    rows = session.rows(sql, principal.tenant, principal.device)
    return _Last(*rows[0]) if rows else _Last(0, None)


def _take(
    session: Session,
    sender: tuple[Tenant, str],
    batch: Push,
    last: _Last,
    judged: tuple[dict[int, Item], dict[int, Result]],
) -> Pushed:
    """Apply a push that belongs to this database, and remember its number."""
    (tenant, device), (items, results) = sender, judged
    _check_space(tenant, batch)
    _check_number(batch, last)
    _check_dimensions(tenant, batch, items, results)
    known = _known(session, tenant.name, [item.id for item in items.values()])
    _check_fence(tenant, device, batch, items, known)
    written = _plan(tenant, device, items, known, results)
    if written:
        _write(session, tenant, device, batch, written, known)
    ordered = [results[place] for place in range(len(batch.items))]
    if batch.items and batch.number:
        pairs = zip(batch.items, ordered, strict=True)
        refused = [item.id for item, result in pairs if result.status not in _KNOWN]
        last = _Last(batch.number, json.dumps(refused))
    elif batch.number > last.number:
        last = _Last(batch.number, None)
    # Also where nothing was new: so this commit waits for standbys, and with it what an earlier one,
    # whose wait was cut short, has written.
    _note_push(session, tenant.name, device, last)
    return Pushed(ordered, None if last.refused is None else json.loads(last.refused))


def _note_push(session: Session, tenant: str, device: str, last: _Last) -> None:
    session.run(
        "UPDATE devices SET pushed_ms = ?, push = ?, refused = ? WHERE tenant = ? AND device = ?",
        now_ms(),
        last.number,
        last.refused,
        tenant,
        device,
    )


def _check_number(batch: Push, last: _Last) -> None:
    """Refuse what comes after the device was told that it had not arrived, or what is older still."""
    closed = bool(batch.items) and last.refused is None
    if batch.number and (batch.number < last.number or (batch.number == last.number and closed)):
        raise Refusal(
            409,
            "superseded",
            f"push {batch.number} comes too late, the last one was {last.number}: ask what became of it",
            push=last.number,
        )


def purge(database: Database, tenant_name: str, *, before_ms: int) -> tuple[int, int]:
    """Forget tombstones of before a time, and raise the fence to the last of them.

    Returns:
        How many were forgotten, and the fence.
    """
    with database.write() as session:
        session.lock_tenant(tenant_name)
        tenant = require_tenant(session, tenant_name)
        where = "WHERE tenant = ? AND deleted AND stamp < ?"
        args = (tenant_name, max(before_ms, 0) << COUNTER_BITS)
        rows = session.rows(
            f"SELECT change, stamp, device FROM documents {where}",  # noqa: S608
            *args,
        )
        if not rows:
            return 0, tenant.fence
        session.run(f"DELETE FROM documents {where}", *args)  # noqa: S608
        fence = max(tenant.fence, *(change for change, _, _ in rows))
        newest = max((stamp, device) for _, stamp, device in rows)
        newest = max(newest, (tenant.fence_stamp, tenant.fence_device))
        session.run(
            "UPDATE tenants SET fence = ?, fence_stamp = ?, fence_device = ?, "
            "tombstones = tombstones - ? WHERE tenant = ?",
            fence,
            *newest,
            len(rows),
            tenant_name,
        )
        return len(rows), fence


def _judge(batch: Push) -> tuple[dict[int, Item], dict[int, Result]]:
    """What can be said of the items by themselves: those to go on with, and results of the others."""
    limit = (now_ms() + MAX_AHEAD_MS) << COUNTER_BITS
    sound = _sound(batch)
    items: dict[int, Item] = {}
    results: dict[int, Result] = {}
    at = 0
    for place, item in enumerate(batch.items):
        end = at + len(item.vectors)
        if item.stamp > limit:
            results[place] = Result("clock_ahead")
        elif not sound[at:end].all():
            results[place] = Result("invalid")
        else:
            items[place] = item
        at = end
    return items, results


def _sound(batch: Push) -> NDArray[np.bool_]:
    """Which vectors are finite and of unit length."""
    parts = [item.vectors for item in batch.items if len(item.vectors)]
    if not parts:
        return np.zeros(0, bool)
    whole = np.concatenate(parts).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", whole, whole))
    # A comparison with what is not finite is False.
    sound: NDArray[np.bool_] = np.abs(lengths - 1) <= LENGTH_TOLERANCE
    return sound


def _check_space(tenant: Tenant, batch: Push) -> None:
    if tenant.space_id is not None and tenant.space_id != batch.space_id:
        raise wrong_space(tenant.space_id, batch.space_id)


def wrong_space(server: str, device: str) -> Refusal:
    """The refusal of vectors of another space."""
    return Refusal(
        409,
        "space",
        f"the vectors are of space {device[:64]}, this tenant holds space {server}: "
        "use a bundle of that space, or another tenant",
        space=server,
    )


def _check_dimensions(
    tenant: Tenant, batch: Push, items: dict[int, Item], results: dict[int, Result]
) -> None:
    if tenant.full_dim in (None, batch.dim):
        return
    for place in [place for place, item in items.items() if len(item.vectors)]:
        results[place] = Result("invalid")
        del items[place]


def _known(session: Session, tenant: str, ids: Sequence[str]) -> dict[str, Row]:
    """Stamp, device, whether deleted, and passages of the documents that are there, by id."""
    sql = (
        "SELECT id, stamp, device, deleted, passages FROM documents "  # noqa: S608
        f"WHERE tenant = ? AND id {session.among}"
    )
    return {row[0]: row[1:] for row in session.rows(sql, tenant, session.pack(ids))}


def _check_fence(
    tenant: Tenant, device: str, batch: Push, items: Mapping[int, Item], known: Mapping[str, Row]
) -> None:
    if batch.cursor >= tenant.fence:
        return
    forgotten = (tenant.fence_stamp, tenant.fence_device)
    for item in items.values():
        if item.id not in known and (item.stamp, device) <= forgotten:
            raise Refusal(
                409,
                "fenced",
                "a document that may have been deleted: pull everything, from 0, then push again",
                fence=tenant.fence,
            )


def _plan(
    tenant: Tenant,
    device: str,
    items: Mapping[int, Item],
    known: Mapping[str, Row],
    results: dict[int, Result],
) -> list[Written]:
    """Decide for each item; a batch may hold several versions of a document."""
    newest: dict[str, Version] = {name: Version(row[0], row[1]) for name, row in known.items()}
    first: dict[str, int] = {}
    quota = tenant.limit("documents")
    live = tenant.documents
    for place, item in items.items():
        version = Version(item.stamp, device)
        there = newest.get(item.id)
        if there is not None and version < there:
            results[place] = Result("stale", there.stamp)
            continue
        results[place] = Result("applied")
        if there == version:
            continue
        if there is None and not item.deleted:
            if quota is not None and live >= quota:
                results[place] = Result("forbidden")
                continue
            live += 1
        if item.id in first:  # an older version of the same batch
            results[first[item.id]] = Result("stale", version.stamp)
        newest[item.id], first[item.id] = version, place
    change = tenant.change
    written = []
    for place in sorted(first.values()):
        change += 1
        written.append(_written(items[place], change))
    return written


def _written(item: Item, change: int) -> Written:
    spans = None
    if item.text is not None:
        spans = np.array([n for span in item.spans for n in span], "<u4").tobytes()
    return Written(
        item.id,
        item.stamp,
        change,
        item.vectors,
        item.deleted,
        None if item.text is None else item.text.encode(),
        spans,
        None if item.metadata is None else _dump(item.metadata),
    )


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _write(
    session: Session,
    tenant: Tenant,
    device: str,
    batch: Push,
    written: Sequence[Written],
    known: Mapping[str, Row],
) -> None:
    count = session.upsert(tenant.name, device, written)
    # The statement compares versions once more; under the tenant's lock both must agree.
    if count != len(written):
        raise RuntimeError(f"{count} of {len(written)} versions were written")
    before = [known[item.id] for item in written if item.id in known]
    drop = [item.id for item in written if item.id in known and known[item.id][3]]
    session.replace_vectors(tenant.name, written, drop)
    dead_before = sum(bool(row[2]) for row in before)
    dead = sum(item.deleted for item in written)
    with_vectors = any(len(item.vectors) for item in written)
    session.run(
        "UPDATE tenants SET change = ?, documents = documents + ?, tombstones = tombstones + ?, "
        "passages = passages + ?, space_id = coalesce(space_id, ?), full_dim = coalesce(full_dim, ?) "
        "WHERE tenant = ?",
        written[-1].change,
        (len(written) - dead) - (len(before) - dead_before),
        dead - dead_before,
        sum(len(item.vectors) for item in written) - sum(row[3] for row in before),
        batch.space_id if with_vectors else None,
        batch.dim if with_vectors else None,
        tenant.name,
    )
