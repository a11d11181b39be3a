"""One seed, or some: real devices, a real server, a network that fails, kills; then all is compared.

python -m tests.faults.run --seed 7 --database sqlite
python -m tests.faults.run --seeds 0-99 --database postgresql --json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from edge_mrl import Encoder
from edge_mrl.wire.clock import now_ms
from edge_mrl_server.storage import accounts, open_database
from edge_mrl_server.storage.pushes import purge
from tests.faults import device
from tests.faults.answer import Answer, Copy, make_vectors
from tests.faults.databases import TENANT, Database, Held, PostgresCluster, SqliteFiles
from tests.faults.plan import Blow, DevicePlan, Op, Plan, Step, make_plan
from tests.faults.proxy import Proxy
from tests.support.clock import clock_off
from tests.support.leftovers import MEMORY
from tests.support.postgres import Postgres
from tests.support.processes import COMMAND
from tests.support.serving import Serving

__all__ = ["CONVERGE_S", "Report", "World", "databases", "run_seed"]

BUNDLE = Path(__file__).parent.parent / "golden" / "tiny-bert-16"
#: Within this time of healing, every queue is empty and all devices agree.
CONVERGE_S = 30.0
#: Longer than any plan takes, with all its faults.
FAULTS_S = 150.0
#: Somewhat longer than devices wait (device.TIMEOUTS).
STALL_S = 0.8
#: Shared memory in files of its own: a PostgreSQL that is killed for good leaves nothing behind.
KILLABLE = {"dynamic_shared_memory_type": "mmap"}
#: Bytes that a PostgreSQL with some hundred small databases takes.
ROOM = 3 << 30
#: One for each life of a device: what is lost on the way may spend one.
INVITATIONS = 4
#: The exit code of a server that cannot reach its database when it starts.
EXIT_UNREACHABLE = 4
FRESH = "fresh"
DAY_MS = 86_400_000

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.device"])


@dataclass(slots=True)
class Report:
    """What became of a seed.

    Attributes:
        problems: What is wrong; empty where the harness is satisfied.
        exchanges: Requests that came to the proxy while it failed on purpose.
        faults: Those of them that met a fault, by kind.
        kills: SIGKILLs, by what was killed; purges, and lonely documents.
        writes: Writes that stores acknowledged.
        documents: Documents compared, in each copy.
        converge_s: From healing until all queues were empty and all devices agreed.
        seconds: For everything.
    """

    seed: int
    database: str
    problems: list[str] = field(default_factory=list)
    exchanges: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    writes: int = 0
    documents: int = 0
    deleted: int = 0
    converge_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        """A line, and one for each problem."""
        again = f"python -m tests.faults.run --seed {self.seed} --database {self.database}"
        state = "FAILED" if self.problems else "ok"
        faulty = f"{sum(self.faults.values())} of {self.exchanges} exchanges faulty"
        times = f"converged in {self.converge_s:.1f} s, {self.seconds:.1f} s in all"
        line = (
            f"seed {self.seed} on {self.database}: {state}; {self.writes} writes, {faulty}, "
            f"kills {self.kills}, {times}"
        )
        shown = [f"  {problem}" for problem in self.problems[:30]]
        return "\n".join([line, *shown, *([f"  again: {again}"] if shown else [])])


@dataclass(slots=True)
class _Device:
    """A device as the harness knows it: its process, and how far it is."""

    number: int
    plan: DevicePlan
    store: Path
    process: Any = None
    pipe: Connection | None = None
    lives: int = 0
    done: int = 0
    name: str = ""
    finished: bool = False
    synced: tuple[Any, ...] = ()
    bye: bool = False


class World:
    """All that a seed needs, from its plan to its end.

    Args:
        plan: What happens.
        seed: Of the network's faults.
        database: Where the server's database is.
        folder: For stores.
        forgets: Break the devices on purpose: a test of the harness.
    """

    def __init__(
        self, plan: Plan, seed: int, database: Database, folder: Path, *, forgets: bool = False
    ) -> None:
        self.plan = plan
        self.database = database
        self.folder = folder
        self.forgets = forgets
        self.report = Report(seed, database.kind)
        self.answer = Answer(plan.with_text)
        self.kills: Counter[str] = Counter()
        self.devices = [
            _Device(n, device_plan, folder / f"device{n}.db")
            for n, device_plan in enumerate(plan.devices)
        ]
        nothing = DevicePlan((), 0, (0,) * 20, None, False, 1 << 20, 0.0)
        self.fresh = _Device(len(self.devices), nothing, folder / f"{FRESH}.db")
        self.url = database.new(f"seed{seed}")
        self.invitations = self._make_invitations()
        self.proxy = Proxy(("127.0.0.1", 1), seed=seed, rate=plan.rate, stall_s=STALL_S)
        self.server: Serving | None = None
        self._logs: list[str] = []
        self._database_up = True
        self._lives, self._off_ns, self._clock_right = 0, 0, False
        self._purges: list[subprocess.Popen[bytes]] = []
        #: What is to be done, and when: restarts, beside the plan's blows.
        self._due: list[tuple[float, str, Any]] = []

    def run(self) -> Report:
        """Everything."""
        started = time.monotonic()
        try:
            self._serve()
            self._fail(started)
            if self.plan.lonely:
                self._leave_alone()
            self._heal()
            self._bootstrap()
        except _StuckError as error:
            self.report.problems.append(str(error))
        finally:
            self._end()
        if not self.report.problems:
            self.report.problems = self.compare()
        self.report.seconds = time.monotonic() - started
        return self.report

    # --- processes

    def _make_invitations(self) -> list[str]:
        with open_database(self.url, connections=1) as database, database.write() as transaction:
            accounts.ensure_tenant(transaction, TENANT)
            count = INVITATIONS * (len(self.devices) + 1)
            return [accounts.create_invitation(transaction, TENANT) for _ in range(count)]

    def _serve(self) -> None:
        clocks = self.plan.clocks_ns
        off_ns = 0 if self._clock_right else clocks[min(self._lives, len(clocks) - 1)]
        self._lives += 1
        self._off_ns = off_ns
        self.kills["server's clock"] += bool(off_ns)
        with clock_off(off_ns):
            self.server = Serving(self.url, "--quiet")
        self.proxy.target = ("127.0.0.1", self.server.port)

    def _live(self, one: _Device) -> None:
        """Start a device's next life."""
        here, there = CONTEXT.Pipe()
        host, port = self.proxy.target
        task = device.Task(
            one.store,
            BUNDLE,
            one.plan,
            one.done,
            one.plan.clocks_ns[one.lives],
            f"http://{host}:{port}",
            self.proxy.url,
            tuple(self.invitations[one.number * INVITATIONS : (one.number + 1) * INVITATIONS]),
            self.plan.with_text,
            self.forgets,
        )
        one.process = CONTEXT.Process(target=device.live, args=(there, task), daemon=True)
        one.process.start()
        there.close()
        one.pipe, one.lives = here, one.lives + 1

    def _hear(self, one: _Device) -> None:
        """Take all that a device has said."""
        try:
            while one.pipe is not None and one.pipe.poll():
                self._take(one, one.pipe.recv())
        except (EOFError, OSError):
            self._hang_up(one)

    def _take(self, one: _Device, word: tuple[Any, ...]) -> None:
        if word[0] == "done":
            one.done = word[1] + 1
            for op, last in word[2]:
                self.answer.note(one.number, op, last=last)
        elif word[0] == "enrolled":
            one.name = word[1]
        elif word[0] == "finished":
            one.finished = True
        elif word[0] == "synced":
            one.synced = word[1:]
        elif word[0] == "bye":
            one.bye = True
        else:
            raise _StuckError(f"device {one.number} crashed:\n{word[1]}")

    def _hang_up(self, one: _Device) -> None:
        if one.pipe is not None:
            one.pipe.close()
        one.pipe = None
        one.process.join(5)

    # --- the time of faults

    def _fail(self, started: float) -> None:
        self._due = [(one.plan.joins_s, "live", one) for one in self.devices]
        self._due += [(blow.at_s, "blow", blow) for blow in self.plan.blows]
        while self._due or not all(one.finished for one in self.devices):
            now = time.monotonic() - started
            if now > FAULTS_S:
                slow = [one.number for one in self.devices if not one.finished]
                raise _StuckError(
                    f"after {FAULTS_S} s devices {slow} had not finished; {self._due}"
                )
            ready = [entry for entry in self._due if entry[0] <= now]
            self._due = [entry for entry in self._due if entry[0] > now]
            for _, what, thing in ready:
                self._do(what, thing, now)
            next_s = min((at for at, _, _ in self._due), default=now + 1) - now
            self._listen(min(max(next_s, 0.0), 0.2))

    def _supervise(self) -> None:
        """Start a server again that ended because its database was gone, as a supervisor does."""
        awaited = any(what == "serve" for _, what, _ in self._due)
        if self.server is None or awaited or self.server.process.poll() is None:
            return
        code, log = self.server.stop(), self.server.log()
        if code != EXIT_UNREACHABLE:
            raise _StuckError(f"the server ended with {code}:\n{log[-2000:]}")
        if self._database_up:
            self._logs.append(log)
            self._serve()

    def _listen(self, timeout_s: float) -> None:
        self._supervise()
        devices = [*self.devices, self.fresh]
        pipes = [one.pipe for one in devices if one.pipe is not None]
        if not pipes:
            time.sleep(timeout_s)
            return
        wait(pipes, timeout_s)
        for one in devices:
            self._hear(one)

    def _do(self, what: str, thing: Any, now: float) -> None:
        if what == "live":
            self._live(thing)
        elif what == "serve":
            if self._database_up:
                self._serve()
            else:
                self._due.append((now + 0.1, what, thing))
        elif what == "start":
            self.database.start()
            self._database_up = True
        else:
            self._strike(thing, now)

    def _strike(self, blow: Blow, now: float) -> None:
        if blow.what == "device":
            one = self.devices[blow.device]
            if one.pipe is None or not one.name:  # not there yet, or not enrolled: later
                self._due.append((now + 0.2, "blow", blow))
                return
            one.process.kill()
            one.process.join()
            self._hear(one)
            self._hang_up(one)
            one.finished = False
            self._due.append((now + blow.down_s, "live", one))
        elif blow.what == "purge":
            self._purge()
        elif not all(one.name for one in self.devices):
            self._due.append((now + 0.2, "blow", blow))  # enrollments are not what is tried here
            return
        elif blow.what == "server":
            if self.server is None or self.server.process.poll() is not None:
                return
            self.server.kill()
            self._logs.append(self.server.log())
            self._due.append((now + blow.down_s, "serve", None))
        elif blow.what in ("copy", "restore", "restored"):
            if not self._copy(blow):
                self._due.append((now + 0.2, "blow", blow))
                return
            if self.server is None or self.server.process.poll() is not None:
                self._due.append((now, "serve", None))
        else:
            self.database.kill()
            self._database_up = False
            self._due.append((now + blow.down_s, "start", None))
        self.kills[blow.what] += 1

    def _copy(self, blow: Blow) -> bool:
        """Copy the server's database, or put the copy back; False where that has to wait."""
        early = blow.what != "copy" and not self.kills["copy"]
        running = self.server is not None and self.server.process.poll() is None
        if early or not running or not self._database_up or not self._purges_over():
            return False
        assert self.server is not None
        live = blow.what == "copy" and blow.how == "live" and not self.database.dies
        if not live:
            self.server.kill()
            self._logs.append(self.server.log())
        if blow.what == "copy":
            self.database.copy(self.url, blow.how)
        else:
            self.database.put_back(self.url, said=blow.what == "restored")
        return True

    def _purges_over(self) -> bool:
        return all(process.poll() is not None for process in self._purges)

    def _purge(self) -> None:
        self.answer.purged = True
        command = [*COMMAND, "admin", "purge", TENANT, "--days", "0", "--database", self.url]
        self._purges.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )

    def _leave_alone(self) -> None:
        """A document is pushed alone, without an answer; then it is deleted, and that forgotten."""
        writers = [one for one in self.devices if not one.plan.runner]
        if not writers:
            return
        one = writers[0]
        other = next(device for device in self.devices if device is not one)
        name, rate = "lonely", self.proxy.rate
        self.proxy.rate = 0.0
        self._until(one, Step(sync=True), lambda: not self._waiting(one))
        self.proxy.deaf = True
        self._order(one, Step((Op("put", name, "a letter in a bottle"),)))
        self._until(one, Step(sync=True), lambda: self._served(name) == [False])
        self.proxy.deaf, self.proxy.rate = False, rate
        self._until(other, Step(sync=True), lambda: self._knows(other, name))
        self._order(other, Step((Op("delete", name),)))
        self._until(other, Step(sync=True), lambda: self._served(name) == [True])
        with open_database(self.url, connections=1) as database:
            purge(database, TENANT, before_ms=now_ms() + DAY_MS)
        self.answer.purged = True
        self.answer.gone.add(name)
        self.kills["lonely"] += 1

    def _until(self, one: _Device, step: Step, done: Callable[[], bool]) -> None:
        """Have a device do something until something is so."""
        deadline = time.monotonic() + CONVERGE_S
        while not done():
            self._in_time(deadline, f"device {one.number} does not get on")
            self._order(one, step)
            self._listen(0.05)

    def _order(self, one: _Device, step: Step) -> None:
        """Have a device that has finished do something, and wait until it is done."""
        one.done = 0
        self._say(one, step)
        deadline = time.monotonic() + CONVERGE_S
        while not one.done:
            self._in_time(deadline, f"device {one.number} does not answer")
            self._listen(0.05)

    def _served(self, name: str) -> list[bool]:
        """Whether the server has a document as deleted; empty where it does not know it."""
        return [row.deleted for row in self.held().rows if row.id == name]

    def _knows(self, one: _Device, name: str) -> bool:
        return bool(_select(one.store, "SELECT 1 FROM documents WHERE id = ?", name))

    def _waiting(self, one: _Device) -> bool:
        return bool(_select(one.store, "SELECT 1 FROM outbox LIMIT 1"))

    # --- the end

    def _heal(self) -> None:
        for process in self._purges:
            said = process.communicate()[0].decode()
            if process.returncode not in (0, 4):  # 4: the database was down
                raise _StuckError(f"purge: {said}")
        self.report.exchanges = self.proxy.exchanges
        self.report.faults = dict(self.proxy.met)
        self._set_clock_right()
        self.proxy.heal()
        started = time.monotonic()
        # First until no queue holds anything; then each pulls what the others sent last.
        for word in (1, 2):
            self._until_in_sync(self.devices, word, started + CONVERGE_S)
        self.report.converge_s = time.monotonic() - started

    def _set_clock_right(self) -> None:
        """A server whose clock is wrong is started again with the right one: stamps of then stay."""
        self._clock_right = True
        if self._off_ns and self.server is not None and self.server.process.poll() is None:
            self.server.kill()
            self._logs.append(self.server.log())
            self._serve()

    def _bootstrap(self) -> None:
        """A new device has everything after one sync."""
        self._live(self.fresh)
        self._until_in_sync([self.fresh], 1, time.monotonic() + CONVERGE_S)
        for one in [*self.devices, self.fresh]:
            self._say(one, "stop")
        deadline = time.monotonic() + CONVERGE_S
        while not all(one.bye for one in [*self.devices, self.fresh]):
            self._in_time(deadline, "devices did not stop")
            self._listen(0.1)

    def _until_in_sync(self, devices: list[_Device], word: int, deadline: float) -> None:
        for one in devices:
            self._say(one, word)
        while not all(one.synced[:3] == (word, 0, True) for one in devices):
            said = {one.number: one.synced for one in devices}
            self._in_time(deadline, f"NOT IN SYNC {CONVERGE_S} s after healing: {said}")
            self._listen(0.1)

    def _say(self, one: _Device, word: Any) -> None:
        if one.pipe is None:
            raise _StuckError(f"device {one.number} is gone, exit code {one.process.exitcode}")
        one.pipe.send(word)

    def _in_time(self, deadline: float, problem: str) -> None:
        if time.monotonic() > deadline:
            raise _StuckError(problem)

    def _end(self) -> None:
        for one in [*self.devices, self.fresh]:
            if one.process is not None:
                if not one.bye:
                    one.process.kill()
                one.process.join(10)
                self._hang_up(one)
        for process in self._purges:
            if process.poll() is None:
                process.kill()
                process.communicate()
        self.proxy.close()
        if not self._database_up:
            self.database.start()
            self._database_up = True
        if self.server is not None:
            self.server.stop()
            self._logs.append(self.server.log())
        for log in self._logs:
            if "internal error" in log:
                self.report.problems.append(f"the server failed inside:\n{log[-3000:]}")
        self.report.kills = dict(self.kills)
        self.report.writes = self.answer.count

    # --- the comparison

    def compare(self) -> list[str]:
        """Every document in every copy, and the server's own, with the model answer."""
        copies = {
            one.number: Copy.read(one.store, f"device {one.number}", one.name)
            for one in self.devices
        }
        contents, problems = self.answer.contents(copies)
        texts = [content.text for content in contents.values() if content is not None]
        with Encoder.open(BUNDLE, threads=1) as encoder:
            made = make_vectors(encoder, texts)
        self.report.documents = len(texts)
        self.report.deleted = len(contents) - len(texts)
        problems += self.answer.compare_server(self.held(), contents, made)
        for number, copy in copies.items():
            problems += self.answer.compare_copy(copy, number, contents, made)
        fresh = Copy.read(self.fresh.store, FRESH, self.fresh.name)
        return problems + self.answer.compare_copy(fresh, None, contents, made)

    def held(self) -> Held:
        """What is in the server's database, read behind its back."""
        return self.database.read(self.url)


