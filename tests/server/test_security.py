"""What a stranger, a broken device or another tenant can do: nothing, and never a 500."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_mrl.bundle.head import head_id
from edge_mrl.wire.clock import format_stamp
from edge_mrl.wire.frames import CONTENT_TYPE, MAX_BODY_BYTES, digest, encode_items, encode_message
from edge_mrl_server.storage import accounts
from tests.server.conftest import Place
from tests.support.processes import wait_until
from tests.support.serving import Caller, Serving, admin, enroll, item, serving, units

pytestmark = pytest.mark.test

PREFIX = head_id(None, layer_norm=False)
SNAPSHOT = f"/v1/snapshot/coarse?head={PREFIX}&dim=4"
INJECTIONS = [
    "'; DROP TABLE documents; --",
    '" OR ""="',
    "%' OR tenant LIKE '%",
    "../../etc/passwd",
    "{a,b}",
    "\\x00",
    "$1 %s ? ?",
    "\u202e\ufeff\U0010ffff",
    "NULL",
    "a" * 512,
]


@contextlib.contextmanager
def connected(server: Serving) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        yield sock


def answer(sock: socket.socket) -> bytes:
    """All bytes until the server closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65_536):
            parts.append(data)
    return b"".join(parts)


# --- tenants


def test_another_tenants_documents_are_not_there(place: Place) -> None:
    mine, other = place.device(), place.device()
    mine.statuses(item("secret", seed=1, text="hidden words", spans=[(0, 1)]))
    other.statuses(item("own", seed=2))
    query = units(1, seed=1)[0]
    assert other.query("/v1/rerank", {"ids": ["secret"]}, query).json["scores"] == [None]
    assert [h["id"] for h in other.query("/v1/search", {"k": 9}, query).json["hits"]] == ["own"]
    for path in ("/v1/pull?since=0&vectors=full&text=1", SNAPSHOT + "&text=1"):
        body = other.call("GET", path).body
        assert b"own" in body
        assert b"secret" not in body
        assert b"hidden" not in body
    # A deletion of the same name is of one's own document.
    assert other.statuses(item("secret", after=5, deleted=True)) == ["applied"]
    assert mine.query("/v1/rerank", {"ids": ["secret"]}, query).json["missing"] == []


def test_snapshot_of_another_tenant_cannot_be_had_by_its_tag(place: Place) -> None:
    mine, other = place.device(), place.device()
    mine.statuses(item("secret"))
    tag = mine.call("GET", SNAPSHOT).headers["etag"]
    asked = {"If-Range": tag, "Range": "bytes=0-"}
    assert b"secret" not in other.call("GET", SNAPSHOT, None, asked).body
    assert other.call("GET", SNAPSHOT, None, {"If-Match": tag}).status == 412


def test_tenant_in_a_token_counts_for_nothing_without_its_secret(place: Place) -> None:
    mine, other = place.device(place.tenant()), place.device(place.tenant())
    assert mine.token is not None
    assert other.token is not None
    prefix, tenant, _ = mine.token.split("_", 2)
    mine.token = f"{prefix}_{tenant}_{other.token.split('_', 2)[2]}"
    assert mine.call("GET", "/v1/pull?since=0&vectors=none").status == 401


@pytest.mark.parametrize("name", INJECTIONS, ids=range(len(INJECTIONS)))
def test_ids_are_only_names(place: Place, name: str) -> None:
    device = place.device()
    device.statuses(item("bystander", seed=2))
    assert device.statuses(item(name, seed=1)) == ["applied"]
    query = units(1, seed=1)[0]
    reply = device.query("/v1/rerank", {"ids": [name, "bystander"]}, query)
    assert reply.json["missing"] == []
    assert device.query("/v1/search", {"k": 1}, query).json["hits"][0]["id"] == name
    assert device.statuses(item(name, after=1, deleted=True)) == ["applied"]
    assert device.query("/v1/rerank", {"ids": [name]}, query).json["missing"] == [name]


# --- tokens


