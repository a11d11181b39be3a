"""Pushing to Qdrant: its own client's local mode behind the REST paths that are used."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import UsageError
from edge_mrl.index import Index
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.targets.qdrant import QdrantTarget, open_target, point_id
from edge_mrl.sync.targets.target import PushBatch
from edge_mrl.sync.transport import Transport
from edge_mrl.wire.clock import now_ms
from edge_mrl.wire.frames import Item
from tests.support.bundles import copy_bundle, keep_codes_as
from tests.support.stores import packing

qdrant = pytest.importorskip("qdrant_client", reason="needs qdrant-client")

SPACE = "5" * 64


class Bridge:
    """A real HTTP server over a Qdrant in memory; it remembers what it was asked."""

    def __init__(self) -> None:
        self.qdrant = qdrant.QdrantClient(":memory:")
        self.asked: list[tuple[str, str, Any]] = []
        self.failing = 0
        self.targets: list[QdrantTarget] = []
        lock, bridge = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                with lock:
                    status, value = bridge.answer(self.command, self.path, body)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = _answer  # noqa: N815 - the names that http.server calls

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        value = json.loads(body) if body else None
        self.asked.append((method, path, value))
        if self.failing:
            self.failing -= 1
            return 503, {"status": {"error": "busy"}}
        models = qdrant.models
        name, _, rest = path.removeprefix("/collections/").partition("/")
        if not rest and method == "GET":
            if not self.qdrant.collection_exists(name):
                return 404, {"status": {"error": "Not found"}}
            return 200, {"result": self.qdrant.get_collection(name).model_dump(mode="json")}
        result: Any = True
        if not rest:
            self.qdrant.create_collection(name, models.VectorParams(**value["vectors"]))
        elif rest == "points?wait=true":
            points = [models.PointStruct(**point) for point in value["points"]]
            older = models.Filter(**value["update_filter"])
            self.qdrant.upsert(name, points, update_filter=older)
            result = {"status": "completed"}
        elif rest == "points/delete?wait=true":
            chosen = models.FilterSelector(filter=models.Filter(**value["filter"]))
            self.qdrant.delete(name, chosen)
            result = {"status": "completed"}
        elif rest == "points/scroll":
            chosen = models.Filter(**value["filter"])
            found, _ = self.qdrant.scroll(name, chosen, limit=value["limit"])
            result = {"points": [point.model_dump(mode="json") for point in found]}
        return 200, {"result": result, "status": "ok"}

    def payloads(self, name: str) -> list[dict[str, Any]]:
        points, _ = self.qdrant.scroll(name, limit=1_000)
        return sorted((p.payload for p in points), key=lambda p: (p["document"], p["position"]))

    def close(self) -> None:
        for target in self.targets:
            target.close()
        self._server.shutdown()
        self._server.server_close()
        self.qdrant.close()


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    opened = Bridge()
    yield opened
    opened.close()


def target(bridge: Bridge, **other: Any) -> QdrantTarget:
    options = {"space_id": SPACE, "dim": 2, "tenant": "t", **other}
    bridge.targets.append(QdrantTarget(Transport(bridge.url, plain=True), "notes", **options))
    return bridge.targets[-1]


def push(some: QdrantTarget, *items: Item) -> None:
    some.push(PushBatch(items, b""))


def item(name: str, stamp: int, n: int = 1, **more: Any) -> Item:
    return Item(name, stamp, np.tile(np.array([0.6, -0.8], np.float16), (n, 1)), **more)


def test_bodies_are_those_that_qdrant_reads(bridge: Bridge) -> None:
    push(target(bridge), item("a", (7 << 16) | 3))
    older = {
        "must": [
            {"key": "tenant", "match": {"value": "t"}},
            {"key": "document", "match": {"value": "a"}},
            {
                "should": [
                    {"key": "version_ms", "range": {"lt": 7}},
                    {
                        "must": [
                            {"key": "version_ms", "range": {"gte": 7, "lte": 7}},
                            {"key": "version_n", "range": {"lt": 3}},
                        ]
                    },
                ]
            },
        ]
    }
    beyond = {"must": [*older["must"], {"key": "position", "range": {"gte": 1}}]}
    (put,) = [value for method, path, value in bridge.asked if path.endswith("points?wait=true")]
    (point,) = put["points"]
    assert point.pop("id") == point_id("t", "a", 0) == "fdc0d222-39f1-5f29-b4b7-bdc5c49679f4"
    payload = {"tenant": "t", "document": "a", "version_ms": 7, "version_n": 3, "space": SPACE}
    vector = [float(np.float16(0.6)), float(np.float16(-0.8))]
    assert point == {"vector": vector, "payload": {**payload, "position": 0}}
    assert put["update_filter"] == {"should": [older]}
    assert bridge.asked[-1] == (
        "POST", "/collections/notes/points/delete?wait=true", {"filter": {"should": [beyond]}},
    )  # fmt: skip


def test_older_versions_change_nothing_and_fewer_passages_leave_none_behind(bridge: Bridge) -> None:
    some = target(bridge)
    push(some, item("a", 5 << 16, n=3), item("b", 5 << 16))
    push(some, item("a", (6 << 16) | 1, n=1), item("a", (6 << 16) | 1, n=1))
    push(some, item("a", 6 << 16, n=2))
    there = bridge.payloads("notes")
    assert [(p["document"], p["version_n"]) for p in there if p["position"] == 0] == [
        ("a", 1),
        ("b", 0),
    ]
    push(some, Item("b", 4 << 16, np.empty((0, 2), np.float16), deleted=True))
    assert "b" in [p["document"] for p in bridge.payloads("notes")]
    push(some, Item("b", 6 << 16, np.empty((0, 2), np.float16), deleted=True))
    assert {p["document"] for p in bridge.payloads("notes")} == {"a"}


def test_collection_of_another_space_or_dimension_is_refused(bridge: Bridge) -> None:
    push(target(bridge), item("a", now_ms() << 16))
    with pytest.raises(UsageError, match="dimensions"):
        push(target(bridge, dim=3))
    with pytest.raises(UsageError, match="6666"):
        push(target(bridge, space_id="6" * 64))


def test_one_point_of_another_space_among_many_is_found(bridge: Bridge) -> None:
    push(target(bridge), *(item(str(n), now_ms() << 16) for n in range(20)))
    other = target(bridge, space_id="6" * 64)
    other._ready = True  # as a client of an earlier version, which looked at one point
    push(other, item("z", now_ms() << 16))
    with pytest.raises(UsageError, match="6666"):
        push(target(bridge))


@pytest.mark.test
@pytest.mark.parametrize("kind", ["int8", "int4", "2bit around a centre"])
def test_store_is_emptied_into_a_collection(kind: str, bridge: Bridge, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    bundle = keep_codes_as(copy_bundle(tmp_path / "bundle"), packing(kind, 16))
    with Index.open(path, bundle) as index:
        assert index.stats().code == kind.split(maxsplit=1)[0]
        index.put([Document(str(n), f"the cat {n}") for n in range(70)])
        with SyncClient.open(index, target=open_target(path, bridge.url, "notes")) as client:
            bridge.failing = 2
            assert client.sync_once().pushed == 70
            index.delete(["3"])
            index.put([Document("4", "a dog", {"n": 1})])
            client.set_with_text(with_text=True)
            assert client.sync_once().done
    there = {p["document"]: p for p in bridge.payloads("notes")}
    assert there.keys() == {str(n) for n in range(70)} - {"3"}
    assert (there["4"]["text"], there["4"]["metadata"]) == ("a dog", {"n": 1})
