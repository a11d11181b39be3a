"""Documents in: of two versions the newer one stays, and what is acknowledged is durable.

Whoever writes holds the tenant's row until the commit. So change numbers are given out in the order in
which transactions end, and whoever has seen a number has seen every lower one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from edge_mrl.wire import COUNTER_BITS, Item, Version, format_stamp, now_ms
from edge_mrl_server.errors import (
    FencedError,
    RestoredError,
    SupersededPushError,
)
from edge_mrl_server.logs import LOGGER
from edge_mrl_server.storage import receipts
from edge_mrl_server.storage.accounts import (
    get_tenant,
    present_tenant,
    renew_epochs,
)
from edge_mrl_server.storage.agreement.offers import lacks, not_offerable, writer_of
from edge_mrl_server.storage.agreement.sums import move_sums
from edge_mrl_server.storage.contents import other_contents, valid_vectors
from edge_mrl_server.storage.database import Database, Transaction
from edge_mrl_server.storage.records import NewVersion, Principal, Row, Tenant, new_version
from edge_mrl_server.storage.spaces import require_space

__all__ = ["MAX_AHEAD_MS", "Push", "push"]

#: How far ahead of this clock a stamp may be.
MAX_AHEAD_MS = 5 * 60_000
#: And how far above the newest stamp that the tenant has: a millisecond's worth. So devices go on where
#: this clock was ahead once, and no device can run away with the stamps faster than time passes.
MAX_ABOVE_NEWEST = 1 << COUNTER_BITS
#: Statuses of items whose documents the server knows.
_KNOWN = frozenset({"applied", "stale"})


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """What a device sends.

    Attributes:
        space_id: The space of its vectors.
        items: Documents; empty to ask what became of the push of this number.
        dim: The dimensions of their vectors.
        cursor: How far it has pulled.
        number: One more than that of the last push that it knows the outcome of; 0 if it does not number
            its pushes.
        epoch: In which the cursor counts; empty where it does not say.
        receipt: The last that it was given (``receipts``); empty where it has none.
        lost: Versions that it has from this server, by id, and that the server does not have any more.
    """

    space_id: str
    items: Sequence[Item]
    dim: int
    cursor: int
    number: int = 0
    epoch: str = ""
    receipt: str = ""
    lost: Sequence[tuple[str, Version]] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an item.

    Attributes:
        status: See FORMAT.md, "Wire".
        stamp: The stamp of the version that is here, if the device has to know of it.
        reason: Why it is refused, for people.
    """

    status: str
    stamp: int | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, str]:
        """As the answer to a push has it."""
        newer = {"v": format_stamp(self.stamp)} if self.stamp else {}
        return {"status": self.status} | newer | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What became of a push.

    Attributes:
        results: Of each item, in the order of the push.
        refused: Ids of the documents that were refused; None if a push of that number never arrived.
        receipt: What the device was told by this.
        claim: "refused" where the device said without proof that the database was restored, and was not
            believed.
        first: The tenant's last change before the push.
        last: Its last change now: those in between are the push, and nothing else.
        epoch: The epoch in which they count.
    """

    results: Sequence[Result]
    refused: Sequence[str] | None
    receipt: str = ""
    claim: str | None = None
    first: int = 0
    last: int = 0
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class _LastPush:
    """A device's last push: its number, and ids refused as a list in JSON; None if it never arrived."""

    number: int
    refused: str | None


def push(database: Database, principal: Principal, batch: Push) -> PushOutcome:
    """Apply what is newer than what is there; durable when this returns.

    Raises:
        SpaceMismatchError: The vectors are of another space.
        FencedError: A document may have been deleted, and its tombstone forgotten.
        SupersededPushError: The push comes after a later one.
        RestoredError: The device has not seen that the database was restored.
    """
    # Before anything is locked.
    judged = _forbid(batch) if principal.read_only else _judge(batch)
    with database.write() as transaction:
        tenant = transaction.lock_tenant(principal.tenant) or present_tenant(
            transaction, principal.tenant
        )
        last = _last_push(transaction, principal)
        claim = _claim(transaction, tenant, principal, batch, last)
        if claim in ("proved", "unproved"):
            renew_epochs(transaction, tenant.name)
            tenant = get_tenant(transaction, tenant.name) or tenant
            last = _LastPush(max(batch.number - 1, last.number), last.refused)
            _note_push(transaction, tenant.name, principal.device, last)
        if not batch.items or batch.epoch in ("", tenant.epoch):
            outcome = _take(transaction, (tenant, principal.device), batch, last, judged)
            return replace(outcome, claim=claim)
    # Only now: the new epoch is to stay.
    raise RestoredError(claim=claim)


