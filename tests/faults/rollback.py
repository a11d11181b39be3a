"""Databases and stores put back from copies, in any order; then all present copies must be one.

    python -m tests.faults.rollback --seeds 0-49
    python -m tests.faults.rollback --seeds 0-19 --database postgresql

A schedule draws writes, syncs, copies of the server's database and of devices' stores, and their
return: with `admin restore` (PostgreSQL: its own tools, then `admin restored`) or by hand and without a
word, once or more. Some devices leave and come back at the end. The
server is a real process that is killed for each restore. The model answer is drawn from the copies
themselves, before anything is mended: of each document, the newest version that any present copy holds.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from edge_mrl import Document, Index, SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl_server.storage import accounts, open_database
from tests.faults.databases import Database, SqliteFiles
from tests.faults.places import databases
from tests.support.bundles import TINY
from tests.support.serving import Serving

__all__ = ["Rollback", "run_schedule"]

NAMES = ("A", "B", "C", "D")
IDS = tuple(f"d{number}" for number in range(8))
#: Rounds of syncs in which all present copies must become one.
CALM = 6
ENDS = ("", "-wal", "-shm", "-codes", "-sync.json")
VERSIONS = "SELECT id, stamp, device, deleted FROM versions"
Held = dict[str, tuple[int, str, bool]]


@dataclass(slots=True)
class Rollback:
    """A fleet with its server, and what was written.

    Attributes:
        folder: For stores.
        database: Where the server's database is.
        rng: Draws the schedule.
        written: Texts by id, stamp and device; None for deletions.
        present: Devices that are there.
        log: What was done, for people.
    """

    folder: Path
    database: Database
    rng: random.Random
    written: dict[tuple[str, int, str], str | None] = field(default_factory=dict)
    present: dict[str, tuple[Index, SyncClient]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    server: Serving | None = None
    url: str = ""
    copies: set[str] = field(default_factory=set)
    unsaid: int = 0

    def begin(self) -> None:
        """Start the server, and enroll the devices."""
        self.url = self.database.new(f"server{self.folder.name}")
        self.server = Serving(self.url, "--quiet")
        with (
            open_database(self.url, connections=1) as database,
            database.write() as transaction,
        ):
            invitations = [accounts.create_invitation(transaction, "default") for _ in NAMES]
        for name, invitation in zip(NAMES, invitations, strict=True):
            index = Index.open(self.folder / f"{name}.db", TINY, threads=1)
            enroll(index.store, self.server.url, invitation, name=name, with_text=True)
            self.present[name] = index, SyncClient.open(index)

    def disturb(self) -> None:
        """Write, sync, copy and put back.

        After the copies, each schedule has versions that several devices have pulled, and of which the
        writer may be gone when the server is put back.
        """
        for name in NAMES:
            self.do("write", name)
        for name in (*NAMES, *NAMES):
            self.do("sync", name)
        self.do("copy")
        self.do("save")
        self._play(self.rng.randint(2, 5))
        for _ in range(self.rng.choice((1, 1, 1, 2))):
            writer, *others = self.rng.sample(list(self.present), len(self.present))
            for name in (writer, writer, *others[: self.rng.randint(1, 2)]):
                self.do("write" if name == writer and self.rng.random() < 0.8 else "sync", name)
            self.do("sync", writer)
            self.do("sync", others[0])
            if self.rng.random() < 0.6 and len(self.present) > 2:
                self.do("leave", writer)
            steps = ["restore", *["put_back"] * self.rng.randint(0, 1)]
            self.rng.shuffle(steps)
            for step in steps:
                self.do(step)
            self._play(self.rng.randint(0, 4))

    def _play(self, steps: int) -> None:
        for _ in range(steps):
            self.do(self.rng.choice(("write", "sync", "sync")))

    def do(self, what: str, *names: str) -> None:
        """Do a step, and note it."""
        self.log.append(" ".join((what, *names)))
        getattr(self, what)(*names)

    def write(self, device: str = "") -> None:
        name = device or self.rng.choice(list(self.present))
        index, _ = self.present[name]
        for one in self.rng.sample(IDS, self.rng.randint(1, 3)):
            text = None
            if self.rng.random() < 0.25:
                index.delete([one])
            else:
                text = f"{one} of {name} {len(self.written)}"
                index.put([Document(one, text)])
            version = self._versions(name).get(one)
            if version is not None and (text is None) == version[2]:
                self.written[one, version[0], version[1]] = text

    def sync(self, device: str = "") -> None:
        self.present[device or self.rng.choice(list(self.present))][1].sync_once(attempts=2)

    def copy(self) -> None:
        """Copy the server's database while it runs."""
        self.copies.add("server")
        self.database.copy(self.url, "live")

    def restore(self) -> None:
        """Kill the server, and put the copy in the place of its database."""
        if "server" not in self.copies or self.server is None:
            return
        port = self.server.port
        self.server.kill()
        said = self.rng.random() < 0.5
        self.database.put_back(self.url, said=said)
        self.unsaid += not said
        self.server = Serving(self.url, "--quiet", port=port)

    def save(self) -> None:
        """Copy a device's store, as a backup of the device does."""
        name = self.rng.choice(list(self.present))
        self._close(name)
        for end in ENDS:
            source = self.folder / f"{name}.db{end}"
            if source.exists():
                shutil.copy(source, self.folder / f"{name}.saved{end}")
        self.copies.add(name)
        self._open(name)

    def put_back(self) -> None:
        """Put a device back from its copy."""
        saved = sorted(self.copies & set(self.present))
        if not saved:
            return
        name = self.rng.choice(saved)
        self._close(name)
        for end in ENDS:
            (self.folder / f"{name}.db{end}").unlink(missing_ok=True)
            source = self.folder / f"{name}.saved{end}"
            if source.exists():
                shutil.copy(source, self.folder / f"{name}.db{end}")
        self._open(name)

    def leave(self, device: str) -> None:
        """A device goes away."""
        self._close(device)

    def come_back(self) -> None:
        """All devices are there again."""
        for name in NAMES:
            if name not in self.present:
                self._open(name)

    def answer(self) -> Held:
        """Of each document, the newest version that a present copy holds, before anything is mended."""
        found: Held = {}
        for held in [self._served(), *map(self._versions, self.present)]:
            for name, version in held.items():
                found[name] = max(found.get(name, version), version)
        return found

    def calm(self) -> list[str]:
        """Sync until all agree, and compare; returns what is wrong."""
        expected = self.answer()
        order = list(self.present)
        for _ in range(CALM):
            self.rng.shuffle(order)
            outcomes = {name: self.present[name][1].sync_once() for name in order}
        problems = [
            f"{name} ended with {outcome}" for name, outcome in outcomes.items() if not outcome.done
        ]
        server = _live(self._served())
        for name in self.present:
            problems += self._compare(name, server)
        wanted = _live(expected)
        if server != wanted and not self._given_up(server, wanted):
            problems.append(f"the server has {server}, the newest were {wanted}")
        return problems

    def close(self) -> None:
        for name in list(self.present):
            self._close(name)
        if self.server is not None:
            self.server.kill()

    def _compare(self, name: str, server: Held) -> list[str]:
        index = self.present[name][0]
        here = _live(self._versions(name))
        problems = [f"{name} has {here}, the server {server}"] if here != server else []
        for one, document in index.get(IDS).items():
            stamp, device, _ = here.get(one, (0, "", False))
            text = self.written.get((one, stamp, device))
            if document.text != text:
                problems.append(f"{name}: {one} is {document.text!r}, expected {text!r}")
        if set(index.get(IDS)) != set(here):
            problems.append(f"{name} has documents {set(index.get(IDS))}, versions {set(here)}")
        return problems + [f"{name}: {text}" for text in index.check().problems]

    def _given_up(self, server: Held, wanted: Held) -> bool:
        """Whether letters say of each document that is older than it could be that it was lost.

        That is right only where the server did not believe that it had been restored: without an
        operator's word it believes devices once in a while.
        """
        lost = {
            letter.id
            for _, client in self.present.values()
            for letter in client.dead_letters()
            if letter.reason == "lost"
        }
        different = {name for name in {*server, *wanted} if server.get(name) != wanted.get(name)}
        return self.unsaid > 1 and different <= lost

    def _versions(self, name: str) -> Held:
        return _versions(self.folder / f"{name}.db")

    def _served(self) -> Held:
        rows = self.database.read(self.url).rows
        return {row.id: (row.stamp, row.device, row.deleted) for row in rows}

    def _close(self, name: str) -> None:
        index, client = self.present.pop(name)
        client.close()
        index.close()

    def _open(self, name: str) -> None:
        index = Index.open(self.folder / f"{name}.db", TINY, threads=1)
        self.present[name] = index, SyncClient.open(index)


