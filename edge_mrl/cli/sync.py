"""``edge-mrl sync``: keep a store and a server in sync."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.output import count, duration, print_json, size, snippet, table
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_store, key_of, say_obstacle
from edge_mrl.errors import (
    EdgeMrlError,
    GateError,
    NetworkError,
    ServerError,
    StoreBusyError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_mrl.sync import Outcome, PushTarget, Status, SyncClient

__all__ = ["HELP", "add_arguments", "run"]

HELP = "keep a store and a server in sync"
_EPILOG = """\
Sends what was written and deleted here since the last sync, then receives what other devices wrote. It
may be interrupted at any moment: nothing is lost, and nothing is stored twice. Enroll the store first
(`edge-mrl enroll`).

--with-text sends text and metadata too, from now on; all documents are sent again with them. Even vectors
alone are not anonymous: text can be reconstructed from them (see docs/sync.md).

Dead letters are versions that cannot be sent: the server refuses them, or another device has deleted the
document meanwhile. Versions of other devices that cannot be stored here are among them ("unreadable").
List them with --dead-letters, try them again with --retry, delete them with --drop.

--qdrant pushes to a collection of your own Qdrant server instead. Its API key is read from the
environment variable QDRANT_API_KEY.

examples:
  edge-mrl sync --store notes.db
  edge-mrl sync --store notes.db --watch
  edge-mrl sync --store notes.db --status --json
  edge-mrl sync --store notes.db --qdrant http://localhost:6333 --collection notes

exit codes: 0 done, or ended early by --max-bytes; 1 done, but store and server hold different documents
and pulling them again did not help; 2 wrong usage, not enrolled, or the store cannot be used; 4 the
server cannot be reached; 6 the server refuses until a person changes something, for example because the
token is not valid any more, or the store is a copy. What is queued stays queued
"""


#: Between two looks of a service at a store that is busy, each of which waits for ten seconds itself.
BUSY_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    parser.add_argument("--server", metavar="URL", help="the new address of the same server")
    parser.add_argument("--ca", metavar="FILE", help="a file of certificates to trust from now on")
    parser.add_argument("--watch", action="store_true", help="keep syncing until interrupted")
    parser.add_argument(
        "--interval",
        type=float,
        default=60.0,
        metavar="S",
        help="with --watch, receive what others wrote every S seconds (default: 60)",
    )
    parser.add_argument(
        "--max-wait",
        type=float,
        default=300.0,
        metavar="S",
        help="with --watch, wait at most S seconds after failures (default: 300)",
    )
    parser.add_argument("--push-only", action="store_true", help="send, but do not receive")
    parser.add_argument(
        "--with-text", action="store_true", help="send text and metadata too, from now on"
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        metavar="N",
        help="send and receive at most N bytes in one run (default: no limit)",
    )
    parser.add_argument("--qdrant", metavar="URL", help="push to this Qdrant server instead")
    parser.add_argument(
        "--collection", metavar="NAME", help="with --qdrant, the name of the collection"
    )
    _add_actions(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per run")
    parser.add_argument("--quiet", action="store_true", help="print no progress and no summary")


def _add_actions(parser: argparse.ArgumentParser) -> None:
    """Add the options that do something else than, or more than, a sync."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="show what waits; send nothing")
    what.add_argument(
        "--resend",
        action="store_true",
        help="compare all documents with the server, and send again what it lacks of this device's",
    )
    what.add_argument(
        "--forget-received",
        action="store_true",
        help="delete here what other devices wrote, and nowhere else; the next sync receives it again",
    )
    what.add_argument(
        "--dead-letters", action="store_true", help="list the versions that cannot be sent"
    )
    what.add_argument(
        "--retry",
        nargs="*",
        metavar="ID",
        help="queue dead letters again: those of these documents, or all",
    )
    what.add_argument(
        "--drop",
        nargs="*",
        metavar="ID",
        help="delete dead letters: those of these documents, or all",
    )


def run(args: argparse.Namespace) -> int:
    """Sync, or show where the sync stands."""
    if (args.qdrant is None) != (args.collection is None):
        raise UsageError("--qdrant and --collection go together: give both or neither")
    if args.max_bytes is not None and args.max_bytes < 1:
        raise UsageError(f"--max-bytes {args.max_bytes}: expected at least 1")
    if args.interval <= 0 or args.max_wait <= 0:
        raise UsageError("--interval and --max-wait: expected a number of seconds above 0")
    if args.status or args.dead_letters or args.drop is not None or args.retry is not None:
        return _look(args)
    if args.forget_received:
        return _forget(args)
    _change(args)
    with _open_in_time(args) as client:
        if args.resend:
            client.resend()
        if args.with_text and not client.status().with_text:
            client.set_with_text(with_text=True)
        return _watch(client, args) if args.watch else _once(client, args)