def _claim(
    transaction: Transaction, tenant: Tenant, principal: Principal, batch: Push, last: _LastPush
) -> str | None:
    """Whether a device knows more than this database: "proved", "unproved", "refused", or None.

    Only the first two are believed: every device of the tenant has to pull everything after that, so a
    device without a receipt of this server is believed once (``receipts.may_doubt``).
    """
    receipt = receipts.read(principal.secret, principal.device, batch.receipt)
    claim = None
    if receipt is not None and receipt.epoch == tenant.epoch:
        more = receipt.change > tenant.change or receipt.push > last.number
        claim = "proved" if more else None
    named = batch.lost if batch.epoch == tenant.epoch else ()
    behind = _is_behind(tenant, batch, last) or lacks(transaction, tenant, named)
    if claim is None and behind:
        allowed = not principal.read_only and receipts.may_doubt(
            transaction, tenant, principal.device
        )
        claim = "unproved" if allowed else "refused"
    if claim is not None:
        fields = {"tenant": tenant.name, "device": principal.device, "claim": claim}
        LOGGER.warning("restored", extra={"fields": fields})
    return claim


def _forbid(batch: Push) -> tuple[dict[int, Item], dict[int, Result]]:
    """What becomes of the items of a device that may only pull: it keeps them as dead letters."""
    refused = Result("forbidden", reason="this device may only receive")
    return {}, dict.fromkeys(range(len(batch.items)), refused)


def _is_behind(tenant: Tenant, batch: Push, last: _LastPush) -> bool:
    """Whether a device has seen what is not here, so that this is an older copy of what it knew.

    One of another epoch tells nothing new: that epoch has ended.
    """
    if batch.epoch != tenant.epoch:
        return batch.epoch == "" and batch.cursor > tenant.change
    return batch.cursor > tenant.change or batch.number > last.number + 1


def _last_push(transaction: Transaction, principal: Principal) -> _LastPush:
    sql = "SELECT push, refused FROM devices WHERE tenant = ? AND device = ?"
    rows = transaction.rows(sql, principal.tenant, principal.device)
    return _LastPush(rows[0]["push"], rows[0]["refused"]) if rows else _LastPush(0, None)


def _take(
    transaction: Transaction,
    sender: tuple[Tenant, str],
    batch: Push,
    last: _LastPush,
    judged: tuple[dict[int, Item], dict[int, Result]],
) -> PushOutcome:
    """Apply a push that belongs to this database, and remember its number."""
    (tenant, device), (items, results) = sender, judged
    require_space(tenant, batch.space_id)
    _check_number(batch, last)
    _check_dimensions(tenant, batch, items, results)
    for place in not_offerable(tenant, device, items):
        results[place] = Result("forbidden")
        del items[place]
    known = _known(transaction, tenant.name, [item.id for item in items.values()])
    _check_stamps(tenant, items, known, results)
    _check_fence(tenant, device, batch, items, known)
    own = {place: item for place, item in items.items() if writer_of(item, device) == device}
    others = other_contents(transaction, (tenant, device), own, known)
    written = _plan(tenant, device, items, known, results, others)
    if written:
        _write(transaction, tenant, batch, written, known)
        tenant = get_tenant(transaction, tenant.name) or tenant
    first = written[0].change - 1 if written else tenant.change
    ordered = [results[place] for place in range(len(batch.items))]
    if batch.items and batch.number:
        pairs = zip(batch.items, ordered, strict=True)
        refused = [item.id for item, result in pairs if result.status not in _KNOWN]
        last = _LastPush(batch.number, json.dumps(refused))
    elif batch.number > last.number:
        last = _LastPush(batch.number, None)
    # Also where nothing was new: so this commit waits for standbys, and with it what an earlier one,
    # whose wait was cut short, has written.
    _note_push(transaction, tenant.name, device, last)
    told = receipts.Receipt(tenant.epoch, tenant.change, last.number)
    return PushOutcome(
        ordered,
        None if last.refused is None else json.loads(last.refused),
        receipts.issue(receipts.secret_of(transaction, tenant.name), device, told),
        first=first,
        last=tenant.change,
        epoch=tenant.epoch,
    )


def _note_push(transaction: Transaction, tenant: str, device: str, last: _LastPush) -> None:
    transaction.run(
        "UPDATE devices SET pushed_ms = ?, push = ?, refused = ? WHERE tenant = ? AND device = ?",
        now_ms(),
        last.number,
        last.refused,
        tenant,
        device,
    )


def _check_number(batch: Push, last: _LastPush) -> None:
    """Refuse what comes after the device was told that it had not arrived, or what is older still."""
    closed = bool(batch.items) and last.refused is None
    if batch.number and (batch.number < last.number or (batch.number == last.number and closed)):
        raise SupersededPushError(batch.number, last=last.number)


def _judge(batch: Push) -> tuple[dict[int, Item], dict[int, Result]]:
    """Check the items by themselves: those to go on with by place, and the results of the others."""
    valid = valid_vectors(batch.items)
    items: dict[int, Item] = {}
    results: dict[int, Result] = {}
    at = 0
    for place, item in enumerate(batch.items):
        end = at + len(item.vectors)
        if item.problem is not None:
            results[place] = Result("invalid", reason=item.problem)
        elif not valid[at:end].all():
            results[place] = Result("invalid")
        else:
            items[place] = item
        at = end
    return items, results


