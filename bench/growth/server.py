"""What a server's requests cost as a tenant grows: ``python -m bench.growth.server``.

A real server process for each database and state of the code, over loopback; one tenant grows by pushes
of 512 documents of 384 dimensions, and at each size its requests are timed, one after another: the median
of several. Besides, what another tenant's push takes while four devices search the large one without an
index, and the first search after a restart. ``--before DIR`` measures another checkout too, as
``bench.growth.device`` does; the one or the other grows first, by turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.growth.device import Times, chart, commit_of, table
from bench.support.machine import RESULTS, save
from bench.sync.throughput import database
from edge_mrl.wire.clock import next_stamp
from edge_mrl.wire.frames import Item, encode_items
from tests.support.serving import Caller, Serving, admin, enroll, units

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "build" / "bench-growth-server"
DIM, BODY, RERANKED = 384, 512, 200
CALLS, SEARCHERS, SEARCHING_S = 15, 4, 5.0
SIZES = [10_000, 100_000, 300_000]
NAMES = (
    "push of 512",
    "page of changes",
    "rerank of 200",
    "search",
    "push of another tenant, while four devices search",
    "first search after a restart",
)


def main() -> int:
    """Measure, print a table, write bench/results/growth-server.json and .svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--before", type=Path, metavar="DIR", help="an older checkout")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    args = parser.parse_args()
    trees = {"now": ROOT} | ({"before": args.before.resolve()} if args.before else {})
    kinds = args.database or ["sqlite", "postgresql"]
    found: Times = {f"{kind}, {name}": {t: {} for t in trees} for kind in kinds for name in NAMES}
    for kind in kinds:
        for tree, path in trees.items():
            shutil.rmtree(FILES, ignore_errors=True)
            FILES.mkdir(parents=True)
            with database(kind, FILES) as where, _code_of(path):
                for rows, times in grow(where, sorted(set(args.rows))):
                    for name, ms in times.items():
                        found[f"{kind}, {name}"][tree][str(rows)] = ms
                    print(f"{kind}, {tree}, {rows:,}: {times}", file=sys.stderr, flush=True)
            shutil.rmtree(FILES)
    settings: dict[str, Any] = {"dim": DIM, "documents_in_a_push": BODY, "reranked": RERANKED}
    if args.before:
        settings["before"] = commit_of(args.before)
    path = save("growth-server", settings, found)
    plot = RESULTS / "growth-server.svg"
    plot.write_text(chart(found), encoding="utf-8")
    print(table(found))
    print(f"written to {path.relative_to(ROOT)} and {plot.relative_to(ROOT)}")
    return 0


@contextmanager
def _code_of(tree: Path) -> Iterator[None]:
    """Have the servers that are started in the block run the code of a tree."""
    before = dict(os.environ)
    # Otherwise the working folder, which is this tree, would come first.
    os.environ |= {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'server'}", "PYTHONSAFEPATH": "1"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def grow(where: str, sizes: list[int]) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Let a tenant grow; at each size, milliseconds of each request."""
    server = Serving(where, "--device-rate", "100000")
    try:
        devices = [enroll(server.url, _invitation(where, "large", new=True))]
        devices += [enroll(server.url, _invitation(where, "large")) for _ in range(SEARCHERS - 1)]
        other = enroll(server.url, _invitation(where, "other", new=True))
        have = 0
        for rows in sizes:
            pushes = []
            while have < rows:
                pushes.append(_timed(partial(_push, devices[0], "d", have)))
                have += BODY
            times: dict[str, float | None] = {"push of 512": _median(pushes[-CALLS:])}
            times |= _reads(devices[0], have)
            times[NAMES[4]] = _beside(devices, other, have)
            port = server.port
            server.stop()
            server = Serving(where, "--device-rate", "100000", port=port)
            for device in (*devices, other):
                device.close()  # it connects again
            times[NAMES[5]] = _median([_timed(partial(_search, devices[0], have))])
            yield rows, times
    finally:
        server.kill()


def _invitation(where: str, tenant: str, *, new: bool = False) -> str:
    if new:
        with suppress(AssertionError):
            admin(where, "tenants", "create", tenant)
    made: str = admin(where, "invitations", "create", tenant)["invitation"]
    return made


def _push(device: Caller, prefix: str, first: int) -> None:
    stamp = next_stamp(0)
    vectors = units(BODY, DIM, seed=first)
    items = [Item(f"{prefix}{first + i:07}", stamp, vectors[i : i + 1]) for i in range(BODY)]
    body = encode_items({"cursor": 0}, items, like=np.empty((0, DIM), np.float16))
    assert device.call("POST", "/v1/push", body).status == 200


def _reads(device: Caller, rows: int) -> dict[str, float | None]:
    chance = np.random.default_rng(rows)
    queries = units(CALLS, DIM, seed=rows)

    def rerank(call: int) -> None:
        ids = [f"d{n:07}" for n in chance.choice(rows, RERANKED, replace=False)]
        assert device.query("/v1/rerank", {"ids": ids}, queries[call]).status == 200

    def page(call: int) -> None:
        since = rows * call // CALLS
        assert device.call("GET", f"/v1/pull?since={since}&vectors=full").status == 200

    def search(_: int) -> None:
        _search(device, rows)

    return {
        "page of changes": _each(page),
        "rerank of 200": _each(rerank),
        "search": _each(search),
    }


def _search(device: Caller, seed: int) -> None:
    assert device.query("/v1/search", {"k": 10}, units(1, DIM, seed=seed)[0]).status == 200


def _beside(devices: list[Caller], other: Caller, rows: int) -> float:
    """A push of another tenant, in the middle of searches of the large one."""
    done = threading.Event()

    def search(device: Caller) -> None:
        while not done.is_set():
            with suppress(AssertionError):  # 503: too much is going on
                _search(device, rows)

    with ThreadPoolExecutor(len(devices)) as pool:
        running = [pool.submit(search, device) for device in devices]
        try:
            until = time.monotonic() + SEARCHING_S
            times: list[float] = []
            while not times or time.monotonic() < until:
                times.append(_timed(partial(_push_one, other, rows + len(times))))
        finally:
            done.set()
        for one in running:
            one.result()
    return _median(times)


def _push_one(device: Caller, number: int) -> None:
    item = Item(f"o{number}", next_stamp(0), units(1, DIM, seed=number))
    body = encode_items({"cursor": 0}, [item], like=np.empty((0, DIM), np.float16))
    device.call("POST", "/v1/push", body)


def _each(call: Callable[[int], None]) -> float:
    return _median([_timed(partial(call, n)) for n in range(CALLS)])


def _timed(call: Callable[[], object]) -> float:
    before = time.perf_counter()
    call()
    return (time.perf_counter() - before) * 1e3


def _median(times: list[float]) -> float:
    return round(statistics.median(times), 2)


if __name__ == "__main__":
    sys.exit(main())