def test_revoked_and_expired_tokens_end_at_once(place: Place) -> None:
    device = place.device(tenant := place.tenant())
    path = "/v1/pull?since=0&vectors=none"
    assert device.call("GET", path).status == 200
    with place.database.write() as transaction:
        transaction.run("UPDATE tokens SET expires_ms = 1 WHERE tenant = ?", tenant)
    assert device.call("GET", path).status == 401
    other = place.device(tenant)
    with place.database.write() as transaction:
        assert accounts.revoke(transaction, tenant, other.device)
        assert not accounts.revoke(transaction, tenant, other.device)
    for reply in (other.call("GET", path), other.push(item("a")), other.call("POST", "/v1/token")):
        assert (reply.status, reply.code) == (401, "token")
        assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic eDp4",
        "Bearer emrl",
        "Bearer emrl_default_",
        "Bearer emrl_' OR 1=1_x",
        "Bearer emrl__x",
        "Bearer " + "x" * 8_000,
        "Bearer emrl_t1_\xff\xfe",
        "Bearer emrl_t1_%00",
    ],
)
def test_malformed_token_is_refused(place: Place, header: str | None) -> None:
    caller = Caller(place.server.url)
    reply = caller.call("GET", "/v1/pull?since=0", None, {"Authorization": header})
    assert (reply.status, reply.code) == (401, "token")
    caller.close()


@pytest.mark.parametrize(
    "invitation", ["", "x", "default_", "t1_'--", "\ud800", 7, None, "_" * 3000]
)
def test_wrong_invitation_is_refused(sqlite_place: Place, invitation: object) -> None:
    caller = Caller(sqlite_place.server.url)
    body = json.dumps({"code": invitation, "name": "x"}).encode()
    reply = caller.call("POST", "/v1/enroll", body, kind="application/json")
    assert (reply.status, reply.code) in ((403, "forbidden"), (400, "malformed"))
    caller.close()


def test_expired_invitation_enrolls_nobody(place: Place) -> None:
    with place.database.write() as transaction:
        invitation = (
            accounts.create_invitation(transaction, place_tenant := "late-" + place.kind, life_ms=1)
            if (accounts.ensure_tenant(transaction, "late-" + place.kind))
            else ""
        )
    assert place_tenant in invitation
    time.sleep(0.01)
    caller = Caller(place.server.url)
    body = json.dumps({"code": invitation, "name": "x"}).encode()
    assert caller.call("POST", "/v1/enroll", body, kind="application/json").status == 403
    caller.close()


# --- requests that are not as they should be


