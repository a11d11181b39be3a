"""What devices do, and what is done to them, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = ["CODES", "Blow", "DevicePlan", "Op", "Plan", "Step", "in_kotlin", "make_plan"]

WORDS = tuple(
    """
    harbour lantern copper meadow thunder violin glacier pepper orchard compass velvet signal canyon
    ribbon furnace sparrow marble anchor cinnamon tunnel bicycle planet kettle shadow rivers quartz
    ladder pillow engine cactus letter mirror bottle garden winter rocket salmon basket ginger hammer
    island jungle kitten magnet needle oyster pencil rabbit saddle tomato
    """.split()  # noqa: SIM905 - fifty lines otherwise
)
DAY_NS = 86_400 * 10**9
#: Clocks that devices have: right, some minutes off (a server takes five), a day off, either way.
CLOCKS_NS = (0, 0, 240 * 10**9, -600 * 10**9, DAY_NS, DAY_NS, -DAY_NS, -DAY_NS)
#: Clocks that a server has in some of its lives: a month ahead, some minutes off, a day behind.
SERVER_CLOCKS_NS = (30 * DAY_NS, 30 * DAY_NS, 600 * 10**9, -DAY_NS)
#: Share of seeds whose server's clock is wrong for a while.
WRONG_SERVERS = 0.35
KEPT = ("until-synced", "until-synced", None, "fp16", "int8")
#: Share of seeds with a lonely document.
LONELY = 0.3
#: Share of seeds whose server is restored from a copy.
RESTORES = 0.3
#: Share of seeds in which a device's store is copied, with its token, and both go on.
CLONES = 0.3
#: Clocks of copies: behind or ahead of their originals, or right.
CLONE_CLOCKS_NS = (-DAY_NS, -DAY_NS, -600 * 10**9, 0, DAY_NS)
OWN_IDS = 14
SHARED_IDS = 8


@dataclass(frozen=True, slots=True)
class Op:
    """A write: put (text and metadata), meta (metadata alone), delete."""

    kind: Literal["put", "meta", "delete"]
    id: str
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """Writes that are one call, or a sync, or a wait."""

    ops: tuple[Op, ...] = ()
    sync: bool = False
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What one device does.

    Attributes:
        steps: In order; after a kill it goes on with the first that it has not reported.
        enroll_at: The step before which it is enrolled; what it wrote before is queued then.
        clocks_ns: How far its clock is off, for each of its lives in turn.
        keep_full: What its store keeps of full vectors.
        runner: Whether a thread syncs beside the writes, instead of the steps that say so.
        max_queue: Bytes of vectors that may wait; beyond, they are made again.
        joins_s: When it starts.
        code: How its store keeps codes, one of CODES.
        kotlin: Whether it is one in Kotlin.
        trigger: SQL that breaks its store on purpose.
    """

    steps: tuple[Step, ...]
    enroll_at: int
    clocks_ns: tuple[int, ...]
    keep_full: str | None
    runner: bool
    max_queue: int
    joins_s: float
    code: str = "int8"
    kotlin: bool = False
    trigger: str = ""


#: How stores keep codes: int8 most often, of which damage shows best.
CODES = ("int8", "int8", "int4", "2bit", "1bit around a centre")
#: How a database is copied: by ``admin backup`` of a server that was killed, or that runs; or its files
#: as they lie, the log with them.
Copying = Literal["backup", "live", "files"]


@dataclass(frozen=True, slots=True)
class Blow:
    """What happens at a moment; what was killed starts again ``down_s`` later.

    A "device", "server" or "database" is killed; a "purge" forgets tombstones; a "copy" and, behind it, a
    "restore" kill the server, copy its database and put the copy back; "restored" also says so. A "clone"
    kills a device and copies its store: then both go on.
    """

    at_s: float
    what: Literal["device", "server", "database", "purge", "copy", "restore", "restored", "clone"]
    device: int = 0
    down_s: float = 0.0
    how: Copying = "backup"


