"""The server's processes: listening, draining, supervising workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_server.process.process import listen, serve_devices, serve_operator
    from edge_mrl_server.process.supervisor import supervise

__all__ = [
    "listen",
    "serve_devices",
    "serve_operator",
    "supervise",
]

__getattr__ = lazily(
    __name__,
    {
        "process": ("listen", "serve_devices", "serve_operator"),
        "supervisor": ("supervise",),
    },
)
