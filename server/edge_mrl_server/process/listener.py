"""Accepting connections: a few at a time, and without spinning where the system has no room."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from edge_mrl_server.logs import LOGGER
from edge_mrl_server.process.seats import Seats

__all__ = ["Listener"]

#: Connections that are accepted before those that are there have their turn.
BATCH = 32
#: Seconds until it is tried again, after the system had no room for a connection.
PAUSE_S = 0.2


class Listener:
    """Accepts the connections of a listening socket.

    Asyncio's own logs thousands of lines a second when files run out, and accepts thousands of
    connections before anything else has its turn.

    Args:
        sock: A listening socket.
        factory: Makes the protocol of a connection.
        seats: Gives up connections that wait, where files run out.
    """

    def __init__(
        self, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol], seats: Seats
    ) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._factory = factory
        self._seats = seats
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._start()

    def close(self) -> None:
        """Accept no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    def _start(self) -> None:
        self._timer = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            connection.settimeout(0)
            task = self._loop.create_task(
                self._loop.connect_accepted_socket(self._factory, connection)
            )
            self._tasks.add(task)
            task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOGGER.warning("connection lost", extra={"fields": {"error": type(error).__name__}})

    def _pause(self, error: OSError) -> None:
        """The system has no file for another connection: those that wait longest give theirs."""
        self._loop.remove_reader(self._sock.fileno())
        self._timer = self._loop.call_later(PAUSE_S, self._start)
        ended = self._seats.make_room(BATCH)
        fields = {"error": error.strerror, "connections": len(self._seats), "ended": ended}
        LOGGER.error("cannot accept connections", extra={"fields": fields})
