"""Kill -9 at random moments, flipped bits and cut files: what was acknowledged is there, or an error.

Every operation of the writer follows from its number, so that the store after a kill can be compared
with the model's answer, document by document.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import StoreError
from edge_mrl.search.scan import nearest
from edge_mrl.store import Binding, Entry, Store, check, compact
from edge_mrl.store.codefile.file import code_path
from tests.support.keys import KEY
from tests.support.stores import fill, levels, open_store, packing, small_segments, vectors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.test

DAMAGES = 300
DIM = 64
BINDING = Binding("space-1", "code-1", DIM, 1.0, "/bundles/one")
POOL = 90

#: Run by the writer's process too: see ``WRITER``.
COMPACT_EVERY = 23


def operation(number: int) -> tuple[str, list[str]]:
    """What the writer does as its n-th operation: put, delete or compact."""
    rng = random.Random(number)
    if number % COMPACT_EVERY == COMPACT_EVERY - 1:
        return "compact", []
    kind = "delete" if rng.random() < 0.2 else "put"
    return kind, [f"d{rng.randrange(POOL)}" for _ in range(rng.randint(1, 12))]


def make_entry(name: str, number: int) -> Entry:
    """A document as the n-th operation writes it, with 0 to 3 passages."""
    text = f"{name} as of {number}"
    passages = zlib.crc32(text.encode()) % 4
    codes = vectors(4, DIM, seed=zlib.crc32(text.encode()))[:passages]
    spans = [(i, len(text)) for i in range(passages)]
    return Entry(Document(name, text, {"n": number}), spans, codes)


def apply(store: Store, number: int) -> None:
    kind, names = operation(number)
    if kind == "put":
        store.put([make_entry(name, number) for name in names])
    elif kind == "delete":
        store.delete(names)
    else:
        compact(store)


def expect(model: dict[str, int], number: int) -> dict[str, int]:
    """The model after one more operation: which operation wrote each document."""
    kind, names = operation(number)
    after = dict(model)
    for name in names:
        if kind == "put":
            after[name] = number
        else:
            after.pop(name, None)
    return after


#: What the programs below begin with: blocks of few rows, and this file's own functions.
BEGIN = f"""
import sys
from edge_mrl.store.codefile import cache
cache.SEGMENT_ROWS, cache.STAGE_ROWS = 128, 16
from tests.support.keys import KEY
from {__name__} import BINDING, Store, StoreError, apply, compact, make_entry, nearest, vectors
"""

WRITER = f"""{BEGIN}
with Store.open(sys.argv[1], key=KEY if "encrypted" in sys.argv else None) as store:
    print("ready", flush=True)
    for number in range(int(sys.argv[2]), 10**9):
        apply(store, number)
        print(number, flush=True)
"""


def run_and_kill(path: Path, start: int, delay_s: float, *options: str) -> int:
    """Start a writer at an operation, kill it, return the last operation it acknowledged."""
    command = [sys.executable, "-c", WRITER, str(path), str(start), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        lines = [line for line in process.stdout if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    return int(lines[-1]) if lines else start - 1


def contents(store: Store) -> dict[str, str]:
    names = [f"d{number}" for number in range(POOL)]
    return {name: document.text for name, document in store.get(names).items()}


def texts(model: dict[str, int]) -> dict[str, str]:
    return {name: make_entry(name, number).document.text for name, number in model.items()}


def codes_of(store: Store) -> dict[str, list[list[int]]]:
    """Every document's codes as search sees them."""
    with store.reading() as view:
        table = view.codes
        rows = np.setdiff1d(np.arange(table.rows), table.dead)
        codes, keys = table.gather_levels(rows)
        names = store.ids(sorted(set(keys.tolist())))
    found: dict[str, list[list[int]]] = {}
    for key, code in zip(keys.tolist(), codes.tolist(), strict=True):
        found.setdefault(names[key], []).append(code)
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with small_segments(monkeypatch, rows=128, stage=16):
        yield


