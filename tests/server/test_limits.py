"""Rates and bodies in flight, with a clock of the test's own."""

from __future__ import annotations

import pytest

from edge_mrl_server.http.limits import Buckets, InFlight
from edge_mrl_server.http.refusals import Refusal


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(
    buckets: Buckets, name: str = "a", *, most: int = 1_000, rate: float | None = None
) -> int:
    """How many requests are let through before one is refused."""
    for count in range(most):
        try:
            buckets.take(name, rate=rate)
        except Refusal:
            return count
    return most


def test_some_seconds_worth_may_come_at_once_and_then_the_rate(clock: Clock) -> None:
    buckets = Buckets(10, burst_s=5, clock=clock)
    assert taken(buckets) == 50
    clock.now += 1
    assert taken(buckets) == 10
    clock.now += 1_000
    assert taken(buckets) == 50  # no more than the burst is saved up


def test_refusal_says_when_to_come_again_and_is_right(clock: Clock) -> None:
    buckets = Buckets(0.1, what="knocks", burst_s=1, clock=clock)
    buckets.take("a")
    with pytest.raises(Refusal, match=r"more than 0\.1 knocks a second: wait") as raised:
        buckets.take("a")
    assert (raised.value.status, raised.value.code) == (429, "rate")
    assert raised.value.retry_after_s == 10
    clock.now += 9.9
    assert taken(buckets) == 0
    clock.now += 0.2
    assert taken(buckets) == 1


def test_names_do_not_share_a_bucket_and_may_have_rates_of_their_own(clock: Clock) -> None:
    buckets = Buckets(1, burst_s=5, clock=clock)
    assert (taken(buckets, "a"), taken(buckets, "b")) == (5, 5)
    assert taken(buckets, "c", rate=3) == 15
    clock.now += 1
    assert (taken(buckets, "a"), taken(buckets, "c", rate=3)) == (1, 3)


def test_asking_without_counting_takes_nothing(clock: Clock) -> None:
    buckets = Buckets(1, burst_s=1, clock=clock)
    for _ in range(5):
        buckets.take("a", count=0)
    buckets.take("a")
    with pytest.raises(Refusal):
        buckets.take("a", count=0)


def test_least_recently_used_name_is_forgotten(clock: Clock) -> None:
    buckets = Buckets(1, burst_s=1, most=2, clock=clock)
    buckets.take("a")
    buckets.take("b")
    assert taken(buckets, "a") == 0  # used again: "b" is the oldest now
    buckets.take("c")
    assert (taken(buckets, "a"), taken(buckets, "b")) == (0, 1)


def test_bytes_in_flight_are_given_back_whatever_happens() -> None:
    in_flight = InFlight(100)
    with in_flight.hold() as first:
        first(60)
        first(40)
        with in_flight.hold() as second, pytest.raises(Refusal, match="too much") as raised:
            second(1)
        assert (raised.value.status, raised.value.code) == (503, "busy")
        assert raised.value.retry_after_s == 1
        assert in_flight.bytes == 100
    assert in_flight.bytes == 0
    third = in_flight.hold()
    third.__enter__()(100)
    assert in_flight.bytes == 100
    assert not third.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert in_flight.bytes == 0
