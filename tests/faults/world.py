"""One seed: real devices, a real server, a network that fails, kills, copies; then all is compared."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_mrl import Encoder
from tests.faults import sabotage
from tests.faults.answer import Answer, Copy, make_vectors
from tests.faults.databases import Database, Held
from tests.faults.device import BUNDLE, bundle_of
from tests.faults.machine import Machine, wait_for
from tests.faults.plan import Blow, DevicePlan, Op, Plan, Step
from tests.faults.proxy import FAULTS, Proxy
from tests.faults.report import Report, StuckError
from tests.faults.served import Served

__all__ = ["CONVERGE_S", "World"]

#: Within this time of healing, every queue is empty and all devices agree.
CONVERGE_S = 30.0
#: Longer than any plan takes, with all its faults.
FAULTS_S = 150.0
#: Somewhat longer than devices wait (device.TIMEOUTS).
STALL_S = 0.8
#: A device asks for one where it enrolls, and for another one where it is told to enroll anew.
INVITATIONS = 6
FRESH = "fresh"


class World:
    """All that a seed needs, from its plan to its end.

    Args:
        plan: What happens.
        seed: Of the network's faults.
        database: Where the server's database is.
        folder: For stores.
        broken: How the product is broken on purpose (``sabotage``): a test of the harness.
        faults: What may happen to an exchange.
    """

    def __init__(
        self,
        plan: Plan,
        seed: int,
        database: Database,
        folder: Path,
        *,
        broken: str = "",
        faults: tuple[str, ...] = FAULTS,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.broken = broken
        self._between = bool(broken) and sabotage.SABOTAGES[broken].between
        self.report = Report(seed, database.kind)
        self.answer = Answer(plan.with_text)
        self.kills: Counter[str] = Counter()
        program = sabotage.program(broken)
        url = database.new(f"seed{seed}")
        self.served = Served(database, url, plan.clocks_ns, program, self.kills)
        count = len(plan.devices) + len(plan.clones) + 1
        self._invitations = self.served.invite(INVITATIONS * count)
        for one in plan.devices:
            bundle_of(one.code, self.folder)
        self.devices = [self._machine(n, one) for n, one in enumerate(plan.devices)]
        nothing = DevicePlan((), 0, (0,) * 20, None, False, 1 << 20, 0.0)
        self.fresh = self._machine(count - 1, nothing, FRESH)
        self.proxy = Proxy(
            ("127.0.0.1", 1), seed=seed, rate=plan.rate, stall_s=STALL_S, faults=faults
        )
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
        except StuckError as error:
            self.report.problems.append(str(error))
        finally:
            self._end()
        if not self.report.problems:
            self.report.problems = self.compare()
        self.report.seconds = time.monotonic() - started
        return self.report

    # --- processes

    def _machine(self, number: int, plan: DevicePlan, name: str = "") -> Machine:
        store = self.folder / f"{name or f'device{number}'}.db"
        return Machine(number, plan, store, self._invited(number))

    def _invited(self, number: int) -> tuple[str, ...]:
        return tuple(self._invitations[number * INVITATIONS : (number + 1) * INVITATIONS])

    @property
    def _everyone(self) -> list[Machine]:
        return [*self.devices, self.fresh]

    def _serve(self) -> None:
        self.served.start()
        self.proxy.target = self.served.place

    def _live(self, one: Machine) -> None:
        host, port = self.proxy.target
        one.live(
            direct=f"http://{host}:{port}",
            proxy=self.proxy.url,
            with_text=self.plan.with_text,
            broken=self.broken,
        )

    def _hear(self, one: Machine) -> None:
        """Take all that a device has said."""
        for word in one.words():
            self._take(one, word)

    def _take(self, one: Machine, word: tuple[Any, ...]) -> None:
        if word[0] == "done":
            one.done = word[1] + 1
            for op, last in word[2]:
                self.answer.note(one.number, op, last=last)
        elif word[0] == "enrolled":
            if one.name != word[1]:
                one.names.append(word[1])
        elif word[0] == "java":
            one.java = word[1]
        elif word[0] == "refused":
            self._allow(one, *word[1:])
        elif word[0] == "finished":
            one.finished = True
        elif word[0] == "synced":
            one.synced = word[1:]
        elif word[0] == "bye":
            one.bye = True
        else:
            raise StuckError(f"device {one.number} crashed:\n{word[1]}")

    def _allow(self, one: Machine, said: str, hashes: Sequence[str]) -> None:
        """A device was told to enroll anew: only copies are, and those that a restored server lacks."""
        copies = {machine.original for machine in self.devices} - {None}
        if one.original is not None or one.number in copies:
            # As a copy, or because the other one has renewed the token that both had.
            self.kills["told apart"] += 1
        elif self.served.has_lost(hashes):
            self.kills["enrolled anew"] += 1
        else:
            raise StuckError(f"LOCKED OUT device {one.number}: {said}")

    # --- the time of faults

    def _fail(self, started: float) -> None:
        self._due = [(one.plan.joins_s, "live", one) for one in self.devices]
        self._due += [(blow.at_s, "blow", blow) for blow in self.plan.blows]
        while self._due or not all(one.finished for one in self.devices):
            now = time.monotonic() - started
            if now > FAULTS_S:
                slow = [one.number for one in self.devices if not one.finished]
                raise StuckError(f"after {FAULTS_S} s devices {slow} had not finished; {self._due}")
            ready = [entry for entry in self._due if entry[0] <= now]
            self._due = [entry for entry in self._due if entry[0] > now]
            for _, what, thing in ready:
                self._do(what, thing, now)
            next_s = min((at for at, _, _ in self._due), default=now + 1) - now
            self._listen(min(max(next_s, 0.0), 0.2))

    def _listen(self, timeout_s: float) -> None:
        awaited = any(what == "serve" for _, what, _ in self._due)
        if not awaited and self.served.supervise():
            self.proxy.target = self.served.place
        if not wait_for(self._everyone, timeout_s):
            time.sleep(timeout_s)
        for one in self._everyone:
            self._hear(one)

    def _do(self, what: str, thing: Any, now: float) -> None:
        if what == "live":
            self._live(thing)
        elif what == "serve":
            if self.served.up:
                self._serve()
            else:
                self._due.append((now + 0.1, what, thing))
        elif what == "start":
            self.served.start_database()
        elif self._strike(thing, now):
            self.kills[thing.what] += 1
        else:
            self._due.append((now + 0.2, "blow", thing))

    def _strike(self, blow: Blow, now: float) -> bool:
        """Do what a blow says; False where that has to wait."""
        if blow.what in ("device", "clone"):
            return self._strike_device(blow, now)
        if blow.what == "purge":
            self.answer.purged = True
            self.served.purge()
            return True
        if not all(one.name for one in self.devices):
            return False  # enrollments are not what is tried here
        if blow.what == "database":
            self.served.kill_database()
            self._due.append((now + blow.down_s, "start", None))
        elif blow.what == "server":
            if self.served.running:
                self.served.kill()
                self._due.append((now + blow.down_s, "serve", None))
        else:
            return self._strike_copy(blow, now)
        return True

    def _strike_copy(self, blow: Blow, now: float) -> bool:
        if blow.what != "copy" and self._between and not self._write_between():
            return False
        if not self.served.copy(blow):
            return False
        self.answer.restored |= blow.what != "copy"
        if not self.served.running:
            self._due.append((now, "serve", None))
        return True

    def _strike_device(self, blow: Blow, now: float) -> bool:
        one = self.devices[blow.device] if blow.device < len(self.devices) else None
        if one is None or one.pipe is None or not one.name:  # not there yet, or not enrolled
            return False
        one.kill()
        self._hear(one)
        one.hang_up()
        if blow.what == "clone":
            number = len(self.devices)
            plan = self.plan.clones[number - len(self.plan.devices)]
            copy = one.copy(number, plan, self._invited(number))
            self.answer.fork(one.number, number)
            self.devices.append(copy)
            self._live(copy)
        one.finished = False
        self._due.append((now + blow.down_s, "live", one))
        return True

    def _write_between(self) -> bool:
        """A document is pushed after the database was copied; False while devices have not finished."""
        if not self.kills["copy"] or not all(one.finished for one in self.devices):
            return False
        name = "between"
        if not self.served.has(name):
            writer = next((one for one in self.devices if not one.plan.runner), self.devices[0])
            rate, self.proxy.rate = self.proxy.rate, 0.0
            self._order(writer, Step((Op("put", name, "a letter that the copy lacks"),)))
            self._until(writer, Step(sync=True), lambda: self.served.has(name) == [False])
            self.proxy.rate = rate
        return True

    def _leave_alone(self) -> None:
        """A document is pushed alone, without an answer; then it is deleted, and that forgotten."""
        writers = [one for one in self.devices if not one.plan.runner]
        if not writers:
            return
        one = writers[0]
        other = next(device for device in self.devices if device is not one)
        name, rate = "lonely", self.proxy.rate
        self.proxy.rate = 0.0
        self._until(one, Step(sync=True), lambda: not one.waits())
        self.proxy.deaf = True
        self._order(one, Step((Op("put", name, "a letter in a bottle"),)))
        self._until(one, Step(sync=True), lambda: self.served.has(name) == [False])
        self.proxy.deaf, self.proxy.rate = False, rate
        self._until(other, Step(sync=True), lambda: other.knows(name))
        self._order(other, Step((Op("delete", name),)))
        self._until(other, Step(sync=True), lambda: self.served.has(name) == [True])
        self.served.purge_all()
        self.answer.purged = True
        self.answer.gone.add(name)
        self.kills["lonely"] += 1

    def _until(self, one: Machine, step: Step, done: Callable[[], bool]) -> None:
        """Have a device do something until something is so."""
        deadline = time.monotonic() + CONVERGE_S
        while not done():
            self._in_time(deadline, f"device {one.number} does not get on")
            self._order(one, step)
            self._listen(0.05)

    def _order(self, one: Machine, step: Step) -> None:
        """Have a device that has finished do something, and wait until it is done."""
        one.done = 0
        one.say(step)
        deadline = time.monotonic() + CONVERGE_S
        while not one.done:
            self._in_time(deadline, f"device {one.number} does not answer")
            self._listen(0.05)

    # --- the end

    def _heal(self) -> None:
        self.served.end_purges()
        if self.served.set_clock_right():
            self.proxy.target = self.served.place
        self.proxy.heal()
        started = time.monotonic()
        self._tell_apart(started + CONVERGE_S)
        # First until no queue holds anything; then each pulls what the others sent last.
        for word in (1, 2):
            self._until_in_sync(self.devices, word, started + CONVERGE_S)
        self.report.converge_s = time.monotonic() - started

    def _tell_apart(self, deadline: float) -> None:
        """Copies of a store take turns at syncing until one of them has another name."""
        copies = [one for one in self.devices if one.original is not None]
        for copy in copies:
            original = self.devices[copy.original or 0]
            for one in (original, copy):
                one.say("apart")
            while original.name == copy.name:
                self._in_time(deadline, f"TWO MACHINES {original.number} and {copy.number} as one")
                self._listen(0.1)

    def _bootstrap(self) -> None:
        """A new device has everything after one sync."""
        self._live(self.fresh)
        self._until_in_sync([self.fresh], 1, time.monotonic() + CONVERGE_S)
        for one in self._everyone:
            one.say("stop")
        deadline = time.monotonic() + CONVERGE_S
        while not all(one.bye for one in self._everyone):
            self._in_time(deadline, "devices did not stop")
            self._listen(0.1)

    def _until_in_sync(self, devices: Sequence[Machine], word: int, deadline: float) -> None:
        for one in devices:
            one.say(word)
        while not all(one.synced[:3] == (word, 0, True) for one in devices):
            said = {one.number: one.synced for one in devices}
            self._in_time(deadline, f"NOT IN SYNC {CONVERGE_S} s after healing: {said}")
            self._listen(0.1)

    def _in_time(self, deadline: float, problem: str) -> None:
        if time.monotonic() > deadline:
            raise StuckError(problem)

    def _end(self) -> None:
        for one in self._everyone:
            if one.process is not None:
                if not one.bye:
                    one.process.kill()
                one.process.join(10)
                one.hang_up()
        self.proxy.close()
        self.report.exchanges = self.proxy.exchanges
        self.report.faults = dict(self.proxy.met)
        self.report.problems += self.served.end()
        self.report.kills = dict(self.kills)
        self.report.writes = self.answer.count

    # --- the comparison

    def compare(self) -> list[str]:
        """Every document in every copy, and the server's own, with the model answer."""
        copies = {one.number: self._read(one) for one in self.devices}
        contents, problems = self.answer.contents(copies)
        texts = [content.text for content in contents.values() if content is not None]
        with Encoder.open(BUNDLE, threads=1) as encoder:
            made = make_vectors(encoder, texts)
        self.report.documents = len(texts)
        self.report.deleted = len(contents) - len(texts)
        problems += self.answer.compare_server(self.held(), contents, made)
        for number, copy in copies.items():
            problems += self.answer.compare_copy(copy, number, contents, made)
        return problems + self.answer.compare_copy(self._read(self.fresh), None, contents, made)

    def held(self) -> Held:
        """What is in the server's database, read behind its back."""
        return self.served.held()

    def _read(self, one: Machine) -> Copy:
        name = FRESH if one is self.fresh else f"device {one.number}"
        return Copy.read(one.store, name, one.names, copied=one.copied)
