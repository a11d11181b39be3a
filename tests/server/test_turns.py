"""Whose turn it is: by counts and order, not by times."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque

import pytest

from edge_mrl_server.http.limits import InFlight, cost_of_json
from edge_mrl_server.http.load.crowd import Crowd
from edge_mrl_server.http.load.turns import (
    HEALTH,
    STRANGERS,
    WRITE,
    Job,
    TooManyError,
    Turns,
    Who,
    limits_for,
)
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.http.threads import Threads

#: A single thread.
ONE = limits_for(1, writers=1)
GREEDY, QUIET = Who("greedy", "d"), Who("quiet", "d")


class FirstComeFirstServed(Turns):
    """As the server had it: whoever asks more often gets more."""

    def __init__(self, limits: object) -> None:
        super().__init__(limits)  # type: ignore[arg-type]
        self._line: deque[Job] = deque()
        self._running = 0

    def add(self, job: Job) -> None:
        self._line.append(job)

    def next(self) -> Job | None:
        if self._running >= self.limits.running or not self._line:
            return None
        self._running += 1
        return self._line.popleft()

    def done(self, _: Job) -> None:
        self._running -= 1


def started(turns: Turns) -> list[Job]:
    """All that may start now."""
    jobs = []
    while (job := turns.next()) is not None:
        jobs.append(job)
    return jobs


def place_of_quiet(turns: Turns, greedy: int) -> int:
    """How many jobs of a greedy tenant end before the only one of another tenant starts."""
    for _ in range(greedy):
        turns.add(Job(GREEDY))
    running = started(turns)
    turns.add(Job(QUIET))
    for count in range(greedy + 1):
        fresh = started(turns)
        if any(job.who == QUIET for job in fresh):
            return count
        running += fresh
        turns.done(running.pop(0))
    raise AssertionError


def test_tenant_with_many_requests_waits_behind_itself_only() -> None:
    assert place_of_quiet(Turns(limits_for(8, writers=6)), 24) == 0
    assert place_of_quiet(Turns(limits_for(1, writers=1)), 24) == 1


def test_the_test_above_finds_a_queue_that_is_not_fair() -> None:
    assert place_of_quiet(FirstComeFirstServed(limits_for(8, writers=6)), 24) == 17


def test_tenants_take_turns_and_their_devices_do() -> None:
    turns = Turns(limits_for(1, writers=1))
    for who in [Who("a", "1")] * 3 + [Who("a", "2")] * 2 + [Who("b", "1")] * 2:
        turns.add(Job(who))
    order = []
    while (job := turns.next()) is not None:
        order.append((job.who.group, job.who.member))
        turns.done(job)
    assert order == [
        ("a", "1"),
        ("b", "1"),
        ("a", "2"),
        ("b", "1"),
        *[("a", "1"), ("a", "2")],
        ("a", "1"),
    ]


def test_each_has_its_part_of_the_threads() -> None:
    turns = Turns(limits_for(8, writers=6))
    for number in range(12):
        turns.add(Job(Who("one", "d")))
        turns.add(Job(Who("many", f"d{number}")))
        turns.add(Job(Who(STRANGERS, f"10.0.0.{number}")))
        turns.add(Job(Who(HEALTH)))
    counts = Counter(job.who.group for job in started(turns))
    # Half for a tenant, and half of that for one device; a quarter for all who have no token.
    assert counts == {"one": 2, "many": 3, STRANGERS: 2, HEALTH: 1}


def test_what_takes_long_leaves_threads_for_the_rest() -> None:
    turns = Turns(limits_for(8, writers=6))
    for tenant in "abcd":
        for device in range(4):
            turns.add(Job(Who(tenant, str(device)), WRITE))
    counts = Counter(job.who.group for job in started(turns))
    assert (max(counts.values()), counts.total()) == (2, 6)
    turns.add(Job(Who("a", "9")))  # it reads, behind all of them
    assert [job.who.member for job in started(turns)] == ["9"]


def test_those_that_wait_are_counted_and_forgotten() -> None:
    turns = Turns(limits_for(1, writers=1))
    running = Job(GREEDY)
    turns.add(running)
    assert turns.next() is running
    jobs = [Job(GREEDY) for _ in range(turns.limits.waiting)]
    for job in jobs:
        turns.add(job)
    with pytest.raises(TooManyError):
        turns.add(Job(GREEDY))
    turns.add(Job(QUIET))
    for job in jobs:
        turns.drop(job)
    turns.done(running)
    assert [job.who for job in started(turns)] == [QUIET]
    assert (turns._waiting, turns._waits, len(turns._counts)) == ({}, {}, 5)


def test_whatever_a_function_raises_is_raised_where_it_is_waited_for() -> None:
    async def run(error: BaseException) -> None:
        def fail() -> None:
            raise error

        threads = Threads(ONE, writes_s=5)
        with pytest.raises(Exception, match=type(error).__name__) as raised:
            await threads.run(fail)
        assert isinstance(raised.value, Exception)
        assert await threads.run(lambda: 7) == 7  # the thread is free again

    errors = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration()]
    for error in (ZeroDivisionError("ZeroDivisionError"), *errors):
        asyncio.run(run(error))


def test_request_that_gives_up_takes_no_turn() -> None:
    async def run() -> None:
        threads, free = Threads(ONE, writes_s=5, start_s=0.05), threading.Event()
        held = asyncio.ensure_future(threads.run(free.wait, who=GREEDY))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="too much is going on") as raised:
            await threads.run(lambda: None, who=QUIET)
        assert (raised.value.status, raised.value.code) == (503, "busy")
        assert raised.value.retry_after_s == 2
        free.set()
        assert await held
        assert await threads.run(lambda: 7, who=QUIET) == 7

    asyncio.run(run())


def test_requests_at_once_are_counted_by_name() -> None:
    crowd = Crowd()
    names = [("device", 2), ("tenant", 3)]
    with crowd.enter(names, what="a device"), crowd.enter(names, what="a device"):
        with pytest.raises(Refusal, match="more than 2 requests of a device") as raised:
            crowd.enter(names, what="a device").__enter__()
        assert (raised.value.status, raised.value.code) == (429, "rate")
        assert raised.value.retry_after_s == 1
        with crowd.enter([("tenant", 3)], what="a tenant"):
            pass
    assert not crowd._counts


def test_tenant_holds_half_of_the_memory_while_others_hold_some() -> None:
    memory = InFlight(100)
    with memory.hold("b") as other, memory.hold("a") as first, memory.hold("a") as second:
        other(10)
        first(40)
        second(10)
        with pytest.raises(Refusal, match="too much"):
            second(1)
        with memory.hold("c") as third:
            third(40)
        with pytest.raises(Refusal, match="too much"):
            other(41)
    assert (memory.bytes, dict(memory._groups)) == (0, {})


def test_what_is_alone_may_be_larger_than_all_that_is_allowed() -> None:
    memory = InFlight(100)
    with memory.hold("a") as first:
        first(1_000)  # else it could never be sent
        with memory.hold("b") as other, pytest.raises(Refusal):
            other(1)


@pytest.mark.parametrize(
    "text",
    ["[" + "{}," * 50_000 + "{}]", "[" + "[]," * 50_000 + "[]]", "[" + "1e9," * 50_000 + "1]"],
)
def test_cost_of_json_is_about_what_it_takes(text: str) -> None:
    import json
    import tracemalloc

    tracemalloc.start()
    value = json.loads(text)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert value
    assert used <= cost_of_json(text.encode()) <= 8 * used