def _select(store: Path, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Read in a device's store behind its back."""
    with contextlib.closing(sqlite3.connect(store, timeout=10)) as connection:
        return connection.execute(sql, arguments).fetchall()


class _StuckError(Exception):
    """The seed cannot go on; says why."""


def run_seed(seed: int, database: Database, *, forgets: bool = False) -> Report:
    """Run a seed in a folder of its own, which is kept where it fails and EDGE_MRL_KEEP is set."""
    folder = Path(tempfile.mkdtemp(prefix=f"emrl-seed{seed}-", dir=scratch()))
    plan = make_plan(seed, database_dies=database.dies)
    world = World(plan, seed, database, folder, forgets=forgets)
    report = world.run()
    if report.problems and os.environ.get("EDGE_MRL_KEEP"):
        report.problems.append(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def scratch() -> Path:
    """Where files are: in memory where there is room. Processes are killed here, not machines."""
    memory = Path(os.environ.get(MEMORY, "/dev/shm"))
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if roomy else Path(tempfile.gettempdir())


@contextmanager
def cluster(**config: str) -> Iterator[Postgres]:
    """A PostgreSQL of one's own."""
    folder = Path(tempfile.mkdtemp(prefix="emrl-pg-", dir=scratch()))
    folder.chmod(0o711)  # it runs as another user
    postgres = Postgres(folder / "a", config=KILLABLE | config)
    try:
        postgres.create()
        yield postgres
    finally:
        postgres.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def databases(kind: str) -> Iterator[Database]:
    """SQLite files in a temporary folder, or a PostgreSQL started for this."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="emrl-served-", dir=scratch()) as folder:
            yield SqliteFiles(Path(folder))
        return
    with cluster() as postgres:
        yield PostgresCluster(postgres)


def _numbers(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    """Run seeds; 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", "--seeds", type=_numbers, required=True, metavar="N[-M]")
    parser.add_argument("--step", type=int, default=1, metavar="K", help="every Kth of the seeds")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each seed")
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    failed = 0
    with databases(args.database) as database:
        for seed in args.seed[:: args.step]:
            report = run_seed(seed, database)
            failed += bool(report.problems)
            print(json.dumps(asdict(report)) if args.json else report, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
