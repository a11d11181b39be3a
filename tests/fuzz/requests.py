"""What a server reads of requests, by its own handlers: an answer as the description of the routes says,
and nothing taken in that devices cannot take over."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from edge_mrl.bundle import head_id
from edge_mrl.errors import WireError
from edge_mrl.wire import (
    CONTENT_TYPE,
    MAX_ITEMS,
    STATUSES,
    Item,
    decode_items,
    decode_message,
    digest,
    encode_items,
    encode_message,
    matches_digest,
)
from edge_mrl_server.http.app import create_app
from edge_mrl_server.http.metrics import Metrics
from edge_mrl_server.http.openapi import CODES, DESCRIPTION
from edge_mrl_server.http.service import Service
from edge_mrl_server.settings import Settings
from edge_mrl_server.storage import accounts, open_database
from tests.fuzz.reader import Reader
from tests.support.serving import SPACE, units

__all__ = ["REQUESTS"]

T = TypeVar("T")
DIM = 8
#: What stands in files for what every server has another of.
EPOCH, INVITATION = "e" * 16, b"INVITATION"
PREFIX = head_id(None, layer_norm=False)
JSON = "application/json"
OLD = 1 << 40


class Here(Service):
    """A service that works where it is asked, so that limits of time and memory hold for its work."""

    async def work(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a function."""
        del options["who"]
        options.pop("kind", None)
        return function(*arguments, **options)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        method: Its method.
        path: Its path, as the description of the routes has it.
        body: Its body.
        kind: The type of its body.
        query: Its query.
        more: Further headers.
        name: What stands in the path for the part that the description names.
    """

    method: str
    path: str
    body: bytes = b""
    kind: str = CONTENT_TYPE
    query: bytes = b""
    more: Mapping[str, bytes] | None = None
    name: str = ""


class Server:
    """A server's database, copied for each request, so that a file alone says what becomes of it."""

    def __init__(self, scratch: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=scratch))
        self.path = self.folder / "server.db"
        shutil.copyfile(scratch / "seed-server.db", self.path)
        said = json.loads((scratch / "seed-server.json").read_text())
        self.token: str = said["token"]
        self.invitation: str = said["invitation"]
        self._database = open_database(str(self.path))
        settings = Settings(str(self.path), cache=self.folder)
        self._service = Here(self._database, settings, Metrics())
        self._app = create_app(self._service)

    def answer(self, asked: Asked, *, token: bool = True) -> tuple[int, bytes]:
        """Status and body of an answer, both as the description of the routes says."""
        status, headers, body = asyncio.run(self._exchange(asked, token=token))
        said = DESCRIPTION["paths"][asked.path][asked.method.lower()]["responses"]
        assert str(status) in said, (status, body[:200])
        assert status != 500, body[:200]
        assert headers["edge-mrl-sequence"] == "1"
        if status != 206:
            assert matches_digest(body, headers["content-digest"])
        if status >= 400:
            error = json.loads(body)["error"]
            assert error["code"] in CODES[str(status)], error
            assert len(error["message"]) <= 2_000
        return status, body

    async def _exchange(self, asked: Asked, *, token: bool) -> tuple[int, dict[str, str], bytes]:
        headers = {
            "edge-mrl-protocol": b"1",
            "edge-mrl-sequence": b"1",
            "edge-mrl-space": SPACE.encode(),
            "content-type": asked.kind.encode(),
            "content-digest": digest(asked.body).encode(),
            "content-length": str(len(asked.body)).encode(),
            **(asked.more or {}),
        }
        if token:
            headers["authorization"] = f"Bearer {self.token}".encode()
        path = asked.path.replace("{head}", asked.name)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": asked.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": asked.query,
            "root_path": "",
            "headers": [(name.encode(), value) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        sent: list[Any] = []
        bodies = [{"type": "http.request", "body": asked.body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not bodies:  # whoever listens for the end of the connection
                await asyncio.Event().wait()
            return bodies.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start, *parts = sent
        named = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], named, b"".join(part.get("body", b"") for part in parts)

    def require_takeable(self) -> None:
        """Every document that is here can be read by every device, and is found."""
        for query in (b"vectors=full&text=1", b"vectors=none", _CODE):
            asked = Asked("GET", "/v1/pull", query=b"since=0&limit=512&" + query)
            status, body = self.answer(asked)
            assert status == 200
            message = decode_message(body)
            items = decode_items(message, most=2 * MAX_ITEMS)
            assert all(item.problem is None for item in items)
            again = encode_items({}, items, like=message.vectors[:0])
            assert len(decode_items(decode_message(again), most=2 * MAX_ITEMS)) == len(items)
        found = encode_message({"k": 1000, "text": True}, units(1))
        status, body = self.answer(Asked("POST", "/v1/search", found))
        assert status == 200
        assert all(-1.01 <= hit["score"] <= 1.01 for hit in json.loads(body)["hits"])

    def close(self) -> None:
        self._service.snapshots.close()
        self._database.close()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_CODE = f"vectors=coarse&head={PREFIX}&dim=4&scale=1".encode()


def prepare(scratch: Path) -> None:
    """A database with a tenant, a device, two documents, and an invitation that was not used."""
    path = scratch / "seed-server.db"
    with open_database(str(path)) as database, database.write() as transaction:
        accounts.create_tenant(transaction, "t")
        used, invitation = (accounts.create_invitation(transaction, "t") for _ in range(2))
        made = accounts.enroll(transaction, used, "seed", nonce=None, space_id=None)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tenants SET epoch = ?", (EPOCH,))
    (scratch / "seed-server.json").write_text(
        json.dumps({"token": made.token, "invitation": invitation})
    )
    with Server(scratch) as server:
        assert server.answer(Asked("POST", "/v1/push", _documents()))[0] == 200
        with closing(sqlite3.connect(server.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copyfile(server.path, path)


def _documents() -> bytes:
    text, unit = "one note and more", units(2)
    items = [
        Item("a", OLD, unit, text=text, spans=[(0, 4), (4, 17)], metadata={"n": 1, "l": ["x"]}),
        Item("b", OLD + 1, unit[:0], deleted=True),
        Item("c", OLD + 2, unit[:1]),
    ]
    header = {"cursor": 0, "epoch": EPOCH, "push": 1, "receipt": ""}
    return encode_items(header, items, like=unit[:0])


def push_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    unit = units(1, seed=1)
    lost = [{"id": "z", "v": f"{OLD:016x}", "by": "d"}]
    asked = {"cursor": 0, "epoch": EPOCH, "push": 2, "lost": lost}
    offered = [Item("a", OLD + 5, unit, device="another"), Item("d", OLD + 6, unit, text="")]
    return [
        _documents(),
        encode_items({"cursor": 1, "push": 3}, offered[:1], like=unit),
        encode_items(asked, [], like=unit[:0]),
    ]


def read_push(data: bytes, scratch: Path) -> None:
    with Server(scratch) as server:
        status, body = server.answer(Asked("POST", "/v1/push", data))
        if status != 200:
            return
        results = json.loads(body)["results"]
        assert len(results) == len(decode_message(data).header["items"])
        assert {result["status"] for result in results} <= set(STATUSES)
        server.require_takeable()


def query_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    vector = units(1)
    return [
        encode_message({"ids": ["a", "c", "z"], "k": 3, "text": True}, vector),
        encode_message({"ids": [], "k": 1}, vector.astype(np.float32)),
    ]


def read_query(data: bytes, scratch: Path) -> None:
    with Server(scratch) as server:
        status, body = server.answer(Asked("POST", "/v1/rerank", data))
        if status == 200:
            answer = json.loads(body)
            ids = decode_message(data).header["ids"]
            assert len(answer["scores"]) == len(ids)
            assert set(answer["missing"]) <= set(ids)
        status, body = server.answer(Asked("POST", "/v1/search", data))
        if status == 200:
            assert len(json.loads(body)["hits"]) <= decode_message(data).header.get("k", 10)


def matrix_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    matrix = np.random.default_rng(0).standard_normal((DIM, 4)).astype(np.float32)
    return [
        encode_message({"layer_norm": norm}, values)
        for norm, values in ((False, matrix), (True, matrix[:, :2]))
    ]


def read_matrix(data: bytes, scratch: Path) -> None:
    name = "0" * 64
    try:
        message = decode_message(data)
        if message.vectors.dtype == np.float32:
            name = head_id(message.vectors, layer_norm=bool(message.header.get("layer_norm")))
    except WireError:
        pass
    with Server(scratch) as server:
        asked = Asked("PUT", "/v1/heads/{head}", data, name=name)
        status, _ = server.answer(asked)
        if status != 201:
            return
        assert server.answer(asked)[0] == 200
        code = f"since=0&vectors=coarse&head={name}&dim=1&scale=1".encode()
        status, _ = server.answer(Asked("GET", "/v1/pull", query=code))
        assert status == (200 if len(message.vectors) == DIM else 400)


def enroll_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    asked = {"code": INVITATION.decode(), "name": "x"}
    return [
        json.dumps(one).encode() for one in (asked, {**asked, "nonce": "0" * 32, "space": SPACE})
    ]


def read_enroll(data: bytes, scratch: Path) -> None:
    with Server(scratch) as server:
        body = data.replace(INVITATION, server.invitation.encode())
        asked = Asked("POST", "/v1/enroll", body, JSON)
        status, got = server.answer(asked, token=False)
        if status == 200:
            server.token = json.loads(got)["token"]
            server.require_takeable()


def token_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    return [json.dumps({"nonce": "0" * 32}).encode(), b"{}"]


def read_token(data: bytes, scratch: Path) -> None:
    with Server(scratch) as server:
        status, got = server.answer(Asked("POST", "/v1/token", data, JSON))
        if status == 200:
            server.token = json.loads(got)["token"]
            server.require_takeable()


def address_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    more = f"&text=1&fence=0&epoch={EPOCH}&push=0&groups=1,5&differs=1&sums=1".encode()
    mark = b"0123456789abcdef"
    return [
        b"since=0&limit=5&" + _CODE + more + b"\n" + mark,
        b"since=1&vectors=full\n" + mark + b"-" + mark[::-1],
        b"since=0&" + _CODE + b"&stored=int4&step=1.5&centre=AAAAAA\n",
    ]


def read_address(data: bytes, scratch: Path) -> None:
    """The query of a pull and a snapshot; what stands behind a line feed is the marks of a copy."""
    query, _, marks = data.partition(b"\n")
    more = {"edge-mrl-copy": marks} if marks else {}
    asked = Asked("GET", "/v1/pull", query=query, more=more)
    with Server(scratch) as server:
        status, body = server.answer(asked)
        if status == 200:
            decode_items(decode_message(body), most=2 * MAX_ITEMS)
        server.answer(replace(asked, path="/v1/snapshot/coarse"))
        server.answer(replace(asked, path="/v1/snapshot/coarse", more={"range": data[:1000]}))


_reader: Callable[..., Reader] = partial(Reader, allowed=(), cost=20)
REQUESTS: dict[str, Reader] = {
    "push": _reader(push_seeds, read_push),
    "query": _reader(query_seeds, read_query),
    "matrix": _reader(matrix_seeds, read_matrix),
    "enroll": _reader(enroll_seeds, read_enroll),
    "token": _reader(token_seeds, read_token),
    "address": _reader(address_seeds, read_address),
}
