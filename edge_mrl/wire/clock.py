"""Hybrid logical clocks: versions that follow wall time, and never run backwards.

A version is 48 bits of milliseconds since 1970 and a 16-bit counter (Kulkarni et al., "Logical Physical
Clocks", OPODIS 2014), so that it orders what happened after what, even between machines whose clocks
disagree, and stays near wall time otherwise. Ties between devices are broken by their names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_mrl.errors import WireError

__all__ = ["COUNTER_BITS", "MAX_STAMP", "Version", "format_stamp", "next_stamp", "parse_stamp"]

COUNTER_BITS = 16
#: The largest stamp: it fits into a signed 64-bit integer of any database (the year 6429).
MAX_STAMP = 2**63 - 1
_DIGITS = 16
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """When a document was last written, and by whom; the larger one wins.

    Attributes:
        stamp: Hybrid logical time: milliseconds << 16 | counter.
        device: The device that wrote; compared where stamps are equal.
    """

    stamp: int
    device: str


def now_ms() -> int:
    """Wall time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def next_stamp(last: int, *, offset_ms: int = 0, wall: Callable[[], int] = now_ms) -> int:
    """A stamp above ``last``, at wall time where that is later.

    Args:
        last: The largest stamp seen so far, one's own or another's.
        offset_ms: What is added to this machine's clock, learnt from a server.
        wall: The clock, in milliseconds since 1970.
    """
    here = max(wall() + offset_ms, 0) << COUNTER_BITS
    return min(max(here, last + 1), MAX_STAMP)


def format_stamp(stamp: int) -> str:
    """16 hex digits, which sort as the stamps do and lose nothing in JSON readers of 53 bits."""
    return f"{stamp:016x}"


def parse_stamp(text: object) -> int:
    """Read ``format_stamp``'s text.

    Raises:
        WireError: It is none.
    """
    if not isinstance(text, str) or len(text) != _DIGITS or not _HEX.issuperset(text):
        raise WireError(f"stamp {text!r:.40}: expected 16 lower-case hex digits")
    stamp = int(text, 16)
    if not 0 < stamp <= MAX_STAMP:
        raise WireError(f"stamp {text}: out of range")
    return stamp
