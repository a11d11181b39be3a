"""A device as the harness knows it: its store, its process, its lives, and how far it is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.faults import device
from tests.faults.plan import DevicePlan, Step
from tests.faults.report import StuckError

__all__ = ["Machine", "wait_for"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.device"])


@dataclass(slots=True)
class Machine:
    """A device's store, and the process that has it.

    Attributes:
        number: Which.
        plan: What it does.
        store: Its store.
        invitations: One for each time that it may have to enroll.
        steps: Those of the plan; a copy first repeats what its original was killed at.
        original: The number of the device whose store this one's is a copy of; None for no copy.
        copied: How many versions its store's history had when it was copied.
        done: Steps that it has reported.
        names: Under which it was enrolled, the present one last.
        synced: What it said last about its syncs.
        java: The process id of its Java, if it has one.
    """

    number: int
    plan: DevicePlan
    store: Path
    invitations: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    original: int | None = None
    copied: int = 0
    process: Any = None
    pipe: Connection | None = None
    lives: int = 0
    done: int = 0
    names: list[str] = field(default_factory=list)
    finished: bool = False
    synced: tuple[Any, ...] = ()
    bye: bool = False
    java: int = 0

    def __post_init__(self) -> None:
        """The steps are the plan's, if no others are given."""
        self.steps = self.steps or self.plan.steps

    @property
    def name(self) -> str:
        """Under which it is enrolled; empty where it is not yet."""
        return self.names[-1] if self.names else ""

    def live(self, *, direct: str, proxy: str, with_text: bool, broken: str) -> None:
        """Start its next life.

        Args:
            direct: The server's address.
            proxy: What it is told that the server's address is.
            with_text: Whether text is sent.
            broken: How it is broken on purpose (``sabotage``); empty for not at all.
        """
        here, there = CONTEXT.Pipe()
        task = device.Task(
            store=self.store,
            plan=self.plan,
            steps=self.steps,
            first=self.done,
            clock_ns=self.plan.clocks_ns[self.lives],
            direct=direct,
            proxy=proxy,
            invitations=self.invitations,
            enrolled=len(self.names),
            with_text=with_text,
            broken=broken,
        )
        self.process = CONTEXT.Process(target=device.live, args=(there, task), daemon=True)
        self.process.start()
        there.close()
        self.pipe, self.lives = here, self.lives + 1

    def words(self) -> Iterator[tuple[Any, ...]]:
        """All that it has said since."""
        try:
            while self.pipe is not None and self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            self.hang_up()

    def say(self, word: Any) -> None:
        """Tell it something."""
        if self.pipe is None:
            raise StuckError(f"device {self.number} is gone, exit code {self.process.exitcode}")
        self.pipe.send(word)

    def hang_up(self) -> None:
        """Its process has ended."""
        if self.pipe is not None:
            self.pipe.close()
        self.pipe = None
        self.process.join(5)

    def kill(self) -> None:
        """SIGKILL; what it has said can still be heard."""
        if self.java:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.java, signal.SIGKILL)
            self.java = 0
        self.process.kill()
        self.process.join()

    def copy(self, number: int, plan: DevicePlan, invitations: tuple[str, ...]) -> Machine:
        """Another machine with a copy of this one's store and token, while no process has them.

        The copy repeats the step that this one has not reported: if the step is in the store, nothing
        changes.
        """
        store = self.store.with_name(f"device{number}.db")
        for file in self.store.parent.glob(f"{self.store.name}*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, store.with_name(store.name + file.name[len(self.store.name) :]))
        ((seen,),) = self.select("SELECT count(*) FROM seen_versions")
        steps = (*self.steps[self.done : self.done + 1], *plan.steps)
        return Machine(
            number, plan, store, invitations, steps, self.number, seen, names=[self.name]
        )

    def select(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Read in its store behind its back."""
        with contextlib.closing(sqlite3.connect(self.store, timeout=10)) as connection:
            return connection.execute(sql, arguments).fetchall()

    def knows(self, name: str) -> bool:
        """Whether a document is there."""
        return bool(self.select("SELECT 1 FROM documents WHERE id = ?", name))

    def waits(self) -> bool:
        """Whether something is in its queue."""
        return bool(self.select("SELECT 1 FROM outbox LIMIT 1"))


def wait_for(machines: Sequence[Machine], timeout_s: float) -> bool:
    """Wait until one of them says something, or so long; False at once where none has a process."""
    pipes = [one.pipe for one in machines if one.pipe is not None]
    if pipes:
        wait(pipes, timeout_s)
    return bool(pipes)
