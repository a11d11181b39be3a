"""Who is told how far an export is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Silent", "Stages"]


class Stages(Protocol):
    """Told what is being done; the command line shows it."""

    def stage(self, name: str, steps: int | None = None) -> None:
        """A new stage begins, of so many steps if that is known."""

    def advance(self) -> None:
        """One step of the stage is done."""


class Silent:
    """Stages that nobody watches."""

    def stage(self, name: str, steps: int | None = None) -> None:
        """Ignore it."""

    def advance(self) -> None:
        """Ignore it."""
