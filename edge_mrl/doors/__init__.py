"""Doors for other programs: a store for agents, a bundle for clients of OpenAI's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.doors.agents import serve_agents
    from edge_mrl.doors.embeddings import embeddings_app
    from edge_mrl.doors.guard import LOOPBACK, Guard, Guarded
    from edge_mrl.doors.serving import bind, run_app
    from edge_mrl.doors.tools import StoreTools

__all__ = [
    "LOOPBACK",
    "Guard",
    "Guarded",
    "StoreTools",
    "bind",
    "embeddings_app",
    "run_app",
    "serve_agents",
]

__getattr__ = lazily(
    __name__,
    {
        "agents": ("serve_agents",),
        "embeddings": ("embeddings_app",),
        "guard": ("LOOPBACK", "Guard", "Guarded"),
        "serving": ("bind", "run_app"),
        "tools": ("StoreTools",),
    },
)
