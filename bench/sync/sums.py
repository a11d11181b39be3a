"""What agreement costs, and the memory of a first push and pull: ``python -m bench.sync.sums``.

A real server process on SQLite and real stores, on this machine, over loopback, with a small bundle whose
vectors are short, so that what is not vectors shows. Measured are:

- bytes of a page with the sum of all documents, and with the sums of groups of ids;
- a push of 1,000 new documents in the server's storage, and a put of as many in a device's store, with
  sums and without, in turns;
- the first making of the sums, on a server and on a device that have all documents;
- the peak memory of server and device, each a process of its own, for a tenth of the documents and for
  all: it should hardly grow with their number.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bench.support.machine import save
from edge_mrl.bundle.manifest import read_manifest
from edge_mrl.codes.packing import normalize
from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.store import Enrollment, Entry, replica
from edge_mrl.store.replica import agreement, outbox
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.link import Link
from edge_mrl.sync.pulls.forms import PageForm
from edge_mrl.wire import Item, next_stamp
from edge_mrl_server.storage import (
    Database,
    Principal,
    Push,
    accounts,
    open_database,
    push,
    pushes,
)
from edge_mrl_server.storage.agreement import sums as server_sums
from tests.support.bundles import TINY
from tests.support.children import ending_with_us
from tests.support.serving import SPACE, Serving, admin, serving

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "build" / "bench-sums"
DOCUMENTS, PUT, SMALL = 100_000, 4_096, 10
#: Documents of a push and of a put, in bodies of half that; and how often each is measured.
PUSHED, ROUNDS = 1_000, 15
MANIFEST = read_manifest(TINY)
DIM = MANIFEST.full_dim or 1


def main() -> int:
    """Measure, print, write bench/results/sums.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--child", nargs=4, metavar=("VERB", "STORE", "URL", "INVITATION"))
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(*args.child)))
        return 0
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir(parents=True)
    try:
        results = measure(args.documents)
    finally:
        shutil.rmtree(FILES, ignore_errors=True)
    print(json.dumps(results, indent=1))
    settings = {"documents": args.documents, "dim": DIM, "pushed": PUSHED, "rounds": ROUNDS}
    path = save("sums", settings, results)
    print(f"written to {path.relative_to(ROOT)}")
    return 0


