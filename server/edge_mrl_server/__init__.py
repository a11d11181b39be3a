"""The server that devices synchronise with, imported as ``edge_mrl_server`` (docs/server.md)."""

from __future__ import annotations

__all__: list[str] = []