@dataclass(frozen=True, slots=True)
class Plan:
    """A seed's whole schedule.

    Attributes:
        devices: What each device does.
        clones: What copies of their stores do, in the order in which they are made.
        blows: What is killed, and when tombstones are forgotten.
        rate: Share of exchanges with a fault.
        with_text: Whether text and metadata are sent.
        lonely: Whether there is a document at the end that is pushed alone, without an answer, deleted
            by another device, and its deletion forgotten.
        clocks_ns: How far the server's clock is off, in each of its lives; right from the last one on.
    """

    devices: tuple[DevicePlan, ...]
    blows: tuple[Blow, ...]
    rate: float
    with_text: bool
    lonely: bool = False
    clocks_ns: tuple[int, ...] = (0,)
    clones: tuple[DevicePlan, ...] = ()


def make_plan(seed: int, *, database_dies: bool) -> Plan:
    """The schedule of a seed.

    Args:
        seed: Which.
        database_dies: Whether there is a database process to kill.
    """
    rng = random.Random(seed)
    with_text = rng.random() < 0.5
    count = rng.choice((2, 3, 3))
    devices = [
        _device(rng, number, with_text=with_text, late=number == 2) for number in range(count)
    ]
    blows = [
        Blow(rng.uniform(0.2, 3.0), "device", rng.randrange(count), rng.uniform(0, 0.3))
        for _ in range(rng.randint(1, 4))
    ]
    blows += [
        Blow(rng.uniform(0.3, 2.5), "server", down_s=rng.uniform(0, 0.3))
        for _ in range(rng.randint(1, 2))
    ]
    if database_dies and rng.random() < 0.6:
        blows.append(Blow(rng.uniform(0.3, 2.0), "database", down_s=rng.uniform(0, 0.3)))
    if rng.random() < 0.3:
        blows.append(Blow(rng.uniform(1.0, 3.0), "purge"))
    purged = any(blow.what == "purge" for blow in blows)
    # Chances of their own: without them, a seed's schedule is as it was.
    chance = random.Random(f"extra {seed}")
    lonely, restores = chance.random() < LONELY, chance.random() < RESTORES
    if restores:
        # Nothing may be forgotten before a device comes that knows more, unless that is said.
        said = purged or lonely or chance.random() < 0.5
        copied_s = chance.uniform(0.5, 2.0)
        ways: tuple[Copying, ...] = ("backup", "live", "files")
        blows.append(Blow(copied_s, "copy", how=random.Random(f"copying {seed}").choice(ways)))
        restored_s = copied_s + chance.uniform(0.2, 1.5)
        blows.append(Blow(restored_s, "restored" if said else "restore"))
    codes = random.Random(f"codes {seed}")
    devices = [replace(one, code=codes.choice(CODES)) for one in devices]
    clones, more = _clones(seed, devices, with_text=with_text)
    return Plan(
        tuple(devices),
        tuple(sorted([*blows, *more], key=lambda blow: blow.at_s)),
        rng.uniform(0.25, 0.45),
        with_text,
        lonely,
        (0,) if lonely else _server_clocks(seed),
        clones,
    )


def in_kotlin(plan: Plan, numbers: Collection[int], *, trigger: str = "") -> Plan:
    """The same schedule with some devices in Kotlin, whose client syncs when it is told to.

    Copies of their stores stay in Python: then two languages go on from one store.

    Args:
        plan: The schedule.
        numbers: Which devices.
        trigger: SQL that breaks their stores on purpose.
    """
    devices = [
        replace(one, kotlin=True, runner=False, trigger=trigger) if number in numbers else one
        for number, one in enumerate(plan.devices)
    ]
    return replace(plan, devices=tuple(devices))


def _clones(
    seed: int, devices: Sequence[DevicePlan], *, with_text: bool
) -> tuple[tuple[DevicePlan, ...], list[Blow]]:
    """A copy of a device's store, or none; when it is made, and perhaps killed."""
    chance = random.Random(f"clones {seed}")
    if chance.random() >= CLONES:
        return (), []
    count = len(devices)
    original = chance.randrange(count)
    at_s = chance.uniform(0.4, 2.0)
    plan = _device(chance, count, with_text=with_text, late=False, original=original)
    blows = [Blow(at_s, "clone", original, chance.uniform(0, 0.3))]
    if chance.random() < 0.5:
        blows.append(Blow(at_s + chance.uniform(0.2, 1.0), "device", count, 0.1))
    first = chance.choice(CLONE_CLOCKS_NS)
    like = devices[original]
    plan = replace(
        plan, enroll_at=0, clocks_ns=(first,) * 20, keep_full=like.keep_full, code=like.code
    )
    return (plan,), blows


