"""What syncing costs, end to end: ``python -m bench.sync.throughput --bundle DIR``.

A real server process, on SQLite and on PostgreSQL, and real stores, all on this machine, over loopback:

- a device's queue of ready vectors until it is empty: read, sent, committed there, acknowledged here;
- the same bodies from one device and from four, without stores, which is the server's own limit;
- the server ordering 200 documents for a query, of all that the tenant has;
- a new device's first sync, and its first answer;
- the server's memory.

Beside it the floors: the same bytes written and synced to this disk, and the same bodies posted to a
server that throws them away. Vectors are random, of the bundle's full size.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socketserver
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.support.machine import save
from edge_mrl.bundle.head import bundle_codes, read_head
from edge_mrl.bundle.manifest import read_manifest
from edge_mrl.cli.common.progress import Progress
from edge_mrl.codes.packing import normalize
from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.store import Entry
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.enrollment import enroll as enroll_store
from edge_mrl.sync.identity.grant import request_enrollment
from edge_mrl.sync.remote import Remote
from edge_mrl.sync.targets.target import PushBatch
from edge_mrl.sync.transport import Transport
from edge_mrl.wire.clock import next_stamp
from edge_mrl.wire.frames import MAX_ITEMS, Item, encode_items
from tests.support.postgres import UnavailableError, started
from tests.support.serving import Serving, admin, serving

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "build" / "bench-sync"
#: Documents of the tenant, pushed from one store.
DOCUMENTS = 100_000
#: Vectors of each measurement of the server alone.
BODIES = 40
DEVICES = 4
RERANKED, QUERIES = 200, 300
DEADLINE_S = 5.0
PUT = 4096
#: Each floor is measured so often; the median counts.
ROUNDS = 60

Half = NDArray[np.float16]


def main() -> int:
    """Measure, print a table, write bench/results/sync.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=ROOT / "build" / "minilm")
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    args = parser.parse_args()
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir(parents=True)
    try:
        work = Work(args.bundle, args.documents)
        results: dict[str, Any] = {"floors": floors(work.dim)}
        for name in args.database or ("sqlite", "postgresql"):
            results[name] = measure(name, work)
    finally:
        shutil.rmtree(FILES, ignore_errors=True)
    settings = {
        "documents": args.documents,
        "dim": work.dim,
        "items_in_a_body": MAX_ITEMS,
        "reranked": RERANKED,
        "queries": QUERIES,
        "bundle": read_manifest(args.bundle).name,
    }
    print(table(results))
    path = save("sync", settings, results)
    print(f"written to {path.relative_to(ROOT)}")
    return 0


