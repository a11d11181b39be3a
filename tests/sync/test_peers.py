"""Devices and servers of different ages: each field that came later may be missing.

Between a device and a server stands what takes one field out, of requests and of answers: the device
then talks with a server that does not know it, and the server with a device that does not.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.store import replica
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.link import Link
from edge_mrl.wire import clock, decode_message, digest, encode_message
from tests.support.bundles import TINY
from tests.support.serving import Serving, admin
from tests.sync.conftest import NewCode

pytestmark = pytest.mark.test

PULL, PUSH, SNAPSHOT = "/v1/pull", "/v1/push", "/v1/snapshot/coarse"


@dataclass(frozen=True, slots=True)
class Field:
    """A part of the protocol that was added.

    Attributes:
        headers: Headers of requests, by lower-case name.
        query: Parameters of requests.
        asked: Keys in the JSON of requests, whether a frame has it or not.
        said: Keys in the JSON of answers.
        routes: Where; all if there are none.
    """

    headers: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


FIELDS: dict[str, Field] = {
    "agreement": Field(query=("sums", "groups", "differs"), said=("sum", "sums")),
    "sums of groups": Field(query=("sums", "groups", "differs"), said=("sums",)),
    "offers": Field(said=("offers",)),
    "spaces": Field(
        headers=("edge-mrl-space",),
        said=("space", "code"),
        routes=(PULL, SNAPSHOT, "/v1/enroll"),
    ),
    "space of an enrollment": Field(asked=("space",), said=("space",), routes=("/v1/enroll",)),
    "receipts": Field(asked=("receipt",), said=("receipt",)),
    "copies": Field(headers=("edge-mrl-copy",)),
    "numbered pushes": Field(query=("push",), asked=("push",), said=("refused", "kept")),
    "epochs": Field(
        query=("epoch", "push"), asked=("epoch", "push", "receipt"), said=("epoch", "kept")
    ),
    "fence": Field(query=("fence",), said=("fence",)),
    "nonces": Field(asked=("nonce",)),
    "words of results": Field(said=("reason", "v"), routes=(PUSH,)),
    "lives of tokens": Field(said=("expires_ms", "read_only")),
}


class Between:
    """A server that lacks a field, made of one that has it.

    Attributes:
        taken: How often something was taken out, by name.
    """

    def __init__(self, server: Serving, field: Field) -> None:
        self.taken: Counter[str] = Counter()
        self._field, self._port = field, server.port
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def _answer(self) -> None:
                status, headers, data = between.answer(self)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = _answer  # noqa: N815 - the names that http.server calls

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, asked: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        """Pass a request on, and the answer back."""
        body = asked.rfile.read(int(asked.headers.get("Content-Length", "0")))
        url = urlsplit(asked.path)
        here = not self._field.routes or url.path in self._field.routes
        gone = {"host", "content-length", "connection", "range", "if-match", "if-range"}
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in gone}
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if here:
            headers = self._without(headers, self._field.headers)
            query = self._without(query, self._field.query)
            body = self._changed(body, self._field.asked)
            headers |= {"Content-Digest": digest(body)} if body else {}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        path = f"{url.path}?{urlencode(query)}" if query else url.path
        connection.request(asked.command, path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        kept = {"content-type", "edge-mrl-sequence", "etag", "retry-after"}
        given = {name: v for name, v in answer.getheaders() if name.lower() in kept}
        connection.close()
        if here and answer.status < 300:
            frames = url.path == SNAPSHOT
            data = (self._snapshot if frames else self._changed)(data, self._field.said)
        return answer.status, given | {"Content-Digest": digest(data)}, data

    def _without(self, found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        self.taken.update(name for name in found if name.lower() in names)
        return {name: value for name, value in found.items() if name.lower() not in names}

    def _changed(self, data: bytes, names: tuple[str, ...]) -> bytes:
        """A body without some keys: JSON, or a frame."""
        if not names or not data:
            return data
        if data[:1] == b"{":
            value = self._without(json.loads(data), names)
            if "results" in value:
                value["results"] = [self._without(result, names) for result in value["results"]]
            return json.dumps(value).encode()
        message = decode_message(data)
        return encode_message(self._without(dict(message.header), names), message.vectors)

    def _snapshot(self, data: bytes, names: tuple[str, ...]) -> bytes:
        """A snapshot whose frames lack some keys."""
        parts = []
        while data:
            size = int.from_bytes(data[:4], "little")
            frame = self._changed(data[4 : 4 + size], names)
            parts += [len(frame).to_bytes(4, "little"), frame]
            data = data[4 + size :]
        return b"".join(parts)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def between(server: Serving, field: Field) -> Iterator[Between]:
    found = Between(server, field)
    try:
        yield found
    finally:
        found.close()


def an_hour_ago() -> int:
    return time.time_ns() - 3_600 * 10**9


class Device:
    """A store with its client, behind what takes a field out."""

    def __init__(self, path: Path, url: str, code: str) -> None:
        self.index = Index.open(path, TINY)
        enroll(self.index.store, url, code, name=path.stem, with_text=True)
        self.client = SyncClient.open(self.index)

    def put(self, **texts: str) -> None:
        self.index.put([Document(name, text) for name, text in texts.items()])

    def sync(self) -> None:
        outcome = self.client.sync_once()
        assert outcome.done, outcome
        status = self.client.status()
        assert not status.waiting, status
        assert not status.queue.items, status
        assert {letter.reason for letter in self.client.dead_letters()} <= {"replaced_elsewhere"}

    def renew(self) -> None:
        link = Link(self.index.store, None)
        link.renew(link.follow(), refused=True)
        link.close()

    def forget(self, name: str) -> None:
        """Lose a version, so that the sums differ."""
        with closing(sqlite3.connect(self.index.store.path)) as connection, connection:
            connection.execute("DELETE FROM versions WHERE id = ?", (name,))
            connection.execute("DELETE FROM agreement")

    def texts(self) -> dict[str, str]:
        found = self.index.get(list("abcdef"))
        assert self.index.check().sound
        return {name: document.text for name, document in found.items()}

    def close(self) -> None:
        self.client.close()
        self.index.close()


@pytest.mark.parametrize("name", FIELDS)
def test_peers_of_which_one_does_not_know_a_field_hold_the_same(
    name: str, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    with between(server, FIELDS[name]) as proxy, ExitStack() as stack:
        a = stack.enter_context(closing(Device(tmp_path / "a.db", proxy.url, new_code())))
        a.put(a="one", b="two", c="three")
        a.sync()
        b = stack.enter_context(closing(Device(tmp_path / "b.db", proxy.url, new_code())))
        b.sync()
        assert b.texts() == a.texts() == {"a": "one", "b": "two", "c": "three"}
        a.put(a="another one")
        a.index.delete(["b"])
        with mock.patch.object(clock, "time", SimpleNamespace(time_ns=an_hour_ago)):
            b.put(d="four", c="older")
        a.put(c="newer")
        a.renew()
        for device in (a, b, a, b):
            device.sync()
        assert b.texts() == a.texts() == {"a": "another one", "c": "newer", "d": "four"}
        b.forget("a")
        b.sync()
        assert proxy.taken, "nothing was taken out"


def test_device_whose_claims_no_server_hears_takes_the_servers_state(
    server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    """Of the field "lost": what is named in vain is given up, until its writer comes."""
    with between(server, Field(asked=("lost",))) as proxy, ExitStack() as stack:
        a = stack.enter_context(closing(Device(tmp_path / "a.db", server.url, new_code())))
        b = stack.enter_context(closing(Device(tmp_path / "b.db", proxy.url, new_code())))
        a.put(a="one", b="two")
        for device in (a, b):
            device.sync()
        found = replica.enrollment_of(a.index.store)
        assert found is not None
        with closing(sqlite3.connect(server.database)) as connection, connection:
            for table in ("vectors", "documents"):
                query = f"DELETE FROM {table} WHERE tenant = ? AND id = 'a'"
                connection.execute(query, (found.tenant,))
            connection.execute("DELETE FROM sums WHERE tenant = ?", (found.tenant,))
            # Other tests have the whole database checked.
            query = "UPDATE tenants SET documents = documents - 1, passages = passages - 1"
            connection.execute(f"{query} WHERE tenant = ?", (found.tenant,))
        b.put(c="three")  # with which the server sums up what it has
        for _ in range(2):
            outcome = b.client.sync_once()
        assert proxy.taken["lost"] == 1, (outcome, b.client.dead_letters())
        for device in (a, b, a, b):
            assert device.client.sync_once().done
        assert b.texts() == a.texts() == {"a": "one", "b": "two", "c": "three"}
        assert not b.client.dead_letters()


def test_device_that_does_not_know_of_stamps_brought_back_waits_for_the_time(
    server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    """Of the field "restamped": the server's documents arrive, and nothing is lost."""
    with between(server, Field(said=("restamped",))) as proxy, ExitStack() as stack:
        a = stack.enter_context(closing(Device(tmp_path / "a.db", server.url, new_code())))
        b = stack.enter_context(closing(Device(tmp_path / "b.db", proxy.url, new_code())))
        a.put(a="one", b="two")
        a.sync()
        found = replica.enrollment_of(a.index.store)
        assert found is not None
        with closing(sqlite3.connect(server.database)) as connection, connection:
            query = "UPDATE documents SET stamp = stamp + ? WHERE tenant = ? AND id = 'a'"
            ahead = 30 * 86_400_000 << 16
            connection.execute(query, (ahead, found.tenant))
            query = "UPDATE tenants SET newest = newest + ? WHERE tenant = ?"
            connection.execute(query, (ahead, found.tenant))
            connection.execute("DELETE FROM sums WHERE tenant = ?", (found.tenant,))
        assert admin(server.database, "restamp", found.tenant)["documents"] == 1
        for device in (b, a, b):
            assert device.client.sync_once().done
        assert proxy.taken["restamped"]
        assert b.texts() == a.texts() == {"a": "one", "b": "two"}


def test_missing_cursor_is_noticed(server: Serving, new_code: NewCode, tmp_path: Path) -> None:
    """What the protocol had from the beginning is needed: the way between does take things out."""
    with (
        between(server, Field(said=("cursor",))) as proxy,
        closing(Device(tmp_path / "a.db", proxy.url, new_code())) as a,
    ):
        a.put(a="one")
        outcome = a.client.sync_once()
        assert not outcome.done
        assert "no valid cursor" in str(outcome.waiting)