def _open(args: argparse.Namespace) -> SyncClient:
    from edge_mrl.sync import Policy, SyncClient

    target: PushTarget | None = None
    if args.qdrant is not None:
        from edge_mrl.sync import open_target

        target = open_target(args.store, args.qdrant, args.collection, ca=args.ca, key=key_of(args))
    policy = Policy(max_bytes=args.max_bytes)
    return SyncClient.open(
        args.store, policy=policy, push_only=args.push_only, target=target, key=key_of(args)
    )


def _open_in_time(args: argparse.Namespace) -> SyncClient:
    """Open what is synced; a service waits for a store that another process is just making or writing."""
    while True:
        try:
            return _open(args)
        except StoreBusyError as error:
            if not args.watch:
                raise
            print(f"edge-mrl: waiting: {error}", file=sys.stderr, flush=True)
            time.sleep(BUSY_S)


def _change(args: argparse.Namespace) -> None:
    """Write a new address or new certificates into the store."""
    if args.qdrant is not None or (args.server is None and args.ca is None):
        return
    from edge_mrl.store import Store
    from edge_mrl.sync import move

    with Store.open(args.store, key=key_of(args)) as store:
        move(store, server=args.server, ca=args.ca)


def _look(args: argparse.Namespace) -> int:
    from edge_mrl.index import Index
    from edge_mrl.store import replica
    from edge_mrl.sync import retry_dead_letters, status_of

    with Index.open(args.store, key=key_of(args)) as index:
        store = index.store
        say_obstacle(store, args)
        if args.status:
            _print_status(status_of(store), args)
        elif args.dead_letters:
            _print_letters(replica.list_dead_letters(store), args)
        elif args.drop is not None:
            dropped = replica.drop_dead_letters(store, args.drop or None)
            _say(args, {"dropped": dropped}, f"{count(dropped, 'dead letter')} deleted")
        else:
            queued = retry_dead_letters(store, lambda: index.encoder, args.retry or None)
            _say(args, {"queued": queued}, f"{count(queued, 'document')} queued again")
    return 0


def _forget(args: argparse.Namespace) -> int:
    from edge_mrl.store import Store, replica

    with Store.open(args.store) as store:
        gone = replica.forget_received(store)
    _say(args, {"forgotten": gone}, f"{count(gone, 'document')} of other devices deleted here")
    return 0


def _once(client: SyncClient, args: argparse.Namespace) -> int:
    started = time.monotonic()
    waiting = client.status().queue.items
    with Progress("syncing", waiting, quiet=args.quiet) as bar:
        seen = 0

        def step(outcome: Outcome) -> None:
            nonlocal seen
            sent = outcome.pushed + outcome.stale + outcome.dead
            far = "" if outcome.waiting is None else f"; {outcome.waiting}"
            bar.advance(sent - seen, note=_figures(outcome) + far)
            seen = sent

        outcome = client.sync_once(step=step)
    _warn(outcome, client, args)
    _print_outcome(outcome, client.status(), args, time.monotonic() - started, why=_why(client))
    return _exit_code(outcome)


def _exit_code(outcome: Outcome) -> int:
    if outcome.cause in (None, "policy"):
        return GateError.exit_code if outcome.differs else 0
    codes = {"internal": EdgeMrlError.exit_code, "refused": ServerError.refused_exit_code}
    return codes.get(outcome.cause, NetworkError.exit_code)


def _watch(client: SyncClient, args: argparse.Namespace) -> int:
    import signal
    import threading

    end = threading.Event()
    last: list[Outcome] = []

    def notify(outcome: Outcome) -> None:
        moved = outcome.pushed or outcome.pulled or outcome.deleted or outcome.dead
        if moved or not outcome.done or not last:
            _print_outcome(outcome, client.status(), args, None, why=_why(client))
        _warn(outcome, client, args)
        last[:] = [outcome]
        if outcome.cause == "refused":
            end.set()

    before = signal.signal(signal.SIGTERM, lambda *_: end.set())
    try:
        client.start(interval_s=args.interval, max_wait_s=args.max_wait, notify=notify)
        while not end.wait(0.5):  # on some systems an interrupt does not end a longer wait
            pass
        client.stop()
    finally:
        signal.signal(signal.SIGTERM, before)
    refused = bool(last) and last[0].cause == "refused"
    return ServerError.refused_exit_code if refused else 0


