"""A server process: uvicorn with a time limit for everything, which finishes requests when it stops."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, multiprocess

from edge_mrl_server.errors import DatabaseError, UnavailableError
from edge_mrl_server.http import MAKERS, Metrics, Proxies, Service, create_app, create_operator_app
from edge_mrl_server.logs import LOGGER, report
from edge_mrl_server.process.connection import connection_class
from edge_mrl_server.process.listener import Listener
from edge_mrl_server.process.seats import Seats, seats_for
from edge_mrl_server.settings import Settings
from edge_mrl_server.storage import Database, open_database

__all__ = ["listen", "serve_devices", "serve_operator"]

KEEP_ALIVE_S = 75
SHUTDOWN_S = 20
#: Connections that wait to be accepted: a flood fills the queue within a fraction of a second.
BACKLOG = 4_096
#: Connections to the operator's page.
OPERATOR_CONNECTIONS = 64
#: Tenths of a second between lines that say how many were left out.
REPORT_TICKS = 100
#: Seconds that a thread keeps the interpreter while others wait: so a short request waits less.
SWITCH_S = 0.0005
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """Accepts by ``Listener``, and ends by returning: uvicorn raises the signal again.

    Args:
        config: Uvicorn's.
        seats: The seats of this process.
        patience_s: Seconds for a request's head.
    """

    servers: list[Any]

    def __init__(self, config: uvicorn.Config, seats: Seats, patience_s: float) -> None:
        super().__init__(config)
        self._seats = seats
        self._class = connection_class(seats, patience_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen at the sockets that were given."""
        make = partial(self._class, self.config, self.server_state, {})
        self.servers = [Listener(sock, make, self._seats) for sock in sockets or ()]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Now and then, say how many lines were left out of the log."""
        if counter % REPORT_TICKS == 0:
            report()
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {sign: signal.signal(sign, self.handle_exit) for sign in _SIGNALS}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)


def serve_devices(settings: Settings, sock: socket.socket, *, check: bool = False) -> None:
    """Serve the protocol until SIGTERM or SIGINT; then finish the requests that run.

    Args:
        settings: The server's settings.
        sock: A listening socket.
        check: Read the whole database beside the requests. If it is malformed, all are refused.
    """
    sys.setswitchinterval(SWITCH_S)
    seats = Seats(
        seats_for(settings.connections),
        settings.address_connections,
        Proxies(settings.proxies).trusts,
    )
    with open_database(settings.database, connections=settings.threads + MAKERS) as database:
        if check:
            threading.Thread(target=_check, args=(database,), daemon=True).start()
        service = Service(database, settings, Metrics())
        try:
            config = _config(create_app(service))
            _Server(config, seats, settings.body_timeout_s).run([sock])
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
    seats = Seats(OPERATOR_CONNECTIONS, OPERATOR_CONNECTIONS, lambda _: False)
    with open_database(settings.database, connections=2) as database:
        config = _config(create_operator_app(database, registry))
        _Server(config, seats, settings.body_timeout_s).run([sock])


def _config(app: Any) -> uvicorn.Config:
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