def test_replayed_request_changes_nothing(place: Place) -> None:
    device = place.device()
    body = encode_items({"cursor": 0}, [item("a")], like=units(0))
    same: dict[str, str | None] = {"Edge-MRL-Sequence": "7"}
    device.call("POST", "/v1/push", body, same)
    device.statuses(item("a", after=5, deleted=True))
    again = device.call("POST", "/v1/push", body, same)
    assert again.headers["edge-mrl-sequence"] == "7"
    assert again.json["results"][0]["status"] == "stale"
    pulled = device.call("GET", "/v1/pull?since=0&vectors=none").body
    assert b'"del":true' in pulled


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Edge-MRL-Protocol": None}, 400, "protocol"),
        ({"Edge-MRL-Protocol": "2"}, 400, "protocol"),
        ({"Edge-MRL-Sequence": None}, 400, "malformed"),
        ({"Edge-MRL-Sequence": "a b"}, 400, "malformed"),
        ({"Edge-MRL-Sequence": "x" * 65}, 400, "malformed"),
        ({"Edge-MRL-Space": None}, 400, "malformed"),
        ({"Edge-MRL-Space": "' OR"}, 400, "malformed"),
        ({"Content-Digest": None}, 400, "digest"),
        ({"Content-Digest": "sha-256=:AAAA:"}, 400, "digest"),
        ({"Content-Digest": "md5=:AAAA:"}, 400, "digest"),
        ({"Content-Type": "application/json"}, 400, "malformed"),
    ],
)
def test_header_that_is_wrong_is_refused(
    sqlite_place: Place, headers: dict[str, str | None], status: int, code: str
) -> None:
    device = sqlite_place.device()
    body = encode_items({"cursor": 0}, [item("a")], like=units(0))
    reply = device.call("POST", "/v1/push", body, headers)
    assert (reply.status, reply.code) == (status, code)
    assert device.query("/v1/rerank", {"ids": ["a"]}, units(1)[0]).json["missing"] == ["a"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/pull",
        "/v1/pull?since=-1",
        "/v1/pull?since=x",
        "/v1/pull?since=1e3",
        "/v1/pull?since=99999999999999999999",
        "/v1/pull?since=9223372036854775808",
        "/v1/pull?since=0&limit=0",
        "/v1/pull?since=0&limit=513",
        "/v1/pull?since=0&vectors=all",
        "/v1/pull?since=0&fence=x&vectors=none",
        f"/v1/pull?since=0&head={PREFIX}",
        f"/v1/pull?since=0&head={PREFIX}&dim=0",
        f"/v1/pull?since=0&head={PREFIX}&dim=4&scale=nan",
        f"/v1/pull?since=0&head={PREFIX}&dim=4&scale=-1",
        f"/v1/pull?since=0&head={PREFIX}&dim=4&scale=1e300",
        "/v1/pull?since=0&head=%00&dim=4",
        "/v1/snapshot/coarse",
        "/v1/snapshot/coarse?head=../../x&dim=4",
    ],
)
def test_query_that_is_wrong_is_refused(place: Place, path: str) -> None:
    device = place.device()
    device.statuses(item("a"))
    reply = device.call("GET", path)
    assert (reply.status, reply.code) in ((400, "malformed"), (404, "head_unknown"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/push", 405),
        ("DELETE", "/v1/push", 405),
        ("GET", "/v1/push/", 404),
        ("GET", "/v1/%2e%2e/healthz", 404),
        ("GET", "/admin", 404),
        ("GET", "/metrics", 404),
        ("PUT", "/v1/heads/a/b", 404),
        ("GET", "/" + "x" * 9_000, 404),
    ],
)
def test_path_that_is_none_is_refused(
    sqlite_place: Place, method: str, path: str, status: int
) -> None:
    reply = sqlite_place.device().call(method, path)
    assert reply.status == status
    assert reply.code in ("not_found", "method")


@pytest.mark.parametrize(
    "header",
    [
        {"ids": "a"},
        {"ids": ["a"] * 1001},
        {"ids": [1]},
        {"ids": [""]},
        {"ids": ["\0"]},
        {"ids": ["é" * 257]},
        {},
    ],
)
def test_rerank_of_what_are_no_ids_is_refused(place: Place, header: dict[str, object]) -> None:
    device = place.device()
    device.statuses(item("a"))
    assert device.query("/v1/rerank", header, units(1)[0]).status == 400


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/search"])
def test_vector_of_a_query_is_checked(place: Place, path: str) -> None:
    device = place.device()
    device.statuses(item("a"))
    header = {"ids": ["a"], "k": 1}
    nan = np.full(8, np.nan, np.float32)
    for vector in (nan, np.zeros(8, np.float32), units(1, 4)[0], units(1)[0] * np.float16(2)):
        reply = device.query(path, header, vector)
        assert (reply.status, reply.code) == (400, "malformed")
    for vectors in (units(2), units(0), np.zeros((1, 8), np.int8)):
        assert device.call("POST", path, encode_message(header, vectors)).status == 400


@pytest.mark.parametrize("k", [0, -1, 1001, 1.5, True, "3", None])
def test_count_of_a_search_is_checked(sqlite_place: Place, k: object) -> None:
    device = sqlite_place.device()
    assert device.query("/v1/search", {"k": k}, units(1)[0]).status == 400


# --- bodies


