"""Connections: who gets a seat, who has to leave, and whose address counts."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from edge_mrl_server.http import Proxies, network
from edge_mrl_server.process.seats import STANDING, Seat, Seats


class Hall:
    """Seats, and the names of those who had to leave."""

    def __init__(self, most: int, most_of_one: int = 1_000, proxy: str = "") -> None:
        self.seats = Seats(most, most_of_one, lambda address: address == proxy)
        self.left: list[str] = []

    def come(self, name: str, address: str = "") -> Seat | None:
        return self.seats.take(address or name, lambda: self.left.append(name))


def test_who_has_waited_longest_makes_room() -> None:
    hall = Hall(3)
    first = hall.come("a")
    for name in "bcd":
        hall.come(name)
    assert hall.left == ["a"]
    assert first is not None
    hall.seats.free(first)  # again, when its connection is lost
    assert len(hall.seats) == 3


def test_who_is_being_answered_stays() -> None:
    hall = Hall(2)
    busy = hall.come("busy")
    assert busy is not None
    hall.seats.works(busy)
    for name in "abc":
        seat = hall.come(name)
        assert seat is not None
        assert not seat.crowded
    assert hall.left == ["a", "b"]
    hall.seats.waits(busy)  # behind c now
    hall.come("d")
    assert hall.left == ["a", "b", "c"]


def test_when_all_are_being_answered_some_more_may_ask() -> None:
    hall = Hall(2)
    for name in "ab":
        seat = hall.come(name)
        assert seat is not None
        hall.seats.works(seat)
    standing = [hall.come(f"s{n}") for n in range(STANDING)]
    assert all(seat is not None and seat.crowded for seat in standing)
    for seat in standing:
        assert seat is not None
        hall.seats.works(seat)
    assert hall.come("late") is None
    assert len(hall.seats) == 2 + STANDING


def test_address_with_too_many_makes_room_for_itself() -> None:
    hall = Hall(100, most_of_one=2)
    hall.come("other")
    for n in range(5):
        hall.come(f"n{n}", "one")
    assert hall.left == ["n0", "n1", "n2"]
    assert len(hall.seats) == 3


def test_proxy_has_no_limit_of_its_own() -> None:
    hall = Hall(100, most_of_one=2, proxy="10.0.0.1")
    for n in range(9):
        hall.come(f"n{n}", "10.0.0.1")
    assert hall.left == []


def test_nothing_is_kept_of_those_who_left() -> None:
    hall = Hall(10, most_of_one=3)
    seats = [hall.come(str(n), f"a{n % 5}") for n in range(200)]
    for seat in seats:
        if seat is not None:
            hall.seats.works(seat)
            hall.seats.free(seat)
    inside = hall.seats
    assert (len(inside), inside._counts, inside._waiting, inside._waiting_of) == (0, {}, {}, {})


@pytest.mark.parametrize(("hard", "expected"), [(400, 56), (1_024, 368), (8_192, 1_000)])
def test_files_are_raised_as_far_as_is_allowed(hard: int, expected: int) -> None:
    program = (
        "import resource; from edge_mrl_server.process.seats import seats_for\n"
        "print(seats_for(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, preexec_fn=small
    )
    seats, soft = map(int, done.stdout.split())
    assert (seats, soft) == (expected, min(hard, 2 * (1_000 + STANDING) + 160))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("x" * 200, "x" * 80),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address: str, expected: str) -> None:
    assert network(address) == expected


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ([], "9.9.9.9", ["1.1.1.1"], "9.9.9.9"),
        (["*"], "9.9.9.9", ["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
        (["*"], "9.9.9.9", [], "9.9.9.9"),
        (["*"], "9.9.9.9", ["1.1.1.1, "], "9.9.9.9"),
        (["10.0.0.0/8"], "9.9.9.9", ["1.1.1.1"], "9.9.9.9"),
        (["10.0.0.0/8"], "10.1.1.1", ["1.1.1.1"], "1.1.1.1"),
        # Behind two proxies: the one nearer to the client wrote the entry before.
        (["10.0.0.0/8"], "10.1.1.1", ["6.6.6.6, 1.1.1.1", "10.2.2.2"], "1.1.1.1"),
        (["10.0.0.0/8"], "10.1.1.1", ["10.3.3.3"], "10.3.3.3"),
        (["::1", "127.0.0.1"], "::ffff:127.0.0.1", ["2001:db8::7"], "2001:db8::/64"),
        (["127.0.0.1"], "127.0.0.1", ["'; DROP"], "'; DROP"),
    ],
)
def test_only_what_a_proxy_wrote_is_believed(
    trusted: list[str], peer: str, forwarded: list[str], expected: str
) -> None:
    assert Proxies(trusted).client(peer, forwarded) == expected


def test_what_is_no_address_is_no_proxy() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        Proxies(["proxy.example"])