@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize(
    ("kind", "kills", "writing_s"),
    [
        pytest.param("int8", 200, 0.03, marks=pytest.mark.nightly),
        ("int8", 20, 0.3),
        ("int4", 12, 0.5),
        ("1bit", 12, 0.5),
        ("encrypted", 8, 0.5),
        pytest.param("encrypted", 150, 0.05, marks=pytest.mark.nightly),
    ],
)
def test_killed_writer_loses_nothing_it_acknowledged(
    kind: str, kills: int, writing_s: float, small: None, tmp_path: Path
) -> None:
    encrypted = kind == "encrypted"
    if encrypted:
        pytest.importorskip("sqlcipher3", reason="needs the extra encrypted")
    key, options = (KEY, ("encrypted",)) if encrypted else (None, ())
    path, kept = tmp_path / "store.db", packing("int8" if encrypted else kind, DIM)
    open_store(path, replace(BINDING, packing=kept), key=key).close()
    rng = random.Random(1)
    model: dict[str, int] = {}
    next_number, filed = 0, 0
    for kill in range(kills):
        last = run_and_kill(path, next_number, rng.uniform(0, 2 * writing_s), *options)
        for number in range(next_number, last + 1):
            model = expect(model, number)
        with Store.open(path, key=key) as store:
            there = contents(store)
            further = expect(model, last + 1)  # may have been committed, but not acknowledged
            assert there in (texts(model), texts(further)), f"kill {kill} after {last}"
            next_number = last + 1
            if there == texts(further) and there != texts(model):
                model, next_number = further, last + 2
            wanted = {name: make_entry(name, number).codes for name, number in model.items()}
            left = {n: levels(c, kept).tolist() for n, c in wanted.items() if len(c)}
            assert codes_of(store) == left
            if kill % 10 == 9:
                assert check(store).sound
            filed += code_path(path).exists()
        if encrypted:  # whatever the killed process left beside the store
            seen = [file.read_bytes() for file in tmp_path.iterdir()]
            assert not any(b" as of " in data for data in seen)
    assert next_number > kills  # real work was done between the kills
    assert filed == 0 if encrypted else filed > kills // 2


class Truth:
    """A sound store, and everything that is asked of it."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.codes = vectors(900, DIM, seed=5)
        self.queries = self.codes[::150]
        with open_store(path, replace(BINDING, packing=packing(kind, DIM))) as store:
            fill(store, self.codes)
            store.delete([str(number) for number in range(0, 900, 11)])
            fill(store, self.codes[:60], start=400)
            self.answers = self.ask(store)

    def ask(self, store: Store) -> dict[str, Any]:
        with store.reading() as view:
            matches = nearest(self.queries, view.codes, k=5, width=60)
            exact = nearest(self.queries, view.codes, k=5, exact=True)
            keys = sorted({match.key for row in matches for match in row})
            return {
                "funnel": matches,
                "exact": exact,
                "documents": view.documents(keys),
                "places": view.places(keys),
                "words": view.keyword_matches("text 77", k=5),
                "filtered": view.select({"n": {"$gte": 880}}).tolist(),
                "got": store.get([str(number) for number in range(1000)]),
            }


#: Answers that rest on checksums alone: wrong ones are never given, whatever is damaged.
VERIFIED = ("funnel", "exact", "documents", "places")


@pytest.fixture(scope="module", params=["int8", "1bit"])
def truth(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Truth]:
    with (
        pytest.MonkeyPatch.context() as patch,
        small_segments(patch, rows=128, stage=64),
    ):
        yield Truth(tmp_path_factory.mktemp("truth") / "store.db", request.param)


def flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def blank(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data)) // 512 * 512  # a sector that was never written
    data[start : start + 512] = bytes(len(data[start : start + 512]))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("damage", [flip, cut, blank])
@pytest.mark.parametrize("which", ["database", "codes"])
def test_damage_is_noticed_or_harmless(
    damage: Any, which: str, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{damage.__name__} {which}")
    noticed = harmless = 0
    for trial in range(DAMAGES // 12):
        path = tmp_path / f"{trial}.db"
        shutil.copy(truth.path, path)
        shutil.copy(code_path(truth.path), code_path(path))
        target = path if which == "database" else code_path(path)
        data = bytearray(target.read_bytes())
        damage(data, rng)
        target.write_bytes(data)
        try:
            with Store.open(path) as store:
                answers = truth.ask(store)
                wrong = [name for name in answers if answers[name] != truth.answers[name]]
                assert not set(wrong) & set(VERIFIED), f"trial {trial}"
                sound = check(store).sound
                assert sound is not bool(wrong) or not sound, f"trial {trial}: {wrong}"
        except StoreError:
            sound = False
        noticed += not sound
        harmless += sound
        path.unlink(missing_ok=True)
    if which == "database":
        assert noticed > 0
    else:  # the code file is made again
        assert harmless == DAMAGES // 12


READERS = 2
#: Fewer commits or rounds a second would show nothing.
LEAST_PER_S = 100 / 60

STRESS_WRITER = (
    BEGIN
    + """