class Work:
    """Vectors, and what a device makes of them.

    Args:
        bundle: A bundle with full vectors.
        documents: How many.
    """

    def __init__(self, bundle: Path, documents: int) -> None:
        manifest = read_manifest(bundle)
        if manifest.full_dim is None:
            raise SystemExit(f"{bundle} gives no full vectors")
        self.bundle, self.documents, self.dim = bundle, documents, manifest.full_dim
        self.space_id = manifest.space_id
        self._manifest, self._matrix = manifest, read_head(bundle, manifest)

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Numbers of first rows, and float32[n, D]."""
        for first in range(0, self.documents, PUT):
            yield first, self.vectors(min(PUT, self.documents - first), first)

    def vectors(self, count: int, seed: int) -> NDArray[np.float32]:
        """float32[count, D] of unit length."""
        chance = np.random.default_rng(seed)
        return normalize(chance.standard_normal((count, self.dim)).astype(np.float32))

    def fill(self, index: Index) -> float:
        """Put all documents into a store; seconds."""
        took = 0.0
        with Progress("put", self.documents) as bar:
            for first, full in self.blocks():
                codes = bundle_codes(full, self._matrix, self._manifest)
                entries = [
                    Entry(Document(f"d{first + i}", "x"), [(0, 1)], codes[i : i + 1], full[i : i + 1])
                    for i in range(len(full))
                ]  # fmt: skip
                start = time.perf_counter()
                index.store.put(entries)
                took += time.perf_counter() - start
                bar.advance(len(full))
        return took


def measure(name: str, work: Work) -> dict[str, Any]:
    """Everything, against one kind of database."""
    print(f"{name}:", file=sys.stderr)
    folder = FILES / name
    folder.mkdir()
    with database(name, folder) as where, serving(where, "--device-rate", "100000") as server:
        result = _stores(work, server, where, folder)
        result["server_alone"] = _server_alone(work, server, where)
        result["server_peak_rss_mb"] = _peak_rss_mb(server)
        return result


@contextmanager
def database(name: str, folder: Path) -> Iterator[str]:
    """A new database, in a folder or on a PostgreSQL of its own; how a server is told of it."""
    if name == "sqlite":
        yield str(folder / "server.db")
        return
    try:
        with started({"shared_buffers": "128MB"}) as server:
            yield server.url
    except UnavailableError as error:
        raise SystemExit(f"PostgreSQL cannot be run here: {error}") from error


def _stores(work: Work, server: Serving, where: str, folder: Path) -> dict[str, Any]:
    """A store that sends everything, and one that fetches it."""
    result: dict[str, Any] = {}
    with Index.open(folder / "a.db", work.bundle, keep_full="until-synced") as index:
        result["put_rows_per_s"] = round(work.documents / work.fill(index))
        start = time.perf_counter()
        enroll_store(index.store, server.url, server.invitation or "")
        result["enroll_s"] = round(time.perf_counter() - start, 2)
        with SyncClient.open(index, push_only=True) as client:
            result["push"] = _push_all(client, work)
            result["rerank"] = _rerank(client, work)
    with Index.open(folder / "b.db", work.bundle) as index:
        enroll_store(index.store, server.url, _invitation(where))
        with SyncClient.open(index) as client:
            start = time.perf_counter()
            outcome = client.sync_once()
            took = time.perf_counter() - start
        if not outcome.done or index.count().documents != work.documents:
            raise SystemExit(f"the first sync did not end well: {outcome}")
        start = time.perf_counter()
        found = index.search("is anybody there?")
        result["first_sync"] = {
            "s": round(took, 1),
            "documents_per_s": round(work.documents / took),
            "bytes_per_document": round(outcome.bytes_received / work.documents, 1),
            "first_answer_s": round(time.perf_counter() - start, 2),
            "hits": len(found),
        }
    return result


def _push_all(client: SyncClient, work: Work) -> dict[str, Any]:
    start = time.perf_counter()
    with Progress("push", work.documents) as bar:
        seen = 0

        def step(outcome: Any) -> None:
            nonlocal seen
            bar.advance(outcome.pushed - seen)
            seen = outcome.pushed

        outcome = client.sync_once(step=step)
    took = time.perf_counter() - start
    if outcome.pushed != work.documents or client.status().queue.items:
        raise SystemExit(f"not everything was pushed: {outcome}")
    each = outcome.bytes_sent / work.documents
    return {
        "s": round(took, 1),
        "vectors_per_s": round(work.documents / took),
        "bytes_per_vector": round(each, 1),
        "of_raw_fp16": round(each / (2 * work.dim), 3),
    }


def _rerank(client: SyncClient, work: Work) -> dict[str, Any]:
    """Milliseconds from the question to the scores, a query at a time."""
    chance = np.random.default_rng(7)
    queries = work.vectors(QUERIES, 12345)
    times = []
    for query in queries:
        ids = [f"d{i}" for i in chance.choice(work.documents, RERANKED, replace=False)]
        start = time.perf_counter()
        scores = client.rerank(ids, query, deadline_s=DEADLINE_S)
        times.append(1000 * (time.perf_counter() - start))
        if len(scores) != RERANKED:
            raise SystemExit(f"{len(scores)} scores of {RERANKED}")
    return {"p50_ms": _ms(times, 50), "p95_ms": _ms(times, 95)}


def _server_alone(work: Work, server: Serving, where: str) -> dict[str, Any]:
    """Ready bodies, by one device and by several at once, each new documents."""
    rates = {}
    for devices in (1, DEVICES):
        remotes = [
            _remote(work, server, _invitation(where), f"{devices}-{n}") for n in range(devices)
        ]
        batches = [_batches(work, f"{devices}-{n}") for n in range(devices)]
        start = time.perf_counter()
        with ThreadPoolExecutor(devices) as pool:
            list(pool.map(_post, remotes, batches))
        took = time.perf_counter() - start
        for remote in remotes:
            remote.close()
        rates[f"vectors_per_s_{devices}"] = round(devices * BODIES * MAX_ITEMS / took)
    return rates


def _remote(work: Work, server: Serving, code: str, name: str) -> Remote:
    with Transport(server.url) as transport:
        grant = request_enrollment(transport, code, name)
    mine = Credentials(
        server.url,
        grant.tenant,
        grant.device,
        grant.token,
        grant.expires_ms,
        ca=None,
        insecure=False,
    )
    return Remote(mine, work.space_id)


def _batches(work: Work, prefix: str) -> list[PushBatch]:
    vectors = work.vectors(MAX_ITEMS, 99).astype(np.float16)
    stamp = next_stamp(0)
    like = np.empty((0, work.dim), np.float16)
    batches = []
    for body in range(BODIES):
        items = [Item(f"{prefix}-{body}-{i}", stamp, vectors[i : i + 1]) for i in range(MAX_ITEMS)]
        batches.append(PushBatch(items, encode_items({"cursor": 0}, items, like=like)))
    return batches


def _post(remote: Remote, batches: list[PushBatch]) -> None:
    for batch in batches:
        pushed = remote.push(batch)
        if any(result[0] != "applied" for result in pushed.results):
            raise SystemExit("a vector was not applied")


def _invitation(where: str) -> str:
    made = admin(where, "invitations", "create", "default")
    invitation: str = made["invitation"]
    return invitation


def _peak_rss_mb(server: Serving) -> float:
    lines = Path(f"/proc/{server.process.pid}/status").read_text("ascii").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return round(int(peak.split()[1]) / 1024, 1)


def floors(dim: int) -> dict[str, Any]:
    """What this disk and this loopback allow for bodies of 512 vectors."""
    body = os.urandom(MAX_ITEMS * 2 * dim)
    disk = _disk(body)
    loop = _loopback(body)
    return {
        "body_bytes": len(body),
        "disk_sync_ms": disk,
        "disk_vectors_per_s": round(1000 * MAX_ITEMS / disk),
        "loopback_ms": loop,
        "loopback_vectors_per_s": round(1000 * MAX_ITEMS / loop),
    }


def _median_ms(work: Callable[[], None]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times), 3)


def _disk(body: bytes) -> float:
    with (FILES / "floor").open("wb") as file:

        def write() -> None:
            file.write(body)
            file.flush()
            os.fdatasync(file.fileno())

        return _median_ms(write)


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the answer in one piece, or each waits 40 ms for a delayed acknowledgement

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _loopback(body: bytes) -> float:
    with socketserver.TCPServer(("127.0.0.1", 0), _Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)

        def post() -> None:
            connection.request("POST", "/", body)
            connection.getresponse().read()

        try:
            return _median_ms(post)
        finally:
            connection.close()
            server.shutdown()


def _ms(times: list[float], percentile: int) -> float:
    return round(float(np.percentile(times, percentile)), 2)


def table(results: dict[str, Any]) -> str:
    """The figures, side by side."""
    names = [name for name in results if name != "floors"]
    rows: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
        ("put into a store, rows/s", lambda r: r["put_rows_per_s"]),
        ("a store's queue, vectors/s", lambda r: r["push"]["vectors_per_s"]),
        ("bytes a vector (of raw fp16)", _bytes),
        ("server, one device, vectors/s", lambda r: r["server_alone"]["vectors_per_s_1"]),
        ("server, four devices, vectors/s", lambda r: r["server_alone"]["vectors_per_s_4"]),
        ("rerank of 200, p50 (p95), ms", _rerank_ms),
        ("first sync, s", lambda r: r["first_sync"]["s"]),
        ("first sync, bytes a document", lambda r: r["first_sync"]["bytes_per_document"]),
        ("server's peak RSS, MB", lambda r: r["server_peak_rss_mb"]),
    ]
    lines = [f"{'':<34}" + "".join(f"{name:>20}" for name in names)]
    lines += [
        f"{what:<34}" + "".join(f"{get(results[n])!s:>20}" for n in names) for what, get in rows
    ]
    lines.append(f"floors: {json.dumps(results['floors'])}")
    return "\n".join(lines)


def _bytes(result: dict[str, Any]) -> str:
    return f"{result['push']['bytes_per_vector']} ({result['push']['of_raw_fp16']}x)"


def _rerank_ms(result: dict[str, Any]) -> str:
    return f"{result['rerank']['p50_ms']} ({result['rerank']['p95_ms']})"


if __name__ == "__main__":
    sys.exit(main())
