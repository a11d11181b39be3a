"""A few connections to PostgreSQL, made when they are needed.

A connection that the server has closed is noticed before it is used again. One that cannot be made is an
error at once: devices are told to come again, and no thread waits for a database that is away.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import psycopg.conninfo
import psycopg.rows

from edge_mrl_server.errors import UnavailableError

__all__ = ["CONNECT_TIMEOUT_S", "Connection", "Pool"]

#: Rows are dictionaries: columns are named.
Connection = psycopg.Connection[dict[str, Any]]
CONNECT_TIMEOUT_S = 5
#: How long a request waits for another to give its connection back.
WAIT_S = 5.0
#: A network that swallows everything is found out after so long; the address may say otherwise.
DEAD_MS = 10_000


class Pool:
    """Connections to one address. Thread-safe.

    Args:
        url: The address.
        most: How many connections there are at once.
        configure: Called with each new connection.
    """

    def __init__(self, url: str, most: int, configure: Callable[[Connection], None]) -> None:
        self._url = url
        self._configure = configure
        self._free = threading.BoundedSemaphore(most)
        self._idle: deque[Connection] = deque()
        self._closed = False
        self._local = threading.local()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection; what was done with it is committed, or undone after an exception.

        Raises:
            psycopg.OperationalError: No connection can be made.
            UnavailableError: All connections stay in use.
        """
        if not self._free.acquire(timeout=WAIT_S):
            raise UnavailableError("all connections to the database are in use")
        try:
            connection = self._take() or self._connect()
            try:
                yield connection
                self._commit(connection)
            except BaseException:
                with contextlib.suppress(psycopg.Error):
                    connection.rollback()
                raise
            finally:
                self._give_back(connection)
        finally:
            self._free.release()

    def close(self) -> None:
        """Close what is idle now, and the others when they are given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take(self) -> Connection | None:
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not _has_ended(connection):
                    return connection
                connection.close()
        return None

    def _connect(self) -> Connection:
        given = psycopg.conninfo.conninfo_to_dict(self._url)
        more = {"connect_timeout": CONNECT_TIMEOUT_S, "tcp_user_timeout": DEAD_MS}
        options = {name: value for name, value in more.items() if name not in given}
        connection: Connection = psycopg.connect(
            psycopg.conninfo.make_conninfo(self._url, **options), row_factory=psycopg.rows.dict_row
        )
        connection.add_notice_handler(self._notice)
        try:
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _commit(self, connection: Connection) -> None:
        self._local.alone = False
        connection.commit()
        if self._local.alone:
            raise UnavailableError("a synchronous standby did not confirm the commit")

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # Cancelled while it waits for a standby, COMMIT succeeds with a warning: the transaction is on
        # this machine's disk alone, and must not be acknowledged.
        if notice.source_function == "SyncRepWaitForLSN":
            self._local.alone = True

    def _give_back(self, connection: Connection) -> None:
        idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if self._closed or not idle:
            connection.close()
        else:
            self._idle.append(connection)


def _has_ended(connection: Connection) -> bool:
    """Whether the server has closed it: nothing else makes an idle connection readable."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
