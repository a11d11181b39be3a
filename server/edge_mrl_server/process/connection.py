"""One connection: uvicorn's HTTP with the limits of time, size and number that it lacks."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_mrl_server.http import malformed_request, network
from edge_mrl_server.process.seats import Seat, Seats

__all__ = ["connection_class"]

#: A request's head may be so long: method, path and headers.
MAX_HEAD_BYTES = 16_384
#: So many bytes of one connection are read before others have their turn.
READ_BYTES = 16_384
#: A chunk costs as much as hundreds of its bytes: behind the first, chunks are so long on average.
FREE_CHUNKS, CHUNK_BYTES = 64, 512


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """A client's connection.

    - A head has some seconds from the connection, or from the first byte of a further request.
    - What was not taken some seconds after an answer's end is thrown away.
    - While it waits, it may have to make room for others (``Seats``).

    Attributes:
        seats: The seats of this process.
        patience_s: How many seconds these are.
    """

    seats: Seats
    patience_s: float
    #: All connections of a process share it: what is in it is handled at once.
    _buffer = bytearray(READ_BYTES)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = _FewChunks(h11.SERVER, MAX_HEAD_BYTES)
        self._timer: asyncio.TimerHandle | None = None
        self._seat: Seat | None = None

    def connection_made(self, transport: Any) -> None:
        """Take a seat, and wait for a head."""
        super().connection_made(transport)
        address = network(self.client[0]) if self.client else ""
        self._seat = self.seats.take(address, transport.abort)
        if self._seat is None:
            transport.abort()
            return
        if self._seat.crowded:
            self.app_state = {**self.app_state, "crowded": True}
        self._start_timer()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's interface
        """Where bytes go that have come."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Some have come."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        super().data_received(data)
        if self._is_busy():
            self._stop_timer()
            self._works()
        elif self._timer is None and not self.transport.is_closing():
            self._start_timer()

    def on_response_complete(self) -> None:
        """Wait again: for the client to take the answer, and for another request."""
        if self._seat is not None:
            self.seats.waits(self._seat)
        if self.transport.get_write_buffer_size():
            self._start_timer()
        super().on_response_complete()
        if self._is_busy():
            self._works()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the seat back."""
        self._stop_timer()
        if self._seat is not None:
            self.seats.free(self._seat)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        """Refuse what is no HTTP, in our words, and end the connection."""
        status, headers, body = malformed_request()
        try:
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # an answer is on its way already
        self.transport.close()
        self._start_timer()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _works(self) -> None:
        if self._seat is not None:
            self.seats.works(self._seat)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.patience_s, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        elif not self._is_waiting_for_more():
            self.transport.close()

    def _is_waiting_for_more(self) -> bool:
        """Whether all of a request was answered and read, and none of the next one has come."""
        return self.timeout_keep_alive_task is not None


class _FewChunks(h11.Connection):
    """Refuses bodies of very many very small chunks."""

    def __init__(self, role: Any, most: int) -> None:
        super().__init__(role, most)
        self._chunks = self._bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._bytes += len(event.data)
            self._chunks += event.chunk_start
            if self._chunks > FREE_CHUNKS + self._bytes // CHUNK_BYTES:
                raise h11.RemoteProtocolError("too many small chunks")
        return event


def connection_class(seats: Seats, patience_s: float) -> type[Connection]:
    """The class of a process's connections.

    Args:
        seats: The process's seats.
        patience_s: See ``Connection``.
    """
    return type("Connection", (Connection,), {"seats": seats, "patience_s": patience_s})