import os, time
path, board, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
file = os.open(board, os.O_RDWR)
number, end = 0, time.monotonic() + seconds
with Store.open(path) as store:
    while time.monotonic() < end:
        number += 1
        entries = [make_entry(f"d{(number * 7 + i) % 90}", number) for i in range(8)]
        store.put([*entries, make_entry("counter", number)])
        os.pwrite(file, number.to_bytes(8, "little"), 0)
        if number % 100 == 0:
            compact(store)
        elif number % 9 == 0:
            store.delete([f"d{number % 90}"])
print(number)
"""
)

STRESS_READER = (
    BEGIN
    + """
import os, time
path, board, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
file = os.open(board, os.O_RDONLY)
queries, rounds, end = vectors(3, 64), 0, time.monotonic() + seconds
with Store.open(path) as store:
    while time.monotonic() < end:
        acknowledged = int.from_bytes(os.pread(file, 8, 0), "little")
        with store.reading() as view:
            for exact in (True, False):
                matches = nearest(queries, view.codes, k=20, width=20, exact=exact)
                keys = sorted({m.key for row in matches for m in row})
                documents, places = view.documents(keys), view.places(keys)
                for match in (m for row in matches for m in row):
                    first, spans = places[match.key]
                    assert first <= match.row < first + len(spans), "a row of another state"
            with store.locked() as (connection, _):
                count = connection.execute("SELECT ifnull(sum(rows), 0) FROM passages").fetchone()[0]
            assert view.codes.live == count, (view.codes.live, count)
            counter = store.get(["counter"]).get("counter")
        seen = 0 if counter is None else counter.metadata["n"]
        assert seen >= acknowledged, f"stale: {seen} after {acknowledged}"
        rounds += 1
print(rounds)
"""
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [10.0, pytest.param(60.0, marks=pytest.mark.nightly)])
def test_readers_see_every_commit_while_one_process_writes(seconds: float, tmp_path: Path) -> None:
    path, board = tmp_path / "store.db", tmp_path / "board"
    open_store(path, BINDING).close()
    board.write_bytes(bytes(8))
    commands = [STRESS_WRITER, *[STRESS_READER] * READERS]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(board), str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for code in commands
    ]
    results = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors
    commits, *rounds = [int(output) for output, _ in results]
    assert min(commits, *rounds) > seconds * LEAST_PER_S
    with Store.open(path) as store:
        assert check(store).sound


LIMITED_WRITER = (
    BEGIN
    + """
import resource, signal
with Store.open(sys.argv[1]) as store:
    limit = int(sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for number in range(10**6):
        try:
            store.put([make_entry(f"d{number}", number)])
        except StoreError as error:
            print("error", error)
            break
        print(number)
"""
)


@pytest.mark.parametrize("limit", [300_000, 1_000_000, 3_000_000])
def test_disk_that_fills_up_loses_nothing_acknowledged(
    limit: int, small: None, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    open_store(path, BINDING).close()
    command = [sys.executable, "-c", LIMITED_WRITER, str(path), str(limit)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    *acknowledged, last = output.splitlines()
    assert last.startswith("error")
    assert len(acknowledged) > 3
    with Store.open(path) as store:
        names = [f"d{number}" for number in range(len(acknowledged))]
        assert list(store.get(names)) == names
        assert store.count().documents == len(names)
        store.put([make_entry("more", 1)])
        assert check(store).sound
