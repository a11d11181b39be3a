"""Progress of an export, for whoever shows it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Silent", "Stages"]


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
