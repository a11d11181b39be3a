"""A device: a process of its own with a real store, which says what its store has acknowledged.

It is forked from a process that has imported everything, so that a hundred lives are cheap.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
import threading
import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Not used here by name: what a forked process finds loaded.
import onnxruntime  # noqa: F401
import tokenizers  # noqa: F401

from edge_mrl import Document, Encoder, Index
from edge_mrl.errors import NetworkError, StoreBusyError
from edge_mrl.store.replica.outbox import known_versions
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.enrollment import enroll, move
from edge_mrl.sync.outcome import Outcome
from edge_mrl.sync.transport import Timeouts
from edge_mrl.wire.clock import now_ms
from tests.faults import sabotage
from tests.faults.plan import DevicePlan, Op, Step
from tests.support.bundles import copy_bundle, keep_codes_as
from tests.support.stores import packing

__all__ = ["BUNDLE", "HISTORY", "Task", "bundle_of", "live"]

BUNDLE = Path(__file__).parent.parent / "golden" / "tiny-bert-16"
#: Passages are short, so that small texts have several.
PASSAGE = {"max_tokens": 16, "overlap": 4}
TIMEOUTS = Timeouts(connect_s=0.7, read_s=0.7, total_s=2.0)
ENROLL_S = 60.0
#: What is left of a token's life: it is renewed when that is less than 14 days.
SOON_MS = 86_400_000
#: Written by triggers, in the store's own transactions: every version that a store ever had.
HISTORY = """
CREATE TABLE IF NOT EXISTS seen_versions (
    id TEXT NOT NULL, stamp INTEGER NOT NULL, device TEXT NOT NULL, deleted INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL
);
CREATE TRIGGER IF NOT EXISTS see_version AFTER INSERT ON versions BEGIN
    INSERT INTO seen_versions VALUES (new.id, new.stamp, new.device, new.deleted, new.acknowledged);