def _check_dimensions(
    tenant: Tenant, batch: Push, items: dict[int, Item], results: dict[int, Result]
) -> None:
    if tenant.full_dim in (None, batch.dim):
        return
    for place in [place for place, item in items.items() if len(item.vectors)]:
        results[place] = Result("invalid")
        del items[place]


def _check_stamps(
    tenant: Tenant, items: dict[int, Item], known: Mapping[str, Row], results: dict[int, Result]
) -> None:
    """Refuse stamps beyond what any right clock gives, unless the tenant has as new ones already.

    The answer names the stamp that is there: it may be ahead of the time too, and the device may not
    know that it arrived. The next one has to be above that, or a later write would lose against it.
    """
    latest = max((now_ms() + MAX_AHEAD_MS) << COUNTER_BITS, tenant.newest + MAX_ABOVE_NEWEST)
    for place in [place for place, item in items.items() if item.stamp > latest]:
        there = known.get(items[place].id)
        results[place] = Result("clock_ahead", None if there is None else there["stamp"])
        del items[place]


def _known(transaction: Transaction, tenant: str, ids: Sequence[str]) -> dict[str, Row]:
    """Stamp, device, whether deleted, and passages of the documents that are there, by id."""
    found = transaction.documents(tenant, "id, stamp, device, deleted, passages", ids)
    return {row["id"]: row for row in found}


def _check_fence(
    tenant: Tenant, device: str, batch: Push, items: Mapping[int, Item], known: Mapping[str, Row]
) -> None:
    if batch.cursor >= tenant.fence:
        return
    forgotten = (tenant.fence_stamp, tenant.fence_device)
    for item in items.values():
        if item.id not in known and (item.stamp, writer_of(item, device)) <= forgotten:
            raise FencedError(
                "a document that may have been deleted: pull everything, from 0, then push again",
                fence=tenant.fence,
            )


def _plan(
    tenant: Tenant,
    device: str,
    items: Mapping[int, Item],
    known: Mapping[str, Row],
    results: dict[int, Result],
    others: Collection[int] = (),
) -> list[NewVersion]:
    """Decide for each item; a batch may hold several versions of a document.

    Args:
        tenant: As it is before the push.
        device: Who pushes.
        items: By their places in the push.
        known: What is there of their documents.
        results: Gets one for each item.
        others: Places of items whose version is there with another content.
    """
    newest: dict[str, Version] = {
        name: Version(row["stamp"], row["device"]) for name, row in known.items()
    }
    first: dict[str, int] = {}
    quota = tenant.limit("documents")
    live = tenant.documents
    for place, item in items.items():
        version = Version(item.stamp, writer_of(item, device))
        there = newest.get(item.id)
        if there is not None and version < there:
            results[place] = Result("stale", there.stamp)
            continue
        if place in others:
            # Another stamp, above that one: then both machines have the later content.
            results[place] = Result("clock_ahead", version.stamp)
            continue
        results[place] = Result("applied")
        if there == version:
            continue
        if there is None and not item.deleted:
            if quota is not None and live >= quota:
                results[place] = Result(
                    "forbidden", reason=f"the tenant's limit of {quota:,.0f} documents is reached"
                )
                continue
            live += 1
        if item.id in first:  # an older version of the same batch
            results[first[item.id]] = Result("stale", version.stamp)
        newest[item.id], first[item.id] = version, place
    change = tenant.change
    written = []
    for place in sorted(first.values()):
        change += 1
        written.append(new_version(items[place], writer_of(items[place], device), change))
    return written


def _write(
    transaction: Transaction,
    tenant: Tenant,
    batch: Push,
    written: Sequence[NewVersion],
    known: Mapping[str, Row],
) -> None:
    count = transaction.upsert(tenant.name, written)
    # The statement compares versions once more; under the tenant's lock both must agree.
    if count != len(written):
        raise RuntimeError(f"{count} of {len(written)} versions were written")
    before = [known[item.id] for item in written if item.id in known]
    drop = [item.id for item in written if item.id in known and known[item.id]["passages"]]
    transaction.replace_vectors(tenant.name, written, drop)
    dead_before = sum(bool(row["deleted"]) for row in before)
    dead = sum(item.deleted for item in written)
    with_vectors = any(len(item.vectors) for item in written)
    newest = max(item.stamp for item in written)
    transaction.run(
        "UPDATE tenants SET change = ?, documents = documents + ?, tombstones = tombstones + ?, "
        "passages = passages + ?, space_id = coalesce(space_id, ?), full_dim = coalesce(full_dim, ?), "
        "newest = CASE WHEN newest < ? THEN ? ELSE newest END WHERE tenant = ?",
        written[-1].change,
        (len(written) - dead) - (len(before) - dead_before),
        dead - dead_before,
        sum(len(item.vectors) for item in written) - sum(row["passages"] for row in before),
        batch.space_id if with_vectors else None,
        batch.dim if with_vectors else None,
        newest,
        newest,
        tenant.name,
    )
    move_sums(
        transaction,
        tenant,
        change=written[-1].change,
        gone=[(row["id"], row["stamp"], row["device"]) for row in before if not row["deleted"]],
        come=[(item.id, item.stamp, item.device) for item in written if not item.deleted],
    )
