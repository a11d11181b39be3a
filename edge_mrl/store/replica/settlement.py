"""Agreeing with a server on versions that it should have and lacks: they are offered, or given up."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_mrl.store.replica.agreement import (
    Agreement,
    add_pending,
    make_sums,
    read_agreement,
    write_agreement,
)
from edge_mrl.store.replica.enrollment import require
from edge_mrl.store.replica.names import own_names
from edge_mrl.store.replica.outbox import (
    NEVER,
    UNKNOWN,
    Known,
    Queued,
    drop_versions,
    known_versions,
    write_queue,
    write_versions,
)
from edge_mrl.store.replica.withheld import (
    LOST,
    UNREADABLE,
    Withheld,
    list_withheld,
    write_withheld,
)
from edge_mrl.store.statements import select_rows
from edge_mrl.wire import Sums, Version, group_of, now_ms

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

__all__ = [
    "LocalSums",
    "Rules",
    "Settled",
    "agreement_of",
    "give_up",
    "local_sums",
    "lose_or_offer",
    "note_agreed",
    "note_difference",
    "note_explained",
    "settle_groups",
]

#: The stamp of a version that was given up: older than any that a server has.
GIVEN_UP = 1
#: The first wait before groups that still differ are pulled again, and how often it may double.
AGAIN_MS = 3_600_000
DOUBLINGS = 6
_LOST_TEXT = (
    "the server was restored from a copy without this version, and this device could not send it for "
    "the one that wrote it"
)


@dataclass(frozen=True, slots=True)
class LocalSums:
    """What this store holds, as it compares with a server's.

    Attributes:
        sums: Of live versions, with those that the server has and this store cannot hold.
        cursor: The server's change up to which everything was pulled.
        epoch: The epoch in which that counts.
        excused: Groups with documents that wait, or that the server does not take.
    """

    sums: Sums
    cursor: int
    epoch: str
    excused: frozenset[int]


@dataclass(frozen=True, slots=True)
class Settled:
    """What agreeing on groups changed.

    Attributes:
        deleted: Documents deleted here, because the server does not have them.
        queued: Versions queued, as they are, because the server lacks them.
        given_up: Versions of other devices that nothing here can send.
        claims: Versions of other devices that the server takes only after it has seen what it lacks.
    """

    deleted: int = 0
    queued: int = 0
    given_up: int = 0
    claims: Sequence[tuple[str, Version]] = ()


def agreement_of(store: Store) -> Agreement:
    """How far a store agrees with its server."""
    with store.locked() as (connection, _):
        return read_agreement(connection)


def local_sums(store: Store, *, anew: bool = False) -> LocalSums:
    """What a store holds, as it compares with a server's.

    Args:
        store: The store.
        anew: Make the sums again from the versions, and keep them.
    """
    with store.writing() if anew else store.reading(), store.locked() as (connection, _):
        now = require(connection, store)
        found = read_agreement(connection)
        if anew:
            found = replace(found, sums=make_sums(connection))
            write_agreement(connection, found)
        letters = [one for one in list_withheld(connection) if one.reason == UNREADABLE]
        known = known_versions(connection, [one.id for one in letters])
        for one in letters:
            before = known.get(one.id)
            if before is not None and not before.deleted:
                found.sums.remove(one.id, before.version.stamp, before.version.device)
            if not one.deleted:
                found.sums.add(one.id, one.version.stamp, one.version.device)
        # A version of its own that no server has, or has had, is here alone.
        query = (
            "SELECT id FROM outbox UNION SELECT id FROM dead UNION "
            "SELECT id FROM versions WHERE stamp = ? OR (device = ? AND acknowledged < stamp - 1)"
        )
        alone = connection.execute(query, (GIVEN_UP, now.device)).fetchall()
        excused = frozenset(group_of(name) for (name,) in alone)
        return LocalSums(found.sums, now.cursor, now.epoch, excused)


def note_agreed(store: Store) -> None:
    """Note that store and server hold the same."""
    with store.writing(), store.locked() as (connection, _):
        write_agreement(connection, Agreement(read_agreement(connection).sums))


def note_explained(store: Store, *, there: int, here: int) -> None:
    """Note that the difference of two sums comes from what waits here alone."""
    with store.writing(), store.locked() as (connection, _):
        before = read_agreement(connection)
        write_agreement(connection, replace(before, there=there, here=here, differs=0, tries=0))


def note_difference(store: Store, groups: Collection[int]) -> None:
    """Note that groups differ, and have them pulled again: once now, and seldom if that does not help."""
    with store.writing(), store.locked() as (connection, _):
        before = read_agreement(connection)
        after = replace(
            before,
            pending=before.pending | frozenset(groups),
            tries=before.tries + 1,
            next_ms=now_ms() + AGAIN_MS * 2 ** min(before.tries, DOUBLINGS),
            differs=len(groups),
        )
        write_agreement(connection, after)


def settle_groups(
    store: Store,
    there: Mapping[str, tuple[Version, bool]],
    groups: Collection[int],
    *,
    offers: int | None,
    claimed: bool = False,
) -> Settled:
    """Agree on what the server does not have, after all documents of some groups were pulled.

    What this device wrote is queued again as it was. So is what others wrote, where the server takes that
    and this device can send it. What it cannot send it gives up: the server's version is pulled instead.

    Args:
        store: The store.
        there: Versions that the server has of the groups, by id, and whether they are deletions.
        groups: The groups.
        offers: The largest stamp of others' versions that the server takes; None if it takes none at all,
            as an older server.
        claimed: The server was told what it lacks, and takes no more than that.
    """
    with store.taking() as taking:
        connection = taking.connection
        enrollment = require(connection, store)
        own = own_names(connection, enrollment)
        rules = Rules(enrollment.device, own, store.keep_full, offers, claimed)
        lacking = _lacking(connection, there, groups)
        gone = [name for name, one in lacking.items() if one.version.stamp == GIVEN_UP]
        lost = {name: one for name, one in lacking.items() if name not in gone}
        stamps = {name: version.stamp for name, (version, _) in there.items()}
        queued, given_up, claims = lose_or_offer(connection, lost, stamps, rules)
        drop_versions(connection, gone)
        taking.delete(gone)
        now = read_agreement(connection)
        # What was given up just now is pulled in the next round.
        again = {group_of(name) for name in given_up}
        kept = now.pending - frozenset(groups) | again
        write_agreement(connection, replace(now, pending=kept))
        return Settled(len(gone), queued, len(given_up), claims)


def _lacking(
    connection: sqlite3.Connection,
    there: Mapping[str, tuple[Version, bool]],
    groups: Collection[int],
) -> dict[str, Known]:
    """What is live or deleted here in some groups, was acknowledged, and is newer than on the server."""
    rows = connection.execute("SELECT id FROM versions").fetchall()
    known = known_versions(connection, [name for (name,) in rows if group_of(name) in groups])
    waiting = {
        name for (name,) in connection.execute("SELECT id FROM outbox UNION SELECT id FROM dead")
    }
    found = {}
    for name, one in known.items():
        has, deleted = there.get(name, (None, True))
        newer = has is None or has < one.version
        if (
            newer
            and name not in waiting
            and one.acknowledged != NEVER
            and not (one.deleted and deleted)
        ):
            found[name] = one
    return found


@dataclass(frozen=True, slots=True)
class Rules:
    """Who sends, what the store keeps of full vectors, and what the server takes.

    Attributes:
        device: This device's name.
        own: All names that it has had; see ``writer``.
        keep_full: What the store keeps of full vectors.
        offers: The largest stamp of others' versions that the server takes; None if it takes none.
        claimed: The server was told what it lacks, and takes no more than that.
    """

    device: str
    own: Collection[str]
    keep_full: str | None
    offers: int | None
    claimed: bool = False

    def writer(self, version: Version) -> str:
        """The name under which a version is sent again.

        What this device wrote under a former name stays that version, which other devices may still have,
        where the server takes it as an offer; else it goes under the present name.
        """
        offered = self.offers is not None and version.stamp <= self.offers
        return version.device if offered or version.device not in self.own else self.device

    def would_rename(self, version: Version) -> bool:
        """Whether this version would go under another name than its own, which a claim may prevent.

        A device that has it under the former name may keep that for ever.
        """
        return (
            not self.claimed and self.offers is not None and self.writer(version) != version.device
        )


def lose_or_offer(
    connection: sqlite3.Connection,
    lost: Mapping[str, Known],
    there: Mapping[str, int],
    rules: Rules,
) -> tuple[int, list[str], list[tuple[str, Version]]]:
    """Queue again what a server has lost, as it was, or give it up.

    Args:
        connection: In a transaction that writes.
        lost: Versions that are newer here than there, by id; none of them waits.
        there: Stamps that the server has, by id.
        rules: What may be sent.

    Returns:
        How many were queued, ids of those that were given up, and versions to be claimed.
    """
    own = {name for name, one in lost.items() if one.version.device in rules.own}
    former = {name for name in own if rules.would_rename(lost[name].version)}
    others = [] if rules.offers is None else [name for name in lost if name not in own]
    sendable = _sendable(connection, [*others, *former], rules.keep_full)
    sendable |= {name for name in (*others, *former) if lost[name].deleted}
    limit = rules.offers or 0
    queued = own - (former & sendable)
    queued |= {name for name in sendable if lost[name].version.stamp <= limit}
    claims = [] if rules.claimed else sorted(sendable - queued)
    given_up = [name for name in others if name not in queued and name not in claims]
    versions, rows = {}, []
    for name in queued:
        one, has = lost[name], there.get(name, 0)
        sent = one.sent if has else 0
        writer = rules.writer(one.version)
        version, known = Version(one.version.stamp, writer), min(one.acknowledged, has)
        versions[name] = replace(one, version=version, acknowledged=known, sent=sent)
        rows.append(Queued(name, one.version.stamp, one.deleted, now_ms(), 0))
    write_versions(connection, versions)
    write_queue(connection, rows)
    give_up(connection, {name: lost[name] for name in given_up})
    return len(rows), given_up, [(name, lost[name].version) for name in claims]


def _sendable(
    connection: sqlite3.Connection, names: Sequence[str], keep_full: str | None
) -> set[str]:
    """Those of the documents whose full vectors are here, or whose text is, or that have no passages."""
    rows = select_rows(connection, "id, key, text <> ''", "id", names)
    keys = {key: name for name, key, _ in rows}
    with_codes = {
        key for (key,) in select_rows(connection, "document", "document", list(keys), "passages")
    }
    kept = (
        {key for (key,) in select_rows(connection, "document", "document", list(keys), "fulls")}
        if keep_full in ("until-synced", "fp16")
        else set()
    )
    return {
        name for name, key, has_text in rows if has_text or key in kept or key not in with_codes
    }


def give_up(connection: sqlite3.Connection, lost: Mapping[str, Known]) -> None:
    """Take the server's state of documents whose versions here nobody can send; a letter says so.

    What is here stays until the server's version is pulled, in place of which it stands as the oldest.

    Args:
        connection: In a transaction that writes.
        lost: The versions, by id.
    """
    if not lost:
        return
    rows = select_rows(connection, "id, metadata, text", "id", list(lost))
    kept = {name: (metadata, text) for name, metadata, text in rows if text}
    letters = [
        Withheld(name, one.version, one.deleted, LOST, _LOST_TEXT) for name, one in lost.items()
    ]
    write_withheld(connection, letters, kept=kept)
    oldest = Version(GIVEN_UP, "")
    write_versions(
        connection, {name: Known(oldest, one.deleted, UNKNOWN) for name, one in lost.items()}
    )
    add_pending(connection, {group_of(name) for name in lost})
