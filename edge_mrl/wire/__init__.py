"""What devices and servers agree on: the frames that they exchange, and the clock of versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.wire.agreement import GROUPS, Sums, group_of
    from edge_mrl.wire.clock import (
        COUNTER_BITS,
        MAX_AHEAD_MS,
        Version,
        format_stamp,
        latest_stamp,
        next_stamp,
        now_ms,
        parse_stamp,
    )
    from edge_mrl.wire.frames import (
        CONTENT_TYPE,
        MAX_BODY_BYTES,
        MAX_IDS,
        MAX_ITEMS,
        MAX_PASSAGES,
        PROTOCOL,
        STATUSES,
        Item,
        Message,
        UnreadableItem,
        check_id,
        decode_items,
        decode_message,
        decode_readable_items,
        digest,
        encode_items,
        encode_message,
        matches_digest,
    )
    from edge_mrl.wire.seen import SEEN, seen_headers

__all__ = [
    "CONTENT_TYPE",
    "COUNTER_BITS",
    "GROUPS",
    "MAX_AHEAD_MS",
    "MAX_BODY_BYTES",
    "MAX_IDS",
    "MAX_ITEMS",
    "MAX_PASSAGES",
    "PROTOCOL",
    "SEEN",
    "STATUSES",
    "Item",
    "Message",
    "Sums",
    "UnreadableItem",
    "Version",
    "check_id",
    "decode_items",
    "decode_message",
    "decode_readable_items",
    "digest",
    "encode_items",
    "encode_message",
    "format_stamp",
    "group_of",
    "latest_stamp",
    "matches_digest",
    "next_stamp",
    "now_ms",
    "parse_stamp",
    "seen_headers",
]

__getattr__ = lazily(
    __name__,
    {
        "agreement": ("GROUPS", "Sums", "group_of"),
        "clock": (
            "COUNTER_BITS",
            "MAX_AHEAD_MS",
            "Version",
            "format_stamp",
            "latest_stamp",
            "next_stamp",
            "now_ms",
            "parse_stamp",
        ),
        "frames": (
            "CONTENT_TYPE",
            "MAX_BODY_BYTES",
            "MAX_IDS",
            "MAX_ITEMS",
            "MAX_PASSAGES",
            "PROTOCOL",
            "STATUSES",
            "Item",
            "Message",
            "UnreadableItem",
            "check_id",
            "decode_items",
            "decode_message",
            "decode_readable_items",
            "digest",
            "encode_items",
            "encode_message",
            "matches_digest",
        ),
        "seen": ("SEEN", "seen_headers"),
    },
)
