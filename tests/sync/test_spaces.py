"""Vectors of one embedding space never enter a store of another, whatever the server and the order."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.bundle import read_manifest
from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError, ServerError
from edge_mrl.index import Index
from edge_mrl.store import check, replica
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import credentials_path
from edge_mrl.sync.enrollment import enroll, move
from edge_mrl.wire import decode_message, digest, encode_message
from tests.support.bundles import TINY, TINY_STATIC
from tests.support.serving import Serving, admin
from tests.sync.conftest import NewCode

pytestmark = pytest.mark.test

KEPT = (None, "until-synced", "fp16", "int8")


class OldServer:
    """What stands before a server and makes it one that does not compare spaces when it is pulled from.

    Attributes:
        sabotage: Let the answer to a rerank through as if the spaces were equal.
    """

    def __init__(self, server: Serving) -> None:
        self.sabotage = False
        old = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, headers, data = old.answer(server, self, body)
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

    def answer(
        self, server: Serving, asked: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        pulls = asked.path.startswith("/v1/pull")
        left_out = {"host", "content-length", "connection"}
        if pulls or asked.path.startswith("/v1/snapshot"):
            left_out.add("edge-mrl-space")
        headers = {name: v for name, v in asked.headers.items() if name.lower() not in left_out}
        if asked.path.startswith("/v1/snapshot"):
            return 501, {"Edge-MRL-Sequence": headers["Edge-MRL-Sequence"]} | _digest(b""), b""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request(asked.command, asked.path, body or None, headers)
        answer = connection.getresponse()
        data, status = answer.read(), answer.status
        kept = {"content-type", "edge-mrl-sequence"}
        given = {name: v for name, v in answer.getheaders() if name.lower() in kept}
        connection.close()
        if pulls and status == 200:
            message = decode_message(data)
            before = {"space", "code", "receipt"}
            header = {key: v for key, v in message.header.items() if key not in before}
            data = encode_message(header, message.vectors)
        if self.sabotage and asked.path == "/v1/rerank":
            data, status = b'{"scores":[],"missing":[]}', 200
        return status, given | _digest(data), data

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _digest(data: bytes) -> dict[str, str]:
    return {"Content-Digest": digest(data)}


@pytest.fixture
def old(server: Serving) -> Iterator[OldServer]:
    found = OldServer(server)
    yield found
    found.close()


def fill(path: Path, bundle: Path, *texts: str, **options: Any) -> None:
    with Index.open(path, bundle, **options) as index:
        index.put([Document(f"{path.stem}{n}", text) for n, text in enumerate(texts)])


def join(path: Path, server: str, code: str, **options: Any) -> None:
    with Index.open(path) as index:
        enroll(index.store, server, code, **options)


def sync(path: Path) -> Any:
    with SyncClient.open(path) as client:
        return client.sync_once()


def documents(path: Path) -> set[str]:
    with Index.open(path) as index, index.store.locked() as (connection, _):
        return {name for (name,) in connection.execute("SELECT id FROM documents")}


def test_models_of_these_tests_have_equal_dimensions_and_other_spaces() -> None:
    one, other = read_manifest(TINY), read_manifest(TINY_STATIC)
    assert (one.dim, one.full_dim) == (other.dim, other.full_dim)
    assert one.space_id != other.space_id


def test_enrollment_with_a_tenant_of_another_space_is_refused_and_spends_nothing(
    server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    fill(tmp_path / "a.db", TINY_STATIC, "the cat sat on the mat", "tax forms")
    join(tmp_path / "a.db", server.url, new_code())
    assert sync(tmp_path / "a.db").pushed == 2
    fill(tmp_path / "b.db", TINY)
    code = new_code()
    with pytest.raises(ServerError, match="another model") as raised:
        join(tmp_path / "b.db", server.url, code)
    ids = (read_manifest(TINY).space_id, read_manifest(TINY_STATIC).space_id)
    assert all(name in str(raised.value) for name in ids)  # whole: nothing of the text is cut
    assert "an invitation to another tenant" in str(raised.value)
    assert not credentials_path(tmp_path / "b.db").exists()
    fill(tmp_path / "c.db", TINY_STATIC)
    join(tmp_path / "c.db", server.url, code)  # it is still good for a device of the right model
    assert sync(tmp_path / "c.db").pulled == 2


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("own", [(), ("a note of its own",)])
def test_device_that_came_first_to_an_empty_tenant_takes_nothing_of_another_space(
    kept: str | None, own: tuple[str, ...], server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    fill(tmp_path / "b.db", TINY, *own, keep_full=kept)
    join(tmp_path / "b.db", server.url, new_code())
    fill(tmp_path / "a.db", TINY_STATIC, "the cat sat on the mat", "tax forms")
    join(tmp_path / "a.db", server.url, new_code(), with_text=True)
    assert sync(tmp_path / "a.db").pushed == 2
    before = documents(tmp_path / "b.db")
    for _ in range(2):
        outcome = sync(tmp_path / "b.db")
        assert outcome.cause == "refused"
        assert read_manifest(TINY_STATIC).space_id in str(outcome.waiting)
        assert (outcome.pushed, outcome.pulled) == (0, 0)
    assert documents(tmp_path / "b.db") == before
    with Index.open(tmp_path / "b.db") as index:
        assert replica.queue_of(index.store).items == len(own)
        assert check(index.store).sound


@pytest.mark.parametrize("kept", [None, "fp16"])
def test_client_compares_spaces_itself_where_the_server_does_not(
    kept: str | None, old: OldServer, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    fill(tmp_path / "b.db", TINY, keep_full=kept)
    join(tmp_path / "b.db", server.url, new_code())
    fill(tmp_path / "a.db", TINY_STATIC, "the cat sat on the mat", "tax forms")
    join(tmp_path / "a.db", server.url, new_code())
    sync(tmp_path / "a.db")
    with Index.open(tmp_path / "b.db") as index:
        move(index.store, server=old.url)
    outcome = sync(tmp_path / "b.db")
    assert outcome.cause == "refused"
    assert "another model" in str(outcome.waiting)
    assert documents(tmp_path / "b.db") == set()
    # A device of the right space goes on with such a server.
    fill(tmp_path / "c.db", TINY_STATIC)
    join(tmp_path / "c.db", server.url, new_code())
    with Index.open(tmp_path / "c.db") as index:
        move(index.store, server=old.url)
    assert sync(tmp_path / "c.db").pulled == 2
    # These tests can fail: where nobody compares, both spaces are in one store.
    old.sabotage = True
    assert sync(tmp_path / "b.db").pulled == 2
    old.sabotage = False
    # What was mixed before spaces were compared is said, and there is a way out.
    with Index.open(tmp_path / "b.db") as index:
        move(index.store, server=server.url)
    said = str(sync(tmp_path / "b.db").waiting)
    assert "2 documents here came from a server before spaces were compared" in said
    with Index.open(tmp_path / "b.db") as index:
        (problem,) = check(index.store).problems
        assert "2 documents were received from a server of another embedding space" in problem
        assert replica.forget_received(index.store) == 2
        assert check(index.store).sound
    assert documents(tmp_path / "b.db") == set()
    assert sync(tmp_path / "a.db").done
    assert documents(tmp_path / "a.db") == {"a0", "a1"}


def test_store_that_was_changed_to_another_bundle_is_refused_until_it_is_changed_back(
    server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    fill(tmp_path / "a.db", TINY, "the cat sat on the mat")
    join(tmp_path / "a.db", server.url, new_code())
    fill(tmp_path / "b.db", TINY, "tax forms")
    join(tmp_path / "b.db", server.url, new_code())
    with Index.open(tmp_path / "b.db") as index, SyncClient.open(index) as client:
        assert client.sync_once().done
        index.reindex(TINY_STATIC)
        index.put([Document("new", "a model")])
        outcome = client.sync_once()  # the same client: its connection named the former space
        assert (outcome.cause, outcome.pushed, outcome.pulled) == ("refused", 0, 0)
        assert replica.queue_of(index.store).items == 1
        assert check(index.store).sound
    assert sync(tmp_path / "a.db").pulled == 1
    assert documents(tmp_path / "a.db") == {"a0", "b0"}
    assert sync(tmp_path / "b.db").cause == "refused"
    with Index.open(tmp_path / "b.db") as index:
        index.reindex(TINY)
    assert sync(tmp_path / "b.db").done
    assert sync(tmp_path / "a.db").pulled == 1
    assert documents(tmp_path / "a.db") == {"a0", "b0", "new"} == documents(tmp_path / "b.db")


def test_store_that_changes_while_it_pulls_takes_nothing_of_its_former_code(
    server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    fill(tmp_path / "b.db", TINY, "tax forms")
    join(tmp_path / "b.db", server.url, new_code())
    with Index.open(tmp_path / "b.db") as index:
        with pytest.raises(NetworkError, match="changed to another bundle meanwhile"):
            replica.apply_pulled(index.store, [], cursor=1, code=("0" * 64, "0" * 64))
        now = replica.enrollment_of(index.store)
        assert now is not None
        assert now.cursor == 0


def test_operator_sees_the_space_of_each_device(
    server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    fill(tmp_path / "a.db", TINY)
    code = new_code()
    join(tmp_path / "a.db", server.url, code)
    listed = admin(server.database, "devices", "list", code.partition("_")[0])
    assert [device["space_id"] for device in listed["devices"]] == [read_manifest(TINY).space_id]
