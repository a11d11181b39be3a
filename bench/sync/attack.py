"""What one tenant waits while others attack: ``python -m bench.sync.attack``.

A real server process, on SQLite and on PostgreSQL, over loopback. A quiet tenant pulls pages of 64
documents and pushes single ones, a few a second. Meanwhile each attack runs in a process of its own:
strangers who hold thousands of connections or send garbage, and another tenant that asks for what costs
most. Recorded are the quiet tenant's times beside those without an attack, its requests that failed, and
what the server took of memory, disk and log.

The attackers share the processors with the server, so a part of what the quiet tenant waits is their
work.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.support.machine import save
from edge_mrl.bundle.head import head_id
from edge_mrl.wire.frames import CONTENT_TYPE, encode_message
from tests.support.postgres import UnavailableError, started
from tests.support.serving import Caller, Serving, admin, enroll, item, serving, units

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "build" / "bench-attack"
DIM = 384
#: Documents of the quiet tenant, and of the one that attacks.
QUIET, LARGE = 1_000, 5_000
#: Requests of each measurement, and pauses between them: the quiet tenant is no load itself.
REQUESTS, PAUSE_S = 150, 0.02
PAGE, BATCH = 64, 250
#: Seconds until an attack is at its height.
HEIGHT_S = 2.0
TIMEOUT_S = 30.0
PREFIX = head_id(None, layer_norm=False)
PULL = f"/v1/pull?since=0&limit={PAGE}&head={PREFIX}&dim=128"


def main() -> int:
    """Measure, print a table, write bench/results/attack.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--only", choices=sorted(ATTACKS), action="append")
    parser.add_argument("--attack", choices=sorted(ATTACKS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--token", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.attack:
        return attack(args.attack, args.url, args.token)
    shutil.rmtree(FILES, ignore_errors=True)
    FILES.mkdir(parents=True)
    try:
        results = {
            name: measure(name, args.requests, args.only or ATTACKS)
            for name in args.database or ("sqlite", "postgresql")
        }
    finally:
        shutil.rmtree(FILES, ignore_errors=True)
    settings = {
        "requests": args.requests,
        "documents": {"quiet": QUIET, "attacker": LARGE},
        "dim": DIM,
        "page": PAGE,
    }
    print(table(results))
    if args.only:
        return 0
    path = save("attack", settings, results)
    print(f"written to {path.relative_to(ROOT)}")
    return 0


def measure(name: str, count: int, attacks: Iterable[str]) -> dict[str, Any]:
    """All attacks on one database."""
    if name == "sqlite":
        return _measure(FILES / "server.db", count, attacks)
    try:
        with started() as postgres:
            return _measure(postgres.url, count, attacks)
    except UnavailableError as error:
        raise SystemExit(str(error)) from error


def _measure(database: str | Path, count: int, attacks: Iterable[str]) -> dict[str, Any]:
    limits = ["--device-rate", "1e6", "--tenant-rate", "1e6", "--cache", str(FILES / "cache")]
    with serving(database, *limits) as server:
        quiet, loud = _tenant(server, "quiet", QUIET), _tenant(server, "loud", LARGE)
        results = {"none": _times(server, quiet, count)}
        for name in attacks:
            before = len(server.log())
            with _attacked(server, name, str(loud.token)):
                time.sleep(HEIGHT_S)
                results[name] = _times(server, quiet, count)
            results[name]["log_kb"] = round((len(server.log()) - before) / 1e3, 1)
            time.sleep(HEIGHT_S)
        quiet.close()
        loud.close()
    base = results["none"]
    for found in results.values():
        for what in ("pull", "push"):
            found[f"{what}_ratio"] = round(found[what]["p95_ms"] / base[what]["p95_ms"], 1)
    return results


def _tenant(server: Serving, name: str, documents: int) -> Caller:
    admin(server.database, "tenants", "create", name)
    device = enroll(
        server.url, admin(server.database, "invitations", "create", name)["invitation"], name
    )
    for start in range(0, documents, BATCH):
        rows = [item(f"{name}-{start + n}", seed=n, dim=DIM) for n in range(BATCH)]
        device.statuses(*rows, dim=DIM)
    return device


@contextlib.contextmanager
def _attacked(server: Serving, name: str, token: str) -> Any:
    command = [sys.executable, "-m", "bench.sync.attack", "--attack", name, "--url", server.url]
    process = subprocess.Popen([*command, "--token", token])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _times(server: Serving, quiet: Caller, count: int) -> dict[str, Any]:
    """The quiet tenant's times, and what the server has taken so far."""
    pulls: list[float] = []
    pushes: list[float] = []
    failed = 0
    for number in range(count):
        row = item(f"new-{number}", seed=number, dim=DIM)
        for times, call in (
            (pulls, partial(quiet.call, "GET", PULL)),
            (pushes, partial(quiet.push, row, dim=DIM)),
        ):
            began = time.perf_counter()
            try:
                failed += call().status != 200
            except (OSError, http.client.HTTPException):
                failed += 1
                quiet.close()
            times.append(1000 * (time.perf_counter() - began))
            time.sleep(PAUSE_S)
    status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
    files = [path for path in FILES.glob("cache/*/*") if path.is_file()]
    return {
        "pull": _spread(pulls),
        "push": _spread(pushes),
        "failed": failed,
        "rss_mb": round(int(status.split("VmRSS:")[1].split()[0]) / 1024),
        "snapshots_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def _spread(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {f"p{part}_ms": round(cuts[part - 1], 1) for part in (50, 95, 99)}


# --- attacks, each in a process of its own until it is killed


def attack(name: str, url: str, token: str) -> int:
    """Attack a server for ever."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ATTACKS[name](url, token)
    return 0


def _half_open(count: int) -> Callable[[str, str], None]:
    """So many half-open connections, of many addresses, each opened again when it was ended."""

    def run(url: str, token: str) -> None:  # noqa: ARG001 - strangers have none
        port = int(url.rpartition(":")[2])
        held: list[socket.socket] = []
        number = 0
        while True:
            number += 1
            source = (f"127.0.{number // 200 % 200}.{1 + number % 200}", 0)
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), 5, source_address=source)
                sock.sendall(b"GET /v1/pull HTTP/1.1\r\nHost: x\r\n")
                held.append(sock)
            if len(held) >= count:
                held.pop(0).close()
                time.sleep(0.01)

    return run


def _threads(count: int, call: Callable[[Caller, int], object]) -> Callable[[str, str], None]:
    """So many threads that each call for ever over a connection of its own."""

    def run(url: str, token: str) -> None:
        def work(first: int) -> None:
            caller, number = Caller(url, token), first
            while True:
                number += count
                try:
                    call(caller, number)
                except (OSError, http.client.HTTPException, AssertionError):
                    caller.close()

        workers = [threading.Thread(target=work, args=(n,)) for n in range(count)]
        for worker in workers:
            worker.start()

    return run


def _slow_bodies(url: str, token: str) -> None:
    """Pushes that send a byte a second."""
    port = int(url.rpartition(":")[2])
    head = (
        "POST /v1/push HTTP/1.1\r\nHost: x\r\nEdge-MRL-Protocol: 1\r\nEdge-MRL-Sequence: 1\r\n"
        f"Edge-MRL-Space: {'5' * 64}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: 1000000\r\n\r\n"
    ).encode()
    socks: list[socket.socket] = []
    while True:
        while len(socks) < 200:
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), 5)
                sock.sendall(head)
                socks.append(sock)
        time.sleep(1)
        for sock in list(socks):
            try:
                sock.sendall(b"x")
            except OSError:
                socks.remove(sock)
                sock.close()


_TEXT = b'{"layer_norm":true,"x":[' + b"{}," * 5_000_000 + b'{}],"dtype":"float32","dim":4}'
_HEAD = struct.pack("<I", len(_TEXT)) + _TEXT + bytes(16)
_IDS = encode_message(
    {"ids": [f"loud-{n}" for n in range(1_000)]}, units(1, DIM).astype(np.float32)
)


def _garbage(caller: Caller, number: int) -> None:
    if number % 2:
        caller.token = "emrl_default_x"
        caller.call("GET", PULL)
        return
    address = (caller._connection.host, caller._connection.port)  # noqa: SLF001
    with socket.create_connection(address, TIMEOUT_S) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        sock.recv(1_000)


ATTACKS: dict[str, Callable[[str, str], None]] = {
    "half-open 1,300": _half_open(1_300),
    "half-open 5,000": _half_open(5_000),
    "slow bodies": _slow_bodies,
    "garbage and 401": _threads(8, _garbage),
    "head of 15 MB of JSON": _threads(
        4, lambda caller, n: caller.call("PUT", f"/v1/heads/{n:064x}", _HEAD)
    ),
    "snapshots by floats": _threads(
        24,
        lambda caller, n: caller.call(
            "GET", f"/v1/snapshot/coarse?head={PREFIX}&dim={DIM}&scale={1 + n / 1e6}"
        ),
    ),
    "24 threads of pulls": _threads(
        24, lambda caller, _: caller.call("GET", "/v1/pull?since=0&vectors=full")
    ),
    "24 threads of reranks": _threads(
        24, lambda caller, _: caller.call("POST", "/v1/rerank", _IDS)
    ),
}


def table(results: dict[str, Any]) -> str:
    """The results as text, for a terminal."""
    lines = []
    for database, rows in results.items():
        lines.append(
            f"{database:<24}{'pull p50 p95 p99':>26}{'x':>6}{'push p50 p95 p99':>26}{'x':>6}"
        )
        for name, found in rows.items():
            cells = []
            for what in ("pull", "push"):
                times = " ".join(f"{value:7.1f}" for value in found[what].values())
                cells.append(f"{times:>26}{found[f'{what}_ratio']:>6}")
            rest = {
                k: found[k] for k in ("failed", "rss_mb", "snapshots_mb", "log_kb") if k in found
            }
            lines.append(f"{name:<24}{''.join(cells)}  {json.dumps(rest)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
