"""Random numbers that are the same in every language: SplitMix64 (Steele et al., OOPSLA 2014)."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["splitmix64"]

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / the golden ratio
_MASK = 2**64 - 1


def splitmix64() -> Iterator[int]:
    """The generator's outputs, started at 0: whole numbers below 2**64, without end."""
    state = 0
    while True:
        state = (state + _GOLDEN) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        yield z ^ (z >> 31)
