"""Documents: versions in, changes out, vectors for ranking; in either database.

Whoever writes holds the tenant's row until the commit. So change numbers are given out in the order in
which transactions end, and whoever has seen a number has seen every lower one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.clock import COUNTER_BITS, Version, format_stamp, now_ms
from edge_mrl.wire import MAX_BODY_BYTES, MAX_ITEMS, Item
from edge_mrl_server.errors import Refusal
from edge_mrl_server.storage.accounts import Principal, Tenant, get_tenant
from edge_mrl_server.storage.database import Database, Row, Session, Written

__all__ = [
    "Changes",
    "Push",
    "Result",
    "changes_after",
    "live_pages",
    "note_pull",
    "purge",
    "push",
    "rerank",
    "search",
]

#: How far ahead of this clock a stamp may be.
MAX_AHEAD_MS = 5 * 60_000
#: Vectors are float16 of unit length: rounding moves the length of 4,096 of them by less than 0.1 %.
LENGTH_TOLERANCE = 0.01
#: What a device's row says of when it pulled is this old at most; writing it costs a commit.
NOTE_MS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """What a device sends: documents of one space, and how far it has pulled."""

    space_id: str
    items: Sequence[Item]
    dim: int
    cursor: int


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an item: its status, and the server's stamp where that is newer."""

    status: str
    stamp: int | None = None

    def as_json(self) -> dict[str, str]:
        """As the answer to a push has it."""
        return {"status": self.status} | ({"v": format_stamp(self.stamp)} if self.stamp else {})


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Some changes of a tenant, oldest first.

    Attributes:
        items: The documents; vectors float16[n, full_dim], or none where they were not asked for.
        cursor: The change that these lead to.
        more: Whether there are others behind them.
        fence: The tenant's fence.
        full_dim: The dimensions of its vectors; None before the first.
    """

    items: list[Item]
    cursor: int
    more: bool
    fence: int
    full_dim: int | None


def push(database: Database, principal: Principal, batch: Push) -> list[Result]:
    """Apply what is newer than what is there; durable when this returns.

    Raises:
        Refusal: Another space, or documents that may have been deleted and forgotten.
    """
    items, results = _judge(batch)
    with database.write() as session:
        row = session.lock_tenant(principal.tenant)
        assert row is not None
        tenant = Tenant(*row)
        _check_space(tenant, batch)
        _check_dimensions(tenant, batch, items, results)
        known = _known(session, tenant.name, [item.id for item in items.values()])
        _check_fence(tenant, principal.device, batch, items, known)
        written = _plan(tenant, principal.device, items, known, results)
        if written:
            _write(session, tenant, principal.device, batch, written, known)
        session.run(
            "UPDATE devices SET pushed_ms = ? WHERE tenant = ? AND device = ?",
            now_ms(),
            tenant.name,
            principal.device,
        )
    return [results[place] for place in range(len(batch.items))]


def changes_after(
    database: Database,
    tenant_name: str,
    since: int,
    *,
    limit: int = MAX_ITEMS,
    vectors: bool,
    text: bool,
    fence: int | None = None,
    live_only: bool = False,
) -> Changes:
    """The next changes: at most ``limit``, and about a megabyte.

    Args:
        database: Where.
        tenant_name: Whose.
        since: The change that the device has.
        limit: How many at most.
        vectors: Whether their vectors are wanted.
        text: Whether text and metadata are.
        fence: The fence that stood when the device began with nothing, if it still pulls that.
        live_only: Leave tombstones out.

    Raises:
        Refusal: Tombstones after ``since`` are forgotten.
    """
    with database.read() as session:
        tenant = _tenant(session, tenant_name)
        if 0 < since < tenant.fence and fence != tenant.fence:
            raise Refusal(
                409,
                "fenced",
                "deletions after this change are forgotten: pull everything, from 0",
                fence=tenant.fence,
            )
        rows = _heads_of_changes(session, tenant_name, since, limit + 1, text, live_only)
        taken = _within_budget(rows[:limit], 2 * (tenant.full_dim or 0) if vectors else 0)
        items = _load(session, tenant, taken, vectors=vectors, text=text)
        more = len(taken) < len(rows)
        # Beyond the last change there may be numbers without a document: they were written again.
        cursor = taken[-1][3] if more else max(tenant.change, since)
        return Changes(items, cursor, more, tenant.fence, tenant.full_dim)


def live_pages(
    database: Database, tenant_name: str, *, text: bool
) -> tuple[Tenant, Iterator[list[Item]]]:
    """All live documents with their vectors, in pages, as one state of the database has them.

    The iterator holds a transaction; use it up, or close it.
    """
    context = database.read()
    session = context.__enter__()
    try:
        tenant = _tenant(session, tenant_name)
    except BaseException:
        context.__exit__(None, None, None)
        raise

    def pages() -> Iterator[list[Item]]:
        try:
            since = 0
            while True:
                rows = _heads_of_changes(session, tenant_name, since, MAX_ITEMS, text, live=True)
                if not rows:
                    return
                rows = _within_budget(rows, 2 * (tenant.full_dim or 0))
                yield _load(session, tenant, rows, vectors=True, text=text)
                since = rows[-1][3]
        finally:
            context.__exit__(None, None, None)

    return tenant, pages()


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
    with database.write() as session:
        session.run(
            f"UPDATE devices SET pulled = ?, pulled_ms = ? {where}",  # noqa: S608
            since,
            now,
            principal.tenant,
            principal.device,
        )


def rerank(
    database: Database, tenant_name: str, space_id: str, ids: Sequence[str], query: NDArray[Any]
) -> list[float | None]:
    """The cosine of each document's best passage; None where there is none.

    Args:
        database: Where.
        tenant_name: Whose.
        space_id: The space of the query.
        ids: Names of documents.
        query: float[full_dim], unit length.
    """
    with database.read() as session:
        tenant = _tenant(session, tenant_name)
        _check_query(tenant, space_id, query)
        found = session.vectors(tenant_name, list(dict.fromkeys(ids)))
    return _best(found, ids, query.astype(np.float32))


def search(
    database: Database, tenant_name: str, space_id: str, query: NDArray[Any], k: int, *, text: bool
) -> list[dict[str, Any]]:
    """The nearest documents, best first: ``id``, ``score``, and ``text`` and ``meta`` if asked for."""
    with database.read() as session:
        tenant = _tenant(session, tenant_name)
        _check_query(tenant, space_id, query)
        if not tenant.passages:
            return []
        found = session.search(
            tenant_name,
            query.astype(np.float32),
            k,
            passages=tenant.passages,
            change=tenant.change,
        )
        hits = [{"id": name, "score": round(score, 6)} for name, score in found]
        if text and hits:
            sql = (
                f"SELECT id, text, metadata FROM documents WHERE tenant = ? AND id {session.among}"  # noqa: S608
            )
            rows = session.rows(sql, tenant_name, session.pack([name for name, _ in found]))
            texts = {row[0]: _content(row[1], row[2]) for row in rows}
            hits = [hit | texts.get(str(hit["id"]), {}) for hit in hits]
    return hits


def purge(database: Database, tenant_name: str, *, before_ms: int) -> tuple[int, int]:
    """Forget tombstones of before a time, and raise the fence to the last of them.

    Returns:
        How many were forgotten, and the fence.
    """
    with database.write() as session:
        row = session.lock_tenant(tenant_name)
        assert row is not None
        tenant = Tenant(*row)
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


# --- push


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


# --- pull


def _tenant(session: Session, name: str) -> Tenant:
    tenant = get_tenant(session, name)
    assert tenant is not None
    return tenant


def _heads_of_changes(
    session: Session, tenant: str, since: int, limit: int, text: bool, live: bool
) -> list[Row]:
    """id, stamp, device, change, deleted, passages and bytes of text; without the text itself."""
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
    return session.rows(sql, tenant, since, limit)


def _within_budget(rows: Sequence[Row], passage_bytes: int) -> list[Row]:
    """The first rows that take about a megabyte; at least one."""
    taken: list[Row] = []
    total = 0
    for row in rows:
        total += row[5] * passage_bytes + row[6]
        if taken and total > MAX_BODY_BYTES:
            break
        taken.append(row)
    return taken


def _load(
    session: Session, tenant: Tenant, rows: Sequence[Row], *, vectors: bool, text: bool
) -> list[Item]:
    live = [row[0] for row in rows if not row[4]]
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
    for name, stamp, device, _, deleted, _, _ in rows:
        body, spans, metadata = contents.get(name, (None, None, None))
        items.append(
            Item(
                name,
                stamp,
                arrays.get(name, none),
                bool(deleted),
                device,
                None if body is None else bytes(body).decode(),
                None if metadata is None else json.loads(bytes(metadata)),
                _spans(spans) if vectors else (),
            )
        )
    return items


def _spans(data: bytes | None) -> list[tuple[int, int]]:
    flat = np.frombuffer(data or b"", "<u4").tolist()
    return list(zip(flat[::2], flat[1::2], strict=True))


# --- ranking


def _check_query(tenant: Tenant, space_id: str, query: NDArray[Any]) -> None:
    if tenant.space_id is not None and tenant.space_id != space_id:
        raise wrong_space(tenant.space_id, space_id)
    if tenant.full_dim not in (None, len(query)):
        raise Refusal(
            400, "malformed", f"a query of {len(query)} dimensions, expected {tenant.full_dim}"
        )


def _best(
    found: Mapping[str, NDArray[np.float16]], ids: Sequence[str], query: NDArray[np.float32]
) -> list[float | None]:
    if not found:
        return [None] * len(ids)
    names = list(found)
    counts = [len(found[name]) for name in names]
    whole = np.concatenate([found[name] for name in names]).astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", whole, whole)) * np.linalg.norm(query)
    cosines = whole @ query / lengths
    starts = np.cumsum([0, *counts[:-1]])
    best = dict(zip(names, np.maximum.reduceat(cosines, starts).tolist(), strict=True))
    return [None if name not in best else round(best[name], 6) for name in ids]


def _content(text: bytes | None, metadata: bytes | None) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if text is not None:
        content["text"] = bytes(text).decode()
    if metadata is not None:
        content["meta"] = json.loads(bytes(metadata))
    return content


Pages = Callable[[], Iterator[list[Item]]]
