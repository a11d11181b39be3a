"""Progress of an export, for whoever shows it, and what each stage took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from edge_mrl.errors import EdgeMrlError, UsageError, reason
from edge_mrl.machine import memory

__all__ = ["Clock", "Silent", "Stages", "in_one_line"]


class Stages(Protocol):
    """Is told about progress; the command line shows it."""

    def stage(self, name: str, steps: int | None = None) -> None:
        """A new stage begins.

        Args:
            name: What is done, in a few words.
            steps: How many steps it has; None if that is not known.
        """

    def advance(self) -> None:
        """One step of the stage is done."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, steps: int | None = None) -> None:
        """Do nothing."""

    def advance(self) -> None:
        """Do nothing."""


class Clock:
    """Passes stages on, and records the wall time of each."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._starts: list[tuple[str, float]] = []

    def stage(self, name: str, steps: int | None = None) -> None:
        """A new stage begins: it is passed on."""
        self._starts.append((name, time.perf_counter()))
        self._stages.stage(name, steps)

    def advance(self) -> None:
        """One step is done: it is passed on."""
        self._stages.advance()

    @property
    def current(self) -> str:
        """The stage that runs, or the one before the first."""
        return self._starts[-1][0] if self._starts else "start"

    def seconds(self) -> dict[str, float]:
        """Wall time by stage, in seconds, up to now."""
        ends = [start for _, start in self._starts[1:]] + [time.perf_counter()]
        totals: dict[str, float] = {}
        for (name, start), end in zip(self._starts, ends, strict=True):
            totals[name] = totals.get(name, 0.0) + end - start
        return {name: round(seconds, 2) for name, seconds in totals.items()}


@contextmanager
def in_one_line(clock: Clock, model: str) -> Iterator[None]:
    """Name the stage of an error that nobody foresaw: models are other people's files.

    Args:
        clock: Knows the stage.
        model: The model, as it was named.

    Raises:
        UsageError: In place of an error of a library, in one line.
    """
    try:
        yield
    except (EdgeMrlError, OSError):
        raise
    except Exception as error:
        if memory.ran_out(error):
            raise
        raise UsageError(
            f"{model} cannot be exported: {type(error).__name__} at the stage {clock.current!r}: "
            f"{reason(error)}. If the model works elsewhere, please report this"
        ) from error