def _server_clocks(seed: int) -> tuple[int, ...]:
    """Right at first: devices enroll then, and invitations end after a day."""
    chance = random.Random(f"clocks {seed}")
    if chance.random() >= WRONG_SERVERS:
        return (0,)
    return (0, *(chance.choice(SERVER_CLOCKS_NS) for _ in range(chance.choice((1, 2)))), 0)


def _device(
    rng: random.Random, number: int, *, with_text: bool, late: bool, original: int | None = None
) -> DevicePlan:
    writer = _Writer(rng, number, with_text=with_text, original=original)
    runner = rng.random() < 0.4
    steps: list[Step] = []
    while len(steps) < 60:
        kind = rng.random()
        if kind < 0.08:  # offline for a while
            steps += [Step((writer.op(),)) for _ in range(rng.randint(5, 15))]
        elif kind < 0.14:
            steps.append(Step(tuple(writer.burst(rng.randint(10, 40)))))
        elif kind < 0.44:
            steps.append(Step(sync=True))
        elif kind < 0.56:
            steps.append(Step(wait_s=rng.uniform(0.0, 0.1)))
        else:
            steps.append(Step((writer.op(),)))
    first = rng.choice(CLOCKS_NS)
    # A clock is set right, or wrong, only by what ends the process.
    clocks = tuple(first if rng.random() < 0.7 else rng.choice(CLOCKS_NS) for _ in range(20))
    return DevicePlan(
        tuple(steps),
        rng.choice((0, 0, 3, 8)),
        clocks,
        rng.choice(KEPT),
        runner,
        rng.choice((256 << 20, 256 << 20, 1_000)),
        rng.uniform(0.8, 1.6) if late else 0.0,
    )


class _Writer:
    """Draws writes: most to ids that this device alone writes, some to ids that all do.

    A copy of a device's store also writes to the ids of its original.
    """

    def __init__(
        self, rng: random.Random, number: int, *, with_text: bool, original: int | None
    ) -> None:
        self._rng = rng
        self._number = number
        self._with_text = with_text
        self._original = original
        self._count = 0
        self._live: set[str] = set()

    def op(self) -> Op:
        """A write to an id that may be there already."""
        name, shared = self._name()
        kind = self._rng.random()
        if kind < 0.25 and (shared or name in self._live):
            self._live.discard(name)
            return Op("delete", name)
        # Where no text is sent, a device cannot write another's document back with other metadata.
        if kind < 0.4 and (name in self._live) and (not shared or self._with_text):
            return Op("meta", name, metadata=self._metadata())
        return self._put(name)

    def burst(self, size: int) -> list[Op]:
        """Puts of many documents at once."""
        names = [f"d{self._number}/b{self._rng.randrange(60)}" for _ in range(size)]
        return [self._put(name) for name in dict.fromkeys(names)]

    def _name(self) -> tuple[str, bool]:
        if self._rng.random() < 0.3:
            return f"s/{self._rng.randrange(SHARED_IDS)}", True
        if self._original is not None and self._rng.random() < 0.5:
            return f"d{self._original}/{self._rng.randrange(OWN_IDS)}", True
        place = self._rng.randrange(OWN_IDS)
        strange = " é/🙂" if place == 3 else ""
        return f"d{self._number}/{place}{strange}", False

    def _put(self, name: str) -> Op:
        self._live.add(name)
        return Op("put", name, self._text(), self._metadata())

    def _text(self) -> str:
        self._count += 1
        if self._rng.random() < 0.04:
            return ""  # a document without passages
        words = self._rng.choices(WORDS, k=self._rng.choice((3, 6, 12, 40)))
        return f"{' '.join(words)} {self._number} {self._count}"

    def _metadata(self) -> dict[str, Any]:
        self._count += 1
        return {"n": self._count, "of": f"d{self._number}"}
