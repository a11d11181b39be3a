"""Listening, and ending in order: requests that run are finished first."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from edge_mrl.errors import NetworkError

__all__ = ["Bound", "bind", "run_app"]

#: Connections at once. An embedding takes all cores, so more would only wait.
CONNECTIONS = 128
BACKLOG = 128
KEEP_ALIVE_S = 75
SHUTDOWN_S = 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Bound:
    """A listening socket.

    Attributes:
        socket: The socket.
        url: Where it listens.
    """

    socket: socket.socket
    url: str


def bind(host: str, port: int) -> Bound:
    """Listen at an address of this machine; port 0 takes a free one.

    Raises:
        NetworkError: The port is taken, or the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP: asyncio turns Nagle's algorithm off for nothing else, and answers would wait 40 ms.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        reason = error.strerror or error
        raise NetworkError(f"cannot listen at {host}, port {port}: {reason}") from error
    except BaseException:
        opened.close()
        raise
    named = f"[{host}]" if ":" in host else host
    return Bound(opened, f"http://{named}:{opened.getsockname()[1]}")


class _Server(uvicorn.Server):
    """Ends by returning; uvicorn's own raises the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {sign: signal.signal(sign, self.handle_exit) for sign in _SIGNALS}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)


def run_app(app: Any, at: Bound, *, lifespan: bool = False) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT; requests that run then have 20 s to end.

    Args:
        app: The application.
        at: The listening socket; closed at the end.
        lifespan: Whether the application has a start and an end of its own.
    """
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="on" if lifespan else "off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    with at.socket:
        _Server(config).run([at.socket])
