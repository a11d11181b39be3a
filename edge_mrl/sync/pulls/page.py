"""Pages of changes: what is asked for, and what comes."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_mrl.errors import NetworkError
from edge_mrl.sync.answers.fields import is_count
from edge_mrl.wire import Item, Sums, UnreadableItem

if TYPE_CHECKING:
    from edge_mrl.store import replica

__all__ = [
    "ChangePage",
    "UnreadablePageError",
    "outline",
    "prepared",
    "read_number",
    "read_sums",
]


#: Why a document is not here whose page cannot be read with it.
_NOT_READ = "the server's message with this document cannot be read"
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, eq=False)
class ChangePage:
    """Some changes of a tenant's documents.

    Attributes:
        items: The documents, oldest change first.
        unreadable: Documents among them that cannot be read, by version and reason.
        cursor: The last change on this page.
        more: Whether more changes follow.
        fence: The last change among the deletions that the server has forgotten; 0 if it has all.
        epoch: The epoch in which the server counts its changes; a restored server begins a new one.
        kept: The last push of this device that the server had when the epoch began.
        offset_ms: The server's clock minus this machine's.
        offers: The largest stamp of other devices' versions that may be sent; None from an older server.
        sum: The sum of the tenant's live documents (``wire.Sums``), on the last page of the changes; None
            where the server does not say.
        sums: The sums of its groups, where they were asked for.
        restamp: How stamps were brought back that were ahead of the server's clock; None if none were.
    """

    items: Sequence[Item]
    cursor: int
    more: bool
    fence: int
    epoch: str
    kept: int
    offset_ms: int
    unreadable: Sequence[UnreadableItem] = ()
    offers: int | None = None
    sum: int | None = None
    sums: Sums | None = None
    restamp: replica.Restamp | None = None


class UnreadablePageError(NetworkError):
    """A page that is what the server sent, and still cannot be read."""


def read_number(value: object) -> int | None:
    """A number of 16 digits, as far as it is one: what is beside the documents stops no page."""
    if not isinstance(value, str) or len(value) != 16 or not _HEX.issuperset(value):
        return None
    return int(value, 16)


def read_sums(value: object) -> Sums | None:
    """The sums of a page, as far as they are some."""
    if not isinstance(value, str):
        return None
    try:
        return Sums.read(b64decode(value, validate=True))
    except ValueError:
        return None


def outline(page: ChangePage) -> ChangePage:
    """A page that has no more than versions, of documents that cannot be read."""
    unreadable: list[UnreadableItem] = []
    items: list[Item] = []
    for item in page.items:
        if item.deleted:
            items.append(item)
        else:
            unreadable.append(
                UnreadableItem(item.id, item.stamp, item.device, item.deleted, _NOT_READ)
            )
    return replace(page, items=items, unreadable=[*unreadable, *page.unreadable])


def prepared(details: Mapping[str, Any]) -> str:
    """How far a server is with a snapshot, by the details of its refusal."""
    done, whole = details.get("done"), details.get("documents")
    far = f", {done:,} of {whole:,} documents so far" if is_count(done) and is_count(whole) else ""
    return f"the server prepares its documents{far}"
