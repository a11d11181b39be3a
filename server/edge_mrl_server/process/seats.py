"""Seats: how many connections there may be, in all and of one address, and which one has to leave.

A connection that waits for a request's head, or for another request, costs its owner nothing. So when
all seats are taken, the one that has waited longest makes room for a new one: whoever holds thousands of
them open keeps nobody out. One that is being answered is never ended for another.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice

__all__ = ["Seat", "Seats", "seats_for"]

#: Connections beyond the limit that may still ask: they are told to wait, or that the process is alive.
STANDING = 64
#: Files that a process has open beside its connections: the database's, the log, libraries.
RESERVED_FILES = 160


@dataclass(eq=False, slots=True)
class Seat:
    """A connection's place.

    Attributes:
        address: Where it comes from.
        leave: Ends the connection.
        crowded: Whether it came when all seats were taken by requests that were being answered.
    """

    address: str
    leave: Callable[[], None]
    crowded: bool = False


@dataclass(eq=False)
class Seats:
    """The connections of a process.

    Args:
        most: How many there may be.
        most_of_one: How many of one address.
        is_proxy: Whether an address is a proxy's, which has no limit of its own.
    """

    most: int
    most_of_one: int
    is_proxy: Callable[[str], bool]
    evicted: int = 0
    _all: set[Seat] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)
    _waiting: OrderedDict[Seat, None] = field(default_factory=OrderedDict)
    _waiting_of: dict[str, OrderedDict[Seat, None]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._all)

    def take(self, address: str, leave: Callable[[], None]) -> Seat | None:
        """A seat for a new connection, which waits; None where there is none, standing ones included.

        Args:
            address: Where it comes from.
            leave: Ends it; called when it has to make room.
        """
        most_of_one = self.most if self.is_proxy(address) else self.most_of_one
        own: Mapping[Seat, None] = self._waiting_of.get(address, {})
        free = self._make_place(self._counts[address], most_of_one, own)
        free &= self._make_place(len(self._all), self.most, self._waiting)
        if (
            len(self._all) >= self.most + STANDING
            or self._counts[address] >= most_of_one + STANDING
        ):
            return None
        seat = Seat(address, leave, crowded=not free)
        self._all.add(seat)
        self._counts[address] += 1
        self.waits(seat)
        return seat

    def waits(self, seat: Seat) -> None:
        """It waits for a request from now on."""
        if seat in self._all:
            self._waiting[seat] = None
            self._waiting_of.setdefault(seat.address, OrderedDict())[seat] = None

    def works(self, seat: Seat) -> None:
        """A request of it is being answered."""
        if self._waiting.pop(seat, 0) is None:
            of_address = self._waiting_of[seat.address]
            del of_address[seat]
            if not of_address:
                del self._waiting_of[seat.address]

    def free(self, seat: Seat) -> None:
        """It has ended. May be said twice."""
        if seat in self._all:
            self.works(seat)
            self._all.remove(seat)
            self._counts[seat.address] -= 1
            if not self._counts[seat.address]:
                del self._counts[seat.address]

    def make_room(self, count: int) -> int:
        """End so many of the connections that have waited longest; returns how many there were."""
        seats = list(islice(self._waiting, count))
        for seat in seats:
            self._evict(seat)
        return len(seats)

    def _make_place(self, count: int, most: int, waiting: Mapping[Seat, None]) -> bool:
        """Whether there is a seat, after one that waits may have had to leave."""
        if count < most:
            return True
        longest = next(iter(waiting), None)
        if longest is None or (longest.crowded and count < most + STANDING):
            return False
        self._evict(longest)
        return not longest.crowded

    def _evict(self, seat: Seat) -> None:
        self.free(seat)
        self.evicted += 1
        seat.leave()


def seats_for(wanted: int) -> int:
    """Raise the limit of open files as far as is needed and allowed; returns how many seats that is.

    A connection may have a file open beside it, a snapshot that it is sent.

    Args:
        wanted: How many seats there should be.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * (wanted + STANDING) + RESERVED_FILES
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (ValueError, OSError):  # macOS has a limit of its own below it
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == unlimited:
        return wanted
    return max(1, min(wanted, (soft - RESERVED_FILES) // 2 - STANDING))