END;
"""


@dataclass(frozen=True, slots=True)
class Task:
    """A life of a device.

    Attributes:
        store: Its store.
        plan: How it is set up.
        steps: What it does.
        first: The first step that was not reported.
        clock_ns: How far its clock is off.
        direct: The server's address.
        proxy: What it is told that the server's address is.
        invitations: Invitations, one for each time that it enrolls.
        enrolled: How often it was enrolled before.
        with_text: Whether text is sent.
        broken: How it is broken on purpose (``sabotage``); empty for not at all.
    """

    store: Path
    plan: DevicePlan
    steps: tuple[Step, ...]
    first: int
    clock_ns: int
    direct: str
    proxy: str
    invitations: tuple[str, ...]
    enrolled: int
    with_text: bool
    broken: str = ""


def live(pipe: Connection, task: Task) -> None:
    """The process: reports are tuples, a word first."""
    _set_clock(task.clock_ns)
    sabotage.break_device(task.broken)
    try:
        if task.plan.kotlin:
            _live_in_kotlin(pipe, task)
            return
        with _open(task) as index:
            _Device(pipe, task, index).run()
    except Exception:  # noqa: BLE001 - the harness is told
        pipe.send(("crashed", traceback.format_exc()))
        sys.exit(1)


def _set_clock(offset_ns: int) -> None:
    real_ns = time.time_ns
    time.time_ns = lambda: real_ns() + offset_ns
    time.time = lambda: (real_ns() + offset_ns) / 1e9


def bundle_of(code: str, folder: Path) -> Path:
    """The bundle for a kind of code, made in a folder if it is not there; called first by the harness."""
    if code == "int8":
        return BUNDLE
    path = folder / f"bundle of {code}"
    if not path.exists():
        keep_codes_as(copy_bundle(path), packing(code, 16))
        Encoder.open(path, threads=1).close()  # so that no device that is killed has to try it
    return path


def _open(task: Task) -> Index:
    bundle = bundle_of(task.plan.code, task.store.parent)
    index = Index.open(task.store, bundle, threads=1, keep_full=task.plan.keep_full, **PASSAGE)
    _watch(task.store, task.plan.trigger)
    return index


def _watch(store: Path, trigger: str) -> None:
    connection = sqlite3.connect(store, timeout=10)
    connection.executescript(HISTORY + trigger)
    connection.close()


def _live_in_kotlin(pipe: Connection, task: Task) -> None:
    from tests.faults.kotlin import KotlinIndex

    bundle = bundle_of(task.plan.code, task.store.parent)
    ahead_ms = task.clock_ns // 1_000_000
    with KotlinIndex(task.store, bundle, task.plan.keep_full, ahead_ms=ahead_ms) as index:
        pipe.send(("java", index.pid))
        _watch(task.store, task.plan.trigger)
        _KotlinDevice(pipe, task, index).run()


class _Device:
    def __init__(self, pipe: Connection, task: Task, index: Any) -> None:
        self._pipe = pipe
        self._task = task
        self._index = index
        self._client: Any = None
        self._enrolled = task.enrolled
        self._refused = ""
        self._ran = threading.Condition()
        self._outcomes: list[Outcome] = []

    def run(self) -> None:
        """Do what is planned, then what the harness says."""
        steps = self._task.steps
        if self._task.first > self._task.plan.enroll_at:
            self._enroll()
        for number in range(self._task.first, len(steps)):
            if number == self._task.plan.enroll_at:
                self._enroll()
            self._pipe.send(("done", number, self._do(steps[number])))
        if self._client is None:
            self._enroll()
        self._pipe.send(("finished",))
        self._stay_in_sync()
        assert self._client is not None
        self._client.close()
        self._pipe.send(("bye",))

    def _do(self, step: Step) -> list[tuple[Op, bool]]:
        """A step; returns what was written, and whether it changed anything."""
        if self._refused:
            self._enroll_anew()
        if step.wait_s:
            time.sleep(step.wait_s)
        elif step.sync:
            if self._client is not None and not self._task.plan.runner:
                self._look_at(self._client.sync_once(attempts=2))
        else:
            return [self._tell(op) for op in self._write(step.ops)]
        return []

    def _write(self, ops: tuple[Op, ...]) -> list[Op]:
        index = self._index
        if ops[0].kind == "delete":
            index.delete([ops[0].id])
            return list(ops)
        if ops[0].kind == "meta":
            found = index.get([ops[0].id]).get(ops[0].id)
            if found is None:
                return []
            ops = (replace(ops[0], text=found.text),)
        index.put([Document(op.id, op.text, op.metadata) for op in ops])
        return list(ops)

    def _tell(self, op: Op) -> tuple[Op, bool]:
        """A write that the store has acknowledged, and whether its version is the last here."""
        with self._index.store.locked() as (connection, _):
            known = known_versions(connection, [op.id]).get(op.id)
        if known is None:  # not enrolled yet
            return op, True
        assert self._client is not None
        mine = known.version.device == self._client.status().device
        return op, mine and known.deleted == (op.kind == "delete")

    def _enroll(self) -> None:
        task, store = self._task, self._index.store
        if not _enrolled(store.path):
            self._ask(task.invitations[0])
        self._move(task.proxy)
        _let_token_expire_soon(store.path)
        self._client = self._open_client()
        self._enrolled = max(self._enrolled, 1)
        if task.plan.runner:
            self._client.start(interval_s=0.3, max_wait_s=0.5, notify=self._note)
        self._pipe.send(("enrolled", self._client.status().device))

    def _ask(self, invitation: str) -> None:
        """Through the network that fails, with one invitation, however often it takes."""
        started = time.monotonic()
        while True:
            try:
                self._ask_once(invitation)
            except NetworkError:
                if time.monotonic() - started > ENROLL_S:
                    raise
                time.sleep(0.1)
            else:
                return

    def _ask_once(self, invitation: str) -> None:
        task, store = self._task, self._index.store
        enroll(
            store, task.proxy, invitation, name=f"device {store.path.stem}",
            with_text=task.with_text, max_queue=task.plan.max_queue,
        )  # fmt: skip

    def _move(self, server: str) -> None:
        move(self._index.store, server=server)

    def _open_client(self) -> Any:
        return SyncClient.open(self._index, timeouts=TIMEOUTS)

    def _enroll_anew(self) -> None:
        """Do what the server's refusal asks for; the operator gives another invitation."""
        assert self._client is not None
        found = Credentials.read(self._task.store)
        tokens = [] if found is None else [found.token, found.previous or ""]
        hashes = [hashlib.sha256(token.encode()).hexdigest() for token in tokens]
        self._pipe.send(("refused", self._refused, hashes))
        self._client.close()
        self._ask(self._task.invitations[self._enrolled])
        self._enrolled += 1
        self._refused = ""
        self._enroll()

    def _look_at(self, outcome: Outcome) -> None:
        """Note a refusal that ends only when the device is enrolled anew."""
        if outcome.cause == "refused" and "edge-mrl enroll" in str(outcome.waiting):
            self._refused = str(outcome.waiting)

    def _note(self, outcome: Outcome) -> None:
        self._look_at(outcome)
        with self._ran:
            self._outcomes.append(outcome)
            self._ran.notify_all()

    def _stay_in_sync(self) -> None:
        """Sync until told to stop, and say each time what still waits.

        The harness's last word is repeated, so that it knows which syncs began after that. A step is
        done, and then nothing until the next word.
        """
        assert self._client is not None
        word: Any = None
        while word != "stop":
            while self._pipe.poll(0.02 if word else None):
                word = self._pipe.recv()
                if isinstance(word, Step):
                    self._pipe.send(("done", len(self._task.steps), self._do(word)))
                    word = None
            if word not in (None, "stop"):
                if self._refused:
                    self._enroll_anew()
                outcome = self._sync()
                status = self._client.status()
                said = outcome.waiting, outcome.cause
                self._pipe.send(("synced", word, status.queue.items, outcome.done, said))

    def _sync(self) -> Outcome:
        assert self._client is not None
        if not self._task.plan.runner:
            try:
                outcome = self._client.sync_once(attempts=1)
            except StoreBusyError as error:
                return Outcome(waiting=str(error), cause="store")
            self._look_at(outcome)
            return outcome
        with self._ran:
            # The run that ends next may have begun before now; the one behind it has not.
            for _ in range(2):
                before = len(self._outcomes)
                self._client.sync_now()
                self._ran.wait_for(lambda n=before: len(self._outcomes) > n, 30)
            return self._outcomes[-1]


class _KotlinDevice(_Device):
    def _ask_once(self, invitation: str) -> None:
        task = self._task
        self._index(
            "enroll", server=task.proxy, invitation=invitation, with_text=task.with_text,
            max_queue=task.plan.max_queue,
        )  # fmt: skip

    def _move(self, server: str) -> None:
        self._index("move", server=server)

    def _open_client(self) -> Any:
        from tests.faults.kotlin import KotlinClient

        return KotlinClient(self._index, (TIMEOUTS.connect_s, TIMEOUTS.read_s, TIMEOUTS.total_s))


def _let_token_expire_soon(path: Path) -> None:
    """Have the next sync renew the token: in each life of a device, through the network that fails."""
    found = Credentials.read(path)
    assert found is not None
    replace(found, expires_ms=now_ms() + SOON_MS).write(path)


def _enrolled(path: Path) -> bool:
    return path.with_name(f"{path.name}-sync.json").exists()
