"""Documents as they are sent: which of them can be, and how long they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_mrl.errors import WireError, reason
from edge_mrl.store import Outgoing, Verdict, replica
from edge_mrl.wire import check_id

if TYPE_CHECKING:
    from edge_mrl.wire import Item

__all__ = ["estimated_bytes", "unsendable", "without_content"]


def without_content(waiting: Sequence[Outgoing]) -> list[Verdict]:
    """Documents that cannot be sent: damaged ones, and those with neither vectors nor text here."""
    damaged = "it is not what was stored: put it again, or delete it"
    return [
        Verdict(one.id, one.stamp, replica.DAMAGED, detail=damaged)
        for one in waiting
        if one.damaged
    ] + [
        Verdict(one.id, one.stamp, replica.NO_VECTORS)
        for one in waiting
        if one.vectors is None and one.document is not None and not one.document.text
    ]


def unsendable(item: Item) -> str:
    """Why a document cannot be written into a message; empty if it can.

    An older version of this program may have stored what is refused now.
    """
    try:
        check_id(item.id)
        json.dumps(dict(item.metadata or {}), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (WireError, TypeError, ValueError, RecursionError) as error:
        return f"it cannot be sent: {reason(error)}"
    return ""


def estimated_bytes(item: Item) -> int:
    """About the bytes of an item in a frame; text may take more where JSON escapes it."""
    size = 64 + 2 * len(item.id.encode()) + item.vectors.nbytes + 14 * len(item.spans)
    if item.text is not None:
        size += len(item.text.encode()) + len(item.text) // 8
    if item.metadata:
        size += len(json.dumps(dict(item.metadata)))
    return size
