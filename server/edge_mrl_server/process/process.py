"""A server process: uvicorn with a time limit for everything, which finishes requests when it stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, multiprocess
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_mrl_server.errors import DatabaseError, UnavailableError
from edge_mrl_server.http import Metrics, Service, create_app, create_operator_app
from edge_mrl_server.logs import LOGGER
from edge_mrl_server.settings import Settings
from edge_mrl_server.storage import Database, open_database

__all__ = ["listen", "serve_devices", "serve_operator"]

KEEP_ALIVE_S = 75
SHUTDOWN_S = 20
BACKLOG = 512
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _protocol(patience_s: float) -> type[H11Protocol]:
    """Uvicorn's HTTP with a time limit for a request's head, which uvicorn lacks for the first request.

    Args:
        patience_s: Seconds for a head, from the connection or from the first byte of a further request.
    """

    class Protocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(patience_s, self._give_up)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._timer is None:
                self._timer = self.loop.call_later(patience_s, self._give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timer = None
            self.transport.close()

    return Protocol


class _Server(uvicorn.Server):
    """Ends by returning: uvicorn raises the signal again, and the process would look killed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {sign: signal.signal(sign, self.handle_exit) for sign in _SIGNALS}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)


def serve_devices(
    settings: Settings, sock: socket.socket, *, max_connections: int = 2_000, check: bool = False
) -> None:
    """Serve the protocol until SIGTERM or SIGINT; then finish the requests that run.

    Args:
        settings: The server's settings.
        sock: A listening socket.
        max_connections: While there are so many connections, further ones get 503.
        check: Read the whole database beside the requests. If it is malformed, all are refused.
    """
    with open_database(settings.database, connections=settings.threads) as database:
        if check:
            threading.Thread(target=_check, args=(database,), daemon=True).start()
        service = Service(database, settings, Metrics())
        try:
            config = _config(
                create_app(service),
                http=_protocol(settings.body_timeout_s),
                limit_concurrency=max_connections,
            )
            _Server(config).run([sock])
        finally:
            service.snapshots.close()


def _check(database: Database) -> None:
    # Whatever is wrong is logged where it is found, and said to every device.
    with suppress(DatabaseError, UnavailableError):
        if database.check():
            LOGGER.info("database checked")


def serve_operator(settings: Settings, sock: socket.socket) -> None:
    """Serve the operator's page until SIGTERM or SIGINT."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    with open_database(settings.database, connections=2) as database:
        config = _config(create_operator_app(database, registry), limit_concurrency=50)
        _Server(config).run([sock])


def _config(app: Any, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        h11_max_incomplete_event_size=16_384,
        **options,
    )


def listen(host: str, port: int, *, patience_s: float = 20.0) -> socket.socket:
    """A listening socket.

    Args:
        host: The address to listen on.
        port: The port; 0 takes a free one.
        patience_s: Seconds after which a connection ends whose other end takes no bytes.

    Raises:
        OSError: The port is taken, or the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP: asyncio turns Nagle's algorithm off for nothing else, and answers would wait 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Closing alone would wait for ever for what was written before to be read (Linux).
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * patience_s))
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.set_inheritable(True)
    return sock