def _warn(outcome: Outcome, client: SyncClient, args: argparse.Namespace) -> None:
    if outcome.waiting is None or args.quiet:
        return
    queued = client.status().queue.items
    left = f"{count(queued, 'document')} still queued" if queued else "nothing is queued"
    goes_on = args.watch and outcome.cause != "refused"
    # Nothing waits in a command that has ended.
    verb, end = ("waiting", "") if goes_on else ("not synced", "; run the command again to go on")
    print(f"edge-mrl: {verb}: {outcome.waiting}; {left}{end}", file=sys.stderr, flush=True)


def _figures(outcome: Outcome) -> str:
    moved = f"{outcome.pushed:,} sent, {outcome.pulled:,} received"
    return f"{moved}, {size(outcome.bytes_sent + outcome.bytes_received)}"


def _why(client: SyncClient) -> str:
    """Why documents cannot be sent, if there is one reason for all of them."""
    said = {letter.detail for letter in client.dead_letters()} if client.status().dead else set()
    return f": {said.pop()}" if len(said) == 1 and said != {""} else ""


def _print_outcome(
    outcome: Outcome,
    status: Status,
    args: argparse.Namespace,
    seconds: float | None,
    *,
    why: str,
) -> None:
    facts: dict[str, Any] = dataclasses.asdict(outcome)
    facts |= {"queued": status.queue.items, "dead_letters": status.dead}
    if args.json:
        print_json(facts)
        return
    if args.quiet:
        return
    took = "" if seconds is None else f" in {duration(seconds)}"
    parts = [_figures(outcome) + took]
    for name, value in (("deleted", outcome.deleted), ("superseded", outcome.stale)):
        if value:
            parts.append(f"{value:,} {name}")
    if outcome.resent is not None:
        again = count(outcome.resent, "document")
        parts.append(f"the server lacked what this device has: {again} queued again")
    if outcome.conflicts:
        again = count(outcome.conflicts, "document")
        parts.append(
            f"another device wrote {again} under ids of this one's; the texts are kept (--dead-letters)"
        )
    if status.dead:
        parts.append(f"{count(status.dead, 'dead letter')}{why} (list them with --dead-letters)")
    if outcome.differs:
        parts.append(_differs(outcome.differs))
    print("; ".join(parts), flush=True)


def _differs(groups: int) -> str:
    return (
        f"this store and the server hold different documents, in {groups} of 256 groups, after these "
        "were pulled again: run `edge-mrl check`, then `edge-mrl sync --resend`"
    )


def _print_status(status: Status, args: argparse.Namespace) -> None:
    if args.json:
        print_json(dataclasses.asdict(status))
        return
    queue = status.queue
    waits = count(queue.items, "document")
    if queue.items:
        waits += f", {size(queue.size_bytes)} of vectors, the oldest since {_when(queue.oldest_ms)}"
    rows = [
        ("server", status.server),
        ("device", f"{status.device} of {status.tenant}"),
        ("sends", "vectors, text and metadata" if status.with_text else "vectors only"),
        ("queued", waits),
        ("dead", count(status.dead, "dead letter")),
        ("received", f"up to change {status.cursor:,}"),
        ("last sync", _when(status.success_ms)),
    ]
    if status.differs:
        rows.append(("differs", _differs(status.differs)))
    print(table(rows))


def _print_letters(letters: Sequence[Any], args: argparse.Namespace) -> None:
    if args.json:
        print_json({"dead_letters": [dataclasses.asdict(letter) for letter in letters]})
        return
    for letter in letters:
        text = "" if letter.document is None else snippet(letter.document.text, chars=60)
        print(f"{letter.reason:<20}{_when(letter.since_ms)}  {letter.id}  {text}".rstrip())
        if letter.detail:
            print(f"{'':18}{letter.detail}")


def _say(args: argparse.Namespace, facts: dict[str, Any], text: str) -> None:
    if args.json:
        print_json(facts)
    elif not args.quiet:
        print(text)


def _when(time_ms: int | None) -> str:
    if time_ms is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ms / 1000))
