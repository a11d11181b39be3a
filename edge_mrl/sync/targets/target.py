"""What a store can be pushed to: a server of edge-mrl, or a vector database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge_mrl.wire import Item

if TYPE_CHECKING:
    from edge_mrl.store import replica

__all__ = ["PushBatch", "PushResult", "PushTarget"]


@dataclass(frozen=True, slots=True, eq=False)
class PushBatch:
    """Documents that are sent together.

    Attributes:
        items: At most 512 documents.
        frame: The same documents as one message of FORMAT.md, "Wire", of at most 1 MiB.
    """

    items: Sequence[Item]
    frame: bytes


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of a push.

    Attributes:
        results: For each document, in order: its status ("applied", "stale", "invalid", "too_large",
            "forbidden" or "clock_ahead"), the stamp of a newer version there, or 0, and words for people,
            if there are any.
        offset_ms: The server's clock minus this machine's.
        refused: In the answer to a push without documents: the ids that the server refused of the earlier
            push with the same number; None if that push did not arrive and never will.
        span: The server's changes that are this push, and nothing else; None where it does not say.
    """

    results: Sequence[tuple[str, int] | tuple[str, int, str]]
    offset_ms: int = 0
    refused: Sequence[str] | None = None
    span: replica.Span | None = None


class PushTarget(Protocol):
    """Where a store's documents are pushed."""

    @property
    def numbered(self) -> bool:
        """Whether it keeps the numbers of pushes (FORMAT.md, "Numbered pushes").

        Such a target can be asked whether a push arrived whose answer was lost.
        """

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received so far."""

    def push(self, batch: PushBatch) -> PushResult:
        """Send documents.

        Raises:
            ServerError: The target refused the push; nothing was stored.
            NetworkError: It is unknown whether anything was stored. The documents are sent again.
        """

    def close(self) -> None:
        """Close the connection."""
