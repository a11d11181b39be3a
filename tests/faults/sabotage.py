"""Products that are broken on purpose, so that the harness can be seen to notice.

Each breaks one promise, in the process of a device or of a server, by replacing a function of the product
there. ``python -m tests.faults.run --broken NAME`` runs a seed with it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["SABOTAGES", "Sabotage", "break_device", "break_server", "program"]


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A broken product.

    Attributes:
        seen: What the harness says of it, one of these.
        seeds: Schedules in which it does harm, if not in the first then in the next.
        device: Break a device's process.
        server: Break a server's process.
        faults: What happens to exchanges; all kinds if empty.
        rate: To which share of them; 0 for the schedule's.
        between: A copy of the database is put back when all devices have finished, and a document was
            pushed since it was made: whether faults leave that to chance is not what is tried.
        database: Where the server's database is.
        config: How it is set up, if it is PostgreSQL.
    """

    seen: tuple[str, ...]
    seeds: tuple[int, ...]
    device: tuple[Callable[[], None], ...] = ()
    server: tuple[Callable[[], None], ...] = ()
    faults: tuple[str, ...] = ()
    rate: float = 0.0
    between: bool = False
    database: str = "sqlite"
    config: Mapping[str, str] = field(default_factory=dict)

    def found(self, problems: Sequence[str]) -> bool:
        """Whether the harness has said what it should."""
        return any(seen in problem for problem in problems for seen in self.seen)


def break_device(name: str) -> None:
    """Break this process, a device's."""
    for broken in SABOTAGES[name].device if name else ():
        broken()


def break_server(name: str) -> None:
    """Break this process, a server's."""
    for broken in SABOTAGES[name].server if name else ():
        broken()


def program(name: str) -> str:
    """Python to run before a server, so that it is broken; empty for a server that is not."""
    if not name or not SABOTAGES[name].server:
        return ""
    return f"from tests.faults import sabotage\nsabotage.break_server({name!r})"


# --- devices


def _forgets() -> None:
    """The fault that a queue is there to prevent: rows leave it when they are sent."""
    from edge_mrl.store import replica

    real = replica.outgoing

    def outgoing(store: Any, *args: Any, **options: Any) -> Any:
        found = real(store, *args, **options)
        with store.writing(), store.locked() as (connection, _):
            connection.executemany(
                "DELETE FROM outbox WHERE id = ? AND stamp = ?", [(o.id, o.stamp) for o in found]
            )
        return found

    replica.outgoing = outgoing


def _believes() -> None:
    """Answers are believed, whatever they are damaged to and to whichever request they belong."""
    from edge_mrl.sync.transport import Transport

    _replace(Transport, "_check_sender", lambda *_: None)


def _queues_later() -> None:
    """The queue is written in the next transaction: a kill between the two loses a write."""
    from edge_mrl.store.replica import outbox

    real = outbox.write_queue
    waiting: list[Any] = []

    def write_queue(connection: Any, rows: Any) -> None:
        real(connection, waiting)
        waiting[:] = list(rows)

    outbox.write_queue = write_queue


def _takes_older() -> None:
    """Whatever arrives replaces what is here, also an older version."""
    from edge_mrl.store.replica import arrivals

    arrivals._newer = lambda *_: True


def _keeps_deleted() -> None:
    """Deletions of other devices are not carried out."""
    from edge_mrl.store.replica import arrivals

    real = arrivals._newer_versions

    def newer_versions(*args: Any) -> Any:
        return replace(real(*args), gone=[])

    arrivals._newer_versions = newer_versions


def _never_asks() -> None:
    """A push without an answer counts as one that never arrived."""
    from edge_mrl.store import replica
    from edge_mrl.sync.push import Pusher

    def settle(self: Any, **_: Any) -> None:
        now = replica.enrollment_of(self._store)
        if now is not None:
            replica.settle_push(self._store, now.push, refused=None)

    _replace(Pusher, "settle", settle)


def _own_clock() -> None:
    """Stamps follow this machine's clock alone, whatever was seen and written before."""
    from edge_mrl.store.replica.outbox import Stamps
    from edge_mrl.wire import next_stamp

    _replace(Stamps, "next_after", lambda self, *_, **__: next_stamp(0, offset_ms=self._offset_ms))


