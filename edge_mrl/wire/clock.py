"""The hybrid logical clock: stamps that follow wall time and never go backwards.

A stamp is 48 bits of milliseconds since 1970 and a 16-bit counter (Kulkarni et al., "Logical Physical
Clocks", OPODIS 2014). So a later change has the larger stamp even between machines whose clocks disagree,
and stamps stay close to wall time. Equal stamps of two devices are ordered by the devices' names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_mrl.errors import WireError

__all__ = [
    "COUNTER_BITS",
    "MAX_AHEAD_MS",
    "MAX_STAMP",
    "Version",
    "format_stamp",
    "latest_stamp",
    "next_stamp",
    "now_ms",
    "parse_stamp",
]

COUNTER_BITS = 16
#: The largest stamp: it fits into a signed 64-bit integer of any database (the year 6429).
MAX_STAMP = 2**63 - 1
#: How far ahead of one's own clock a stamp may be and still count as the time: five minutes, since
#: clocks are corrected to about the time of a round trip.
MAX_AHEAD_MS = 5 * 60_000
_DIGITS = 16
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """The version of a document: when it was last written, and by which device. The larger one wins.

    Attributes:
        stamp: Hybrid logical time: milliseconds << 16 | counter.
        device: The name of the device that wrote it; it decides between equal stamps.
    """

    stamp: int
    device: str


def now_ms() -> int:
    """Wall time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def next_stamp(last: int, *, offset_ms: int = 0, wall: Callable[[], int] = now_ms) -> int:
    """The stamp of a new change: wall time, or one above ``last`` if that is larger.

    Args:
        last: The largest stamp seen so far, of this device or another one.
        offset_ms: Milliseconds to add to this machine's clock, learned from a server.
        wall: The clock: milliseconds since 1970.
    """
    here = max(wall() + offset_ms, 0) << COUNTER_BITS
    return min(max(here, last + 1), MAX_STAMP)


def latest_stamp(*, offset_ms: int = 0, wall: Callable[[], int] = now_ms) -> int:
    """The largest stamp that a right clock may have given by now.

    A clock that follows every stamp it sees is put ahead for good by a single wrong one. So a larger
    stamp counts for its own document only (compare "max offset" of CockroachDB's hybrid clocks).

    Args:
        offset_ms: Milliseconds to add to this machine's clock, learned from a server.
        wall: The clock: milliseconds since 1970.
    """
    return min(max(wall() + offset_ms + MAX_AHEAD_MS, 0) << COUNTER_BITS, MAX_STAMP)


def format_stamp(stamp: int) -> str:
    """The stamp as 16 hex digits, which sort like stamps and are exact in JSON readers with 53 bits."""
    return f"{stamp:016x}"


def parse_stamp(text: object) -> int:
    """Read a stamp from the text that ``format_stamp`` gives.

    Raises:
        WireError: The text is not a stamp.
    """
    if not isinstance(text, str) or len(text) != _DIGITS or not _HEX.issuperset(text):
        raise WireError(f"stamp {text!r:.40}: expected 16 lower-case hex digits")
    stamp = int(text, 16)
    if not 0 < stamp <= MAX_STAMP:
        raise WireError(f"stamp {text}: out of range")
    return stamp
