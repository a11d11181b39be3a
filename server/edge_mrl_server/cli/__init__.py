"""The server's sub-commands: ``edge-mrl serve`` and ``edge-mrl admin``."""

from __future__ import annotations

__all__: list[str] = []
