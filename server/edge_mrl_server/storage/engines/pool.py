"""A few connections to PostgreSQL, made when they are needed.

A connection that the server has closed is noticed before it is used again. Where no more can be made, one
that is in use is waited for, shortly. If none is, that is an error at once: devices are told to come
again, and no thread waits for a database that is away.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
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
#: And how long if it has to be one of ours, because PostgreSQL gives no more.
FULL_S = 2.0
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
        self._ours = 0
        self._changed = threading.Condition()
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
            connection = self._obtain()
            try:
                yield connection
                self._commit(connection)
            except BaseException:
                with contextlib.suppress(psycopg.Error):
                    connection.rollback()
                raise
            finally:
                self._give_back(connection)
                with self._changed:
                    self._ours -= 1
                    self._changed.notify_all()
        finally:
            self._free.release()

    def close(self) -> None:
        """Close what is idle now, and the others when they are given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _obtain(self) -> Connection:
        """A connection that is idle, or a new one.

        Where PostgreSQL gives no more (``max_connections``), one of ours comes back in a moment. Where it
        is away, there are none of ours to wait for.
        """
        deadline = time.monotonic() + FULL_S
        with self._changed:
            self._ours += 1  # in use, or about to be
        while True:
            try:
                return self._take() or self._connect()
            except BaseException as error:
                with self._changed:
                    self._ours -= 1
                    self._changed.notify_all()
                    left = deadline - time.monotonic()
                    full = isinstance(error, psycopg.OperationalError) and left > 0
                    if not full or not (self._idle or self._ours):
                        raise
                    if not self._idle:
                        self._changed.wait(left)
                    self._ours += 1

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
