"""The codes of an encrypted store: read from its database into memory, never written to a file.

Bits of codes tell what texts are about, so they must not be on a disk in the clear. What was read stays
until rows get new numbers; after a commit only its rows are read.
"""

from __future__ import annotations

from edge_mrl.store.codefile.cache import CodeCache
from edge_mrl.store.codefile.state import State

__all__ = ["MemoryCache"]


class MemoryCache(CodeCache):
    """The codes of one open encrypted store. See ``CodeCache``; none of its rows are ever in a file."""

    def heal(self) -> None:
        """Nothing can disagree with the database."""

    def roll(self) -> bool:
        """Write nothing.

        Returns:
            True: no rows wait to be written.
        """
        return True

    def keep_up(self, state: State) -> None:
        """Write nothing."""

    def remove(self) -> None:
        """Forget the codes, because rows got new numbers."""
        self.close()

    def inspect(self, state: State) -> str | None:  # noqa: ARG002 - as ``CodeCache`` has it
        """Nothing is wrong with a file that is not there."""
        return None

    def verify(self, state: State) -> list[str]:  # noqa: ARG002 - as ``CodeCache`` has it
        """Nothing is wrong with a file that is not there."""
        return []
