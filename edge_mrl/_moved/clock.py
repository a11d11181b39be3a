"""The former ``edge_mrl.clock``: its names are in ``edge_mrl.wire`` now."""

from __future__ import annotations

from edge_mrl.lazy import moved

__all__: list[str] = []

__getattr__ = moved(
    __name__,
    {"edge_mrl.wire": ("COUNTER_BITS", "Version", "format_stamp", "next_stamp", "parse_stamp")},
)