def measure(documents: int) -> dict[str, Any]:
    """Everything."""
    results: dict[str, Any] = {"server_push_ms": server_push(), "device_put_ms": device_put()}
    for count in (documents // SMALL, documents):
        folder = FILES / str(count)
        folder.mkdir()
        with serving(folder / "server.db", "--device-rate", "100000", "--quiet") as server:
            results[f"memory_{count}"] = memory(server, folder, count)
            results["bytes"] = page_bytes(folder / "a.db")
            results["first_making_ms"] = first_making(server, folder / "a.db")
    return results


def fill(path: Path, count: int, first: int = 0) -> None:
    """Put documents with random vectors into a store, which keeps them to send them."""
    with Index.open(path, TINY, keep_full="until-synced") as index:
        for start in range(first, first + count, PUT):
            index.store.put(entries(start, min(PUT, first + count - start)))


def entries(first: int, count: int) -> list[Entry]:
    """Documents of one passage."""
    chance = np.random.default_rng(first)
    full = normalize(chance.standard_normal((count, DIM)).astype(np.float32))
    codes = np.rint(127 * full[:, : MANIFEST.dim]).astype(np.int8)
    return [
        Entry(Document(f"d{first + i}", "x"), [(0, 1)], codes[i : i + 1], full[i : i + 1])
        for i in range(count)
    ]


def child(verb: str, store: str, url: str, invitation: str) -> dict[str, Any]:
    """A first sync in a process of its own: seconds, documents and peak memory."""
    with Index.open(store, TINY, keep_full="until-synced" if verb == "push" else None) as index:
        enroll(index.store, url, invitation)
        start = time.perf_counter()
        with SyncClient.open(index, push_only=verb == "push") as client:
            outcome = client.sync_once()
        took = time.perf_counter() - start
        if not outcome.done:
            raise SystemExit(f"the sync did not end well: {outcome}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    moved = outcome.pushed + outcome.pulled
    return {"documents": moved, "s": round(took, 1), "peak_rss_mb": round(peak / 1024, 1)}


def memory(server: Serving, folder: Path, count: int) -> dict[str, Any]:
    """Peak memory of both sides, for a first push and a first pull."""
    fill(folder / "a.db", count)
    found: dict[str, Any] = {}
    for verb, store in (("push", "a.db"), ("pull", "b.db")):
        invitation = admin(server.database, "invitations", "create", "default")["invitation"]
        command = [sys.executable, "-m", "bench.sync.sums", "--child"]
        command += [verb, str(folder / store), server.url, invitation]
        done = subprocess.run(ending_with_us(command), capture_output=True, check=True, cwd=ROOT)
        found[verb] = json.loads(done.stdout)
        if found[verb]["documents"] != count:
            raise SystemExit(f"{verb}: {found[verb]}, expected {count} documents")
        status = Path(f"/proc/{server.process.pid}/status").read_text("ascii")
        peak = int(status.split("VmHWM:")[1].split()[0])
        found[verb]["server_peak_rss_mb"] = round(peak / 1024, 1)
    return found


def page_bytes(store: Path) -> dict[str, int]:
    """Bytes of an empty page, as each pull ends with, by what it says of agreement."""
    with Index.open(store, TINY) as index:
        with SyncClient.open(index) as client:
            client.sync_once()
        with closing(Link(index.store, None)) as link:
            remote, sizes = link.follow(), {}
            since = client_cursor(index)
            for name, form in (("sum", PageForm("none")), ("sums", PageForm("none", sums=True))):
                before = remote.traffic[1]
                page = remote.pull(since, form=form)
                if page.sum is None or (name == "sums" and page.sums is None):
                    raise SystemExit("the server sent no sums")
                sizes[f"page_with_{name}"] = remote.traffic[1] - before
    said = json.dumps({"sum": "0" * 16}, separators=(",", ":"))
    return {"sum": len(said) - 1, **sizes}


def client_cursor(index: Index) -> int:
    """The change that a store has pulled to."""
    with index.store.locked() as (connection, _):
        (cursor,) = connection.execute("SELECT cursor FROM sync").fetchone()
    return int(cursor)


def first_making(server: Serving, store: Path) -> dict[str, float]:
    """Milliseconds in which the sums of all documents are made, where none are kept."""
    with open_database(server.database) as database:
        with database.write() as transaction:
            transaction.run("DELETE FROM sums")
        start = time.perf_counter()
        server_sums.fill_sums(database, "default")
        took = time.perf_counter() - start
    with closing(sqlite3.connect(store)) as connection:
        start = time.perf_counter()
        agreement.make_sums(connection)
        device = time.perf_counter() - start
    return {"server": round(1000 * took, 1), "device": round(1000 * device, 1)}


def in_turns(work: Callable[[str, int], None], without: Any) -> dict[str, float]:
    """Medians of milliseconds with sums and without, one after the other."""
    times: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(2 * ROUNDS):
        name = ("with", "without")[number % 2]
        with without() if name == "without" else nullcontext():
            start = time.perf_counter()
            work(name, number)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: round(statistics.median(found), 2) for name, found in times.items()}


def server_push() -> dict[str, float]:
    """A push of new documents in the server's storage, on SQLite."""
    with open_database(str(FILES / "push.db")) as database:
        # A tenant for each way: one push without sums makes those of its tenant old.
        principals = {name: _device(database, name) for name in ("with", "without")}
        chance = np.random.default_rng(0)
        vectors = normalize(chance.standard_normal((PUSHED, DIM)).astype(np.float32))

        def work(name: str, number: int) -> None:
            stamp = next_stamp(0)
            items = [
                Item(f"{number}-{i}", stamp, vectors[i : i + 1].astype(np.float16))
                for i in range(PUSHED)
            ]
            for part in (items[: PUSHED // 2], items[PUSHED // 2 :]):
                done = push(database, principals[name], Push(SPACE, part, DIM, 0))
                if {result.status for result in done.results} != {"applied"}:
                    raise SystemExit("a document was not applied")

        took = in_turns(work, lambda: mock.patch.object(pushes, "move_sums", _nothing))
        with database.read() as transaction:
            kept = transaction.rows("SELECT tenant FROM sums NATURAL JOIN tenants")
        if [row["tenant"] for row in kept] != ["with"]:
            raise SystemExit(f"sums are kept of {kept}")
        return took


def _device(database: Database, tenant: str) -> Principal:
    """A device of a new tenant whose sums are kept."""
    with database.write() as transaction:
        accounts.create_tenant(transaction, tenant)
        invitation = accounts.create_invitation(transaction, tenant)
        made = accounts.enroll(transaction, invitation, "x", nonce=None, space_id=None)
    server_sums.fill_sums(database, tenant)
    with database.read() as transaction:
        return accounts.authenticate(transaction, made.token)[0]


def device_put() -> dict[str, float]:
    """A put of new documents in an enrolled store."""
    path = FILES / "put.db"
    with Index.open(path, TINY, keep_full="until-synced") as index:
        wanted = Enrollment("http://127.0.0.1", "t", "d")
        replica.enroll(index.store, wanted, full_dim=DIM)

        def work(_: str, number: int) -> None:
            index.store.put(entries(number * PUSHED, PUSHED))

        return in_turns(work, lambda: mock.patch.object(outbox, "move_sums", _nothing))


def _nothing(*_: Any, **__: Any) -> None:
    """In place of what keeps sums."""


if __name__ == "__main__":
    sys.exit(main())