def _compares_nothing() -> None:
    """What store and server hold is not compared."""
    from edge_mrl.sync.pulls.comparison import Comparison

    _replace(Comparison, "agrees", lambda *_, **__: True)


def _drops_metadata() -> None:
    """What arrives loses its metadata."""
    from edge_mrl.store import replica

    real = replica.apply_pulled

    def apply_pulled(store: Any, pulled: Any, **options: Any) -> Any:
        bare = [
            (item, entry and replace(entry, document=replace(entry.document, metadata={})))
            for item, entry in pulled
        ]
        return real(store, bare, **options)

    replica.apply_pulled = apply_pulled


def _replace(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


# --- servers


def _answers_first() -> None:
    """Pushes are acknowledged, and written a moment later."""
    from edge_mrl_server.http import handlers
    from edge_mrl_server.storage import pushes

    real = handlers.apply

    def apply(database: Any, principal: Any, batch: Any) -> Any:
        if not batch.items:
            return real(database, principal, batch)
        threading.Thread(target=_later, args=(real, database, principal, batch)).start()
        results = [pushes.Result("applied")] * len(batch.items)
        return pushes.PushOutcome(results, [], "")

    handlers.apply = apply


def _later(real: Any, *args: Any) -> None:
    time.sleep(0.3)
    real(*args)


def _checks_no_digest() -> None:
    """Requests are believed, whatever they are damaged to."""
    from edge_mrl_server.http.load import bodies

    bodies.matches_digest = lambda *_: True


def _forgets_the_fence() -> None:
    """That tombstones were forgotten is told nobody."""
    from edge_mrl_server.storage import pushes

    real = pushes.purge

    def purge(database: Any, tenant: str, **options: Any) -> Any:
        found = real(database, tenant, **options)
        with database.write() as transaction:
            transaction.run("UPDATE tenants SET fence = 0, fence_stamp = 0")
        return found

    pushes.purge = purge


def _stays_in_its_epoch() -> None:
    """That the database is an older copy is told nobody, and nobody is believed who says so."""
    from edge_mrl_server.http import handlers
    from edge_mrl_server.storage import pushes

    pushes._claim = lambda *_: None
    apply, changes_after = handlers.apply, handlers.changes_after

    def push(database: Any, principal: Any, batch: Any) -> Any:
        return apply(database, principal, replace(batch, epoch=""))

    def pull(database: Any, tenant: str, wanted: Any) -> Any:
        found = changes_after(database, tenant, replace(wanted, epoch=None))
        return replace(found, epoch="always the same")

    handlers.apply, handlers.changes_after = push, pull


def _waits_for_its_clock() -> None:
    """Stamps are judged by the clock alone, also where the tenant has newer ones."""
    from edge_mrl_server.storage import pushes

    pushes.MAX_ABOVE_NEWEST = -(1 << 62)


def _knows_no_copies() -> None:
    """Two machines with one token are one device."""
    from edge_mrl_server.storage import marks, tokens

    marks.judge = lambda text, *_, **__: (text, "known")
    tokens.confirm = lambda *_: None


def _ends_tokens_at_once() -> None:
    """The old token ends when a new one is given out, whether that arrives or not."""
    from edge_mrl_server.storage import accounts, tokens

    real = tokens.issue

    def issue(transaction: Any, tenant: str, device: str, **options: Any) -> Any:
        sql = "DELETE FROM tokens WHERE tenant = ? AND device = ?"
        transaction.run(sql, tenant, device)
        options["nonce"] = None
        return real(transaction, tenant, device, **options)

    tokens.issue = issue
    accounts.issue = issue


def _leaves_out_the_last() -> None:
    """A snapshot and a pull from nothing lack the last document of a page."""
    from edge_mrl_server.storage import pulls

    real = pulls._load

    def load(transaction: Any, tenant: Any, rows: Any, **options: Any) -> Any:
        return real(transaction, tenant, rows[:-1] if len(rows) > 1 else rows, **options)

    pulls._load = load


def _fails_inside() -> None:
    """Every tenth push fails for a reason that nobody thought of."""
    from edge_mrl_server.http import handlers

    real, count = handlers.apply, iter(range(10**9))

    def apply(*args: Any) -> Any:
        if next(count) % 10 == 5:
            raise LookupError("a reason that nobody thought of")
        return real(*args)

    handlers.apply = apply


def _commits_in_memory() -> None:
    """PostgreSQL answers before a commit is on the disk."""
    from edge_mrl_server.storage.engines import postgres

    os.environ["PGOPTIONS"] = "-c synchronous_commit=off"
    real = postgres._configure

    def configure(connection: Any) -> None:
        real(connection)
        connection.execute("SET synchronous_commit = off")
        connection.commit()

    postgres._configure = configure


#: What the sums of store and server would mend is broken together with them.
SABOTAGES: Mapping[str, Sabotage] = {
    # Devices.
    "forgets": Sabotage(
        ("server: LOST", "still kept"),
        (8, 26, 0),
        (_forgets, _compares_nothing),
        faults=("drop_request",),
        rate=0.7,
    ),
    "believes": Sabotage(
        ("LOST", "RESURRECTED", "NOT IN SYNC", "vectors", "crashed", "LOCKED OUT"),
        (8, 26, 0),
        (_believes, _compares_nothing),
        faults=("old_answer", "corrupt_answer"),
        rate=0.7,
    ),
    "queues later": Sabotage(("server: LOST",), (25, 5, 18), (_queues_later, _compares_nothing)),
    "takes older": Sabotage(
        (" replaced (", "LOST", "RESURRECTED"),
        (8, 26, 0),
        (_takes_older, _compares_nothing),
        rate=0.7,
    ),
    "keeps deleted": Sabotage(("RESURRECTED",), (8, 26, 0), (_keeps_deleted,)),
    "never asks": Sabotage(
        ("RESURRECTED lonely", "NOT IN SYNC"), (7, 1, 11), (_never_asks, _compares_nothing)
    ),
    "own clock": Sabotage(("LOST", "expected", "vectors of another"), (31, 13, 34), (_own_clock,)),
    "drops metadata": Sabotage(("expected",), (8, 26, 0), (_drops_metadata,)),
    # Servers.
    "answers first": Sabotage(
        ("LOST", "RESURRECTED", "NOT IN SYNC"), (26, 0, 24), (_compares_nothing,), (_answers_first,)
    ),
    "checks no digest": Sabotage(
        # A bit of an enrollment makes another token than the device's.
        ("vectors of another", "expected", "a dead letter", "LOST", "LOCKED OUT"),
        (8, 26, 0),
        (_compares_nothing,),
        (_checks_no_digest,),
        faults=("corrupt_request",),
        rate=0.7,
    ),
    "forgets the fence": Sabotage(
        ("RESURRECTED lonely",), (7, 1, 11), (_compares_nothing,), (_forgets_the_fence,)
    ),
    "stays in its epoch": Sabotage(
        ("LOST", "RESURRECTED", "NOT IN SYNC"),
        (25, 5, 18),
        (_compares_nothing,),
        (_stays_in_its_epoch,),
        between=True,
    ),
    "waits for its clock": Sabotage(("NOT IN SYNC",), (31, 13, 34), server=(_waits_for_its_clock,)),
    "knows no copies": Sabotage(("TWO MACHINES",), (32, 24, 0), server=(_knows_no_copies,)),
    "ends tokens at once": Sabotage(
        ("LOCKED OUT", "crashed"),
        (26, 0, 24),
        server=(_ends_tokens_at_once,),
        faults=("lose_answer", "duplicate", "late"),
        rate=0.7,
    ),
    "leaves out the last": Sabotage(
        ("fresh: LOST", "NOT IN SYNC"), (8, 26, 0), (_compares_nothing,), (_leaves_out_the_last,)
    ),
    "fails inside": Sabotage(("the server failed inside",), (8, 26, 0), server=(_fails_inside,)),
    "commits in memory": Sabotage(
        ("LOST", "RESURRECTED", "LOCKED OUT"),
        (27, 39, 23),
        (_compares_nothing,),
        (_commits_in_memory,),
        database="postgresql",
        config={"wal_writer_delay": "10s"},
    ),
}