def _versions(path: Path) -> Held:
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        rows = connection.execute(VERSIONS).fetchall()
    return {name: (stamp, device, bool(deleted)) for name, stamp, device, deleted in rows}


def _live(held: Held) -> Held:
    return {name: version for name, version in held.items() if not version[2]}


def run_schedule(seed: int, folder: Path, database: Database | None = None) -> list[str]:
    """One schedule; returns what is wrong with its end, and with its end when all devices are back.

    Args:
        seed: Which.
        folder: For stores.
        database: Where the server's database is; None for a SQLite file in the folder.
    """
    rollback = Rollback(folder, database or SqliteFiles(folder), random.Random(seed))
    try:
        rollback.begin()
        rollback.disturb()
        problems = [f"seed {seed}: {problem}" for problem in rollback.calm()]
        rollback.come_back()
        problems += [f"seed {seed}, all back: {problem}" for problem in rollback.calm()]
        if problems:
            problems.append(f"seed {seed}: {' '.join(rollback.log)}")
        return problems
    finally:
        rollback.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run schedules; 1 where one ended wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", default="0-9", metavar="N-M")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    args = parser.parse_args(arguments)
    first, _, last = args.seeds.partition("-")
    failed = 0
    with databases(args.database) as database:
        for seed in range(int(first), int(last or first) + 1):
            with tempfile.TemporaryDirectory(prefix=f"emrl_rollback{seed}_") as folder:
                problems = run_schedule(seed, Path(folder), database)
            failed += bool(problems)
            print("\n".join(problems) or f"seed {seed}: ok", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