def test_declared_body_that_is_too_large_is_refused_before_it_is_read(sqlite_place: Place) -> None:
    device = sqlite_place.device()
    with connected(sqlite_place.server) as sock:
        sock.sendall(_head(device, f"Content-Length: {10 * MAX_BODY_BYTES}"))
        got = answer(sock)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b'"too_large"' in got


def test_chunked_body_is_cut_off_at_the_limit(sqlite_place: Place) -> None:
    device = sqlite_place.device()
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    sent = 0
    with connected(sqlite_place.server) as sock:
        sock.sendall(_head(device, "Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                sock.sendall(chunk)
                sent += len(chunk)
        got = answer(sock)
    assert sent < 24 * MAX_BODY_BYTES
    assert b" 413 " in got[:20] or got == b""
    assert device.call("GET", "/healthz").status == 200


def test_body_that_ends_early_is_not_stored(place: Place) -> None:
    device = place.device()
    body = encode_items({"cursor": 0}, [item("a")], like=units(0))
    with connected(place.server) as sock:
        sock.sendall(_head(device, f"Content-Length: {len(body)}", body) + body[:-1])
        sock.shutdown(socket.SHUT_WR)
        answer(sock)
    assert device.query("/v1/rerank", {"ids": ["a"]}, units(1)[0]).json["missing"] == ["a"]


def test_http_that_is_none_is_refused(sqlite_place: Place) -> None:
    for junk in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9\r\n\r\n",
        b"\r\n" * 9,
        b"A" * 70_000,
    ):
        with connected(sqlite_place.server) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(junk)
                sock.shutdown(socket.SHUT_WR)
            assert b" 500 " not in answer(sock)[:20]
    assert sqlite_place.device().call("GET", "/healthz").status == 200


def _head(device: Caller, more: str, body: bytes = b"") -> bytes:
    return (
        "POST /v1/push HTTP/1.1\r\nHost: x\r\nEdge-MRL-Protocol: 1\r\nEdge-MRL-Sequence: 1\r\n"
        f"Edge-MRL-Space: {device.space}\r\nAuthorization: Bearer {device.token}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Digest: {digest(body)}\r\n{more}\r\n\r\n"
    ).encode()


# Bodies made by hypothesis: anything at all, frames with any header, and good frames with flipped bytes.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.sampled_from(["float16", "items", "a", "0000000000000001", "f" * 16, "7" + "f" * 15]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "v",
                    "n",
                    "del",
                    "by",
                    "text",
                    "meta",
                    "spans",
                    "items",
                    "dtype",
                    "dim",
                    "cursor",
                    "ids",
                    "k",
                    "layer_norm",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


def _frame(header: object, payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + payload


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good push with some bytes changed."""
    row = {"id": "a", "v": format_stamp(1 << 40), "n": 1, "text": "é", "spans": [0, 1]}
    good = _frame({"items": [row], "cursor": 0, "dtype": "float16", "dim": 8}, units(1).tobytes())
    data = bytearray(good)
    for place in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=4)):
        data[place] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


BODIES = (
    st.binary(max_size=200)
    | damaged()
    | st.builds(
        lambda header, payload: _frame(
            {"dtype": "float16", "dim": 8, "cursor": 0, **header}, payload
        ),
        st.dictionaries(st.sampled_from(["items", "ids", "k", "cursor", "dim"]), JSON),
        st.binary(max_size=64) | st.just(units(1).tobytes()),
    )
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    body=BODIES,
    where=st.sampled_from(
        [
            ("POST", "/v1/push"),
            ("POST", "/v1/rerank"),
            ("POST", "/v1/search"),
            ("PUT", "/v1/heads/" + "0" * 64),
            ("POST", "/v1/enroll"),
        ]
    ),
)
def test_no_body_makes_the_server_fail(place: Place, body: bytes, where: tuple[str, str]) -> None:
    device = _fuzzer(place)
    kind = "application/json" if where[1] == "/v1/enroll" else CONTENT_TYPE
    reply = device.call(*where, body, kind=kind)
    assert reply.status in (200, 201, 400, 403, 409), reply.body
    if reply.status >= 400:
        assert set(reply.json["error"]) >= {"code", "message"}


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    name=st.sampled_from(
        [
            "Authorization",
            "Edge-MRL-Space",
            "Edge-MRL-Protocol",
            "Content-Digest",
            "Range",
            "If-Range",
            "If-Match",
            "If-None-Match",
            "Content-Type",
        ]
    ),
    value=st.text(
        st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40
    ),
    path=st.sampled_from(["/v1/pull?since=0&vectors=none", SNAPSHOT, "/v1/token"]),
)
def test_no_header_makes_the_server_fail(place: Place, name: str, value: str, path: str) -> None:
    method = "POST" if path == "/v1/token" else "GET"
    device = _fuzzer(place)
    reply = device.call(method, path, None, {name: value})
    assert reply.status in (200, 206, 304, 400, 401, 412, 416), reply.body


_fuzzers: dict[str, Caller] = {}


def _fuzzer(place: Place) -> Caller:
    """One device for all examples: enrolling takes longer than a request."""
    if place.kind not in _fuzzers:
        tenant = place.tenant()
        with place.database.write() as transaction:
            accounts.set_limits(transaction, tenant, {"device_requests_per_s": 1e6})
        _fuzzers[place.kind] = enroll(place.server.url, place.invitation(tenant))
    return _fuzzers[place.kind]


@pytest.fixture(scope="module", autouse=True)
def close_fuzzers() -> Iterator[None]:
    yield
    for caller in _fuzzers.values():
        caller.close()
    _fuzzers.clear()


# --- too much, too slowly: a server of its own with small limits


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    path = tmp_path_factory.mktemp("small") / "server.db"
    limits = ["--device-rate", "40", "--body-timeout", "0.5", "--in-flight-mb", "1"]
    with serving(path, *limits, "--failure-rate", "0.02", "--behind-proxy") as server:
        yield server


@pytest.fixture(scope="module")
def device(small: Serving) -> Iterator[Caller]:
    assert small.invitation is not None
    caller = enroll(small.url, small.invitation)
    yield caller
    caller.close()


def test_device_that_asks_too_often_is_told_to_wait(small: Serving, device: Caller) -> None:
    path = "/v1/pull?since=0&vectors=none"
    replies = [device.call("GET", path) for _ in range(600)]
    refused = [reply for reply in replies if reply.status == 429]
    assert 50 < len(refused) < 600
    assert refused[0].code == "rate"
    time.sleep(int(refused[0].headers["retry-after"]))
    assert device.call("GET", path).status == 200
    # Others are not held up by it.
    other = enroll(small.url, _new_invitation(small))
    assert other.call("GET", path).status == 200
    other.close()


def test_address_that_has_no_valid_token_is_told_to_wait(small: Serving, device: Caller) -> None:
    path = "/v1/pull?since=0&vectors=none"
    assert device.call("GET", path).status == 200
    other = enroll(small.url, _new_invitation(small))
    guess = Caller(small.url, f"emrl_default_{'x' * 43}")
    # An entry that the client wrote itself does not count: the proxy adds the last one.
    near: dict[str, str | None] = {"X-Forwarded-For": "203.0.113.9"}
    replies = [
        guess.call("GET", path, None, {"X-Forwarded-For": f"10.0.0.{n}, 203.0.113.9"} | _also(n))
        for n in range(6)
    ]
    assert [reply.status for reply in replies] == [401] + [429] * 5
    assert {reply.code for reply in replies[1:]} == {"rate"}
    assert 0 < int(replies[1].headers["retry-after"]) <= 50
    # Known devices of the same address go on; a valid token that is new waits, or comes from elsewhere.
    assert device.call("GET", path, None, near).status == 200
    assert other.call("GET", path, None, near).status == 429
    assert other.call("GET", path, None, {"X-Forwarded-For": "203.0.113.10"}).status == 200
    assert other.call("GET", path, None, near).status == 200
    assert guess.call("GET", path, None, near).status == 429
    other.close()
    guess.close()


def test_address_that_a_client_says_is_not_believed(tmp_path: Path) -> None:
    with serving(tmp_path / "server.db", "--failure-rate", "0.02") as server:
        guess = Caller(server.url, "emrl_default_x")
        said = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(3)]
        replies = [guess.call("POST", "/v1/token", None, {**header}) for header in said]
        assert [reply.status for reply in replies] == [401, 429, 429]
        guess.close()


def _also(n: int) -> dict[str, str | None]:
    """Every third one has no token at all, or a scheme that is none."""
    return {"Authorization": (None, "Basic eDp4")[n % 2]} if n % 3 == 2 else {}


def test_slow_body_is_ended_and_holds_nobody_up(small: Serving, device: Caller) -> None:
    body = encode_items({"cursor": 0}, [item("slow")], like=units(0))
    with connected(small) as sock:
        sock.sendall(_head(device, f"Content-Length: {len(body)}", body) + body[:10])
        began = time.monotonic()
        assert device.statuses(item("quick")) == ["applied"]
        assert time.monotonic() - began < 5
        got = answer(sock)
    assert got.startswith(b"HTTP/1.1 408 ")
    assert device.query("/v1/rerank", {"ids": ["slow"]}, units(1)[0]).json["missing"] == ["slow"]


def test_bodies_in_flight_are_limited(small: Serving, device: Caller) -> None:
    size = MAX_BODY_BYTES - 100
    for _ in range(20):
        # It is given up after half a second without a byte, so on a busy machine it may take a few.
        with connected(small) as first:
            first.sendall(_head(device, f"Content-Length: {size}") + b"x" * 1000)
            time.sleep(0.1)
            reply = device.push(item("second", n=400))
        if reply.status == 503:
            break
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "busy", "1")
    wait_until(lambda: device.push(item("second")).status == 200)
    assert device.statuses(item("third")) == ["applied"]


def test_head_of_a_request_that_never_ends_is_given_up(small: Serving) -> None:
    with connected(small) as silent, connected(small) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert answer(silent) == b""
        assert answer(slow) == b""


def test_client_that_does_not_read_is_left(small: Serving, device: Caller) -> None:
    text = "x" * 150_000
    for n in range(16):
        many = [item(f"{n}-{m}", text=text, spans=[(0, 1)]) for m in range(6)]
        assert set(device.statuses(*many)) == {"applied"}
    head = (
        f"GET {SNAPSHOT}&text=1 HTTP/1.1\r\nHost: x\r\nEdge-MRL-Protocol: 1\r\n"
        f"Edge-MRL-Sequence: 1\r\nAuthorization: Bearer {device.token}\r\n\r\n"
    )
    before = sockets(small)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect(("127.0.0.1", small.port))
        sock.sendall(head.encode())
        wait_until(lambda: '"slow_reader"' in small.log())
        # Its socket and what was to be sent are given back while it still holds on.
        wait_until(lambda: sockets(small) == before)
    assert '"internal' not in small.log()
    assert device.call("GET", SNAPSHOT + "&text=1").status == 200


def sockets(server: Serving) -> int:
    count = 0
    for name in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(name.readlink()).startswith("socket:")
    return count


def _new_invitation(server: Serving) -> str:
    made: str = admin(server.database, "invitations", "create", "default")["invitation"]
    return made


def test_log_has_no_secrets(small: Serving, device: Caller) -> None:
    assert device.token is not None
    device.statuses(item("id-in-no-log", text="text-in-no-log", spans=[(0, 1)]))
    wait_until(lambda: device.device in small.log())  # it is written behind the answer
    log = small.log()
    for secret in (device.token, small.invitation, "id-in-no-log", "text-in-no-log"):
        assert secret is not None
        assert secret not in log
    assert all(json.loads(line)["event"] for line in log.splitlines())
    assert Path(small.database).stat().st_mode & 0o077 == 0
