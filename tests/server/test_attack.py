"""What strangers and tenants do to keep others from the server: its counts, not its times."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.bundle import head_id
from edge_mrl.wire import CONTENT_TYPE, digest, encode_items, encode_message, matches_digest
from tests.support.children import all_end, children_of
from tests.support.processes import wait_until
from tests.support.serving import Caller, Reply, Serving, admin, enroll, item, serving, units

pytestmark = pytest.mark.test

PREFIX = head_id(None, layer_norm=False)
PULL = "/v1/pull?since=0&vectors=none"
HALF = b"GET /v1/pull HTTP/1.1\r\nHost: x\r\n"
#: What a process takes when it serves a few tenants, beside what an attack may add.
MAX_RSS_GROWTH = 150 << 20


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """As many sockets as an attacker has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def holding(server: Serving, count: int, data: bytes) -> Iterator[list[socket.socket]]:
    """So many connections, on each of which something was sent."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            with contextlib.suppress(OSError):
                sock.sendall(data)
            socks.append(sock)
        yield socks


def raw(server: Serving, data: bytes) -> bytes:
    """All that the server sends before it closes the connection."""
    parts = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while got := sock.recv(65_536):
                parts.append(got)
    return b"".join(parts)


def other(server: Serving) -> Caller:
    """A device of the tenant ``default``."""
    made: str = admin(server.database, "invitations", "create", "default")["invitation"]
    return enroll(server.url, made)


def rss(server: Serving) -> int:
    """The most that the process ever had in memory, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def failures(server: Serving, device: Caller, rounds: int = 5) -> int:
    """How many of some fresh requests get no answer."""
    failed = 0
    for path in ("/healthz", PULL) * rounds:
        caller = Caller(server.url, device.token)
        caller._connection.timeout = 4
        try:
            failed += caller.call("GET", path).status != 200
        except OSError:
            failed += 1
        caller.close()
    return failed


# --- connections


#: No connection makes room for another: as the server was.
NO_ROOM = """
from edge_mrl_server.process import seats
seats.Seats._make_place = lambda self, count, most, waiting: count < most
"""
#: No more files than these, whatever the server asks for.
FEW_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_half_open_connections_keep_nobody_out(tmp_path: Path, workers: str) -> None:
    limits = ["--connections", "200", "--address-connections", "150", "--workers", workers]
    with serving(tmp_path / "s.db", *limits) as server:
        device = enroll(server.url, str(server.invitation))
        with holding(server, 700, HALF):
            assert failures(server, device) == 0
            assert server.log().count("\n") < 100
        with holding(server, 700, b""):
            assert failures(server, device) == 0
        device.close()


def test_the_test_above_finds_connections_that_keep_others_out(tmp_path: Path) -> None:
    limits = ["--connections", "200", "--address-connections", "150"]
    with serving(tmp_path / "s.db", *limits, program=NO_ROOM) as server:
        device = enroll(server.url, str(server.invitation))
        with holding(server, 700, HALF):
            assert failures(server, device, rounds=1) == 2
        device.close()


def test_server_that_has_few_files_goes_on_and_does_not_fill_its_log(tmp_path: Path) -> None:
    with serving(tmp_path / "s.db", program=FEW_FILES) as server:
        device = enroll(server.url, str(server.invitation))
        with holding(server, 900, HALF):
            assert failures(server, device) == 0
            assert len(server.log()) < 50_000
        device.close()


@pytest.mark.parametrize(
    ("data", "answered"),
    [(HALF, False), (b"", False), (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", True)],
    ids=["slow head", "no request", "idle"],
)
def test_idle_connections_of_an_address_make_room_for_its_next(
    tmp_path: Path, data: bytes, answered: bool
) -> None:
    with (
        serving(tmp_path / "s.db", "--address-connections", "8") as server,
        contextlib.ExitStack() as stack,
    ):
        socks = []
        for _ in range(30):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            sock.sendall(data)
            if answered:
                assert sock.recv(65_536)
            socks.append(sock)
        wait_until(lambda: sum(map(_has_ended, socks)) == 22)


def _has_ended(sock: socket.socket) -> bool:
    sock.settimeout(0.01)
    try:
        while sock.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def test_requests_beyond_the_seats_are_told_to_wait_and_health_checks_are_answered(
    tmp_path: Path,
) -> None:
    body = b'{"code": "x", "name": "y"}'
    slow = (
        "POST /v1/enroll HTTP/1.1\r\nHost: x\r\nEdge-MRL-Protocol: 1\r\nEdge-MRL-Sequence: 1\r\n"
        f"Content-Digest: {digest(body)}\r\nContent-Length: {len(body)}\r\n"
        "Expect: 100-continue\r\n\r\n"
    ).encode()
    limits = ["--connections", "4", "--body-timeout", "60"]
    with serving(tmp_path / "s.db", *limits) as server, holding(server, 4, slow) as socks:
        for sock in socks:
            assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        caller = Caller(server.url, "emrl_default_x")
        reply = caller.call("POST", "/v1/push", b"x" * 100_000)
        assert (reply.status, reply.code) == (503, "busy")
        assert int(reply.headers["retry-after"]) > 0
        assert reply.headers["edge-mrl-sequence"]
        caller.close()
        for path in ("/healthz", "/readyz"):
            caller = Caller(server.url)
            assert caller.call("GET", path).status == 200
            caller.close()


def test_garbage_fills_no_log(tmp_path: Path) -> None:
    with serving(tmp_path / "s.db") as server:
        device = enroll(server.url, str(server.invitation))
        tls, old = b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/9\r\n\r\n"
        upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            [*pool.map(lambda data: raw(server, data), [tls, old, upgrade] * 150)]
        lines = [json.loads(line) for line in server.log().splitlines()]
        seconds = time.monotonic() - began
        # Five kinds: 50 lines at once of each, and 5 a second.
        assert len(lines) < 5 * (50 + 5 * seconds)
        assert sum(1 + line.get("left_out", 0) for line in lines) <= 5 * 450
        assert failures(server, device, rounds=1) == 0
        assert _answer(raw(server, tls)).status == 400
        device.close()


def test_refused_requests_fill_no_log_and_are_all_counted(tmp_path: Path) -> None:
    with serving(tmp_path / "s.db", "--admin-port", "0", "--failure-rate", "1e6") as server:

        def knock(path: str) -> int:
            caller = Caller(server.url, "emrl_default_x")
            status = caller.call("GET", path).status
            caller.close()
            return status

        with ThreadPoolExecutor(4) as pool:
            statuses = Counter(pool.map(knock, [PULL, "/nothing", "/v1/push"] * 200))
        assert statuses == {401: 200, 404: 200, 405: 200}
        device = enroll(server.url, str(server.invitation))
        device.close()
        lines = [json.loads(line) for line in server.log().splitlines()]
        refused = [line for line in lines if line.get("code")]
        assert 50 <= len(refused) < 600
        assert sum(1 + line.get("left_out", 0) for line in refused) <= 600


# --- what one tenant does


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with files in a folder of its own."""
    path = tmp_path_factory.mktemp("busy")
    limits = ["--cache", str(path / "cache"), "--device-rate", "1e6", "--tenant-rate", "1e6"]
    with serving(path / "s.db", *limits) as server:
        yield server


def test_header_that_is_too_long_is_refused_before_the_rest_is_kept(busy: Serving) -> None:
    text = b'{"layer_norm":true,"x":[' + b"{}," * 5_000_000 + b'{}],"dtype":"float32","dim":4}'
    head = struct.pack("<I", len(text)) + text + bytes(16)
    before = rss(busy)

    def put(number: int) -> tuple[int, str]:
        device = other(busy)
        reply = device.call("PUT", f"/v1/heads/{number:064x}", head)
        device.close()
        return reply.status, reply.code

    with ThreadPoolExecutor(4) as pool:
        answers = Counter(pool.map(put, range(8)))
    assert set(answers) <= {(413, "too_large"), (503, "busy")}
    assert answers[413, "too_large"] > 0
    # Fewer than the four that come at once, of 15 MB each.
    assert rss(busy) - before < 3 * len(head)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/push", 400),
        ("POST", "/v1/rerank", 400),
        ("POST", "/v1/search", 413),
        ("PUT", "/v1/heads/" + "0" * 64, 413),
    ],
)
def test_json_that_grows_when_it_is_parsed_is_bounded(
    busy: Serving, method: str, path: str, status: int
) -> None:
    text = b'{"x":[' + b"{}," * 300_000 + b'{}],"dtype":"float16","dim":8}'
    body = struct.pack("<I", len(text)) + text
    device, before = other(busy), rss(busy)
    with ThreadPoolExecutor(4) as pool:
        callers = [Caller(busy.url, device.token) for _ in range(8)]
        replies = [*pool.map(lambda c: c.call(method, path, body).status, callers)]
        for caller in callers:
            caller.close()
    assert set(replies) <= {status, 503}
    assert status in replies
    assert rss(busy) - before < MAX_RSS_GROWTH
    device.close()


def test_codes_that_nobody_uses_make_few_snapshots(busy: Serving) -> None:
    device = other(busy)
    device.statuses(*[item(f"d{n}", seed=n) for n in range(20)])
    path = f"/v1/snapshot/coarse?head={PREFIX}&dim=8&scale="
    replies = [device.call("GET", f"{path}{1 + n / 100}") for n in range(60)]
    statuses = Counter(reply.status for reply in replies)
    assert statuses == {200: 16, 429: 44}
    refused = next(reply for reply in replies if reply.status == 429)
    assert refused.code == "rate"
    assert 0 < int(refused.headers["retry-after"]) <= 300
    # One that is known is still sent, and other tenants have codes of their own.
    assert device.call("GET", f"{path}1.0").status == 200
    device.close()


def snapshots(server: Serving) -> list[Path]:
    """Its files."""
    return [*Path(server.database).parent.glob("cache/*/tmp*")]


def test_snapshots_of_equal_bytes_are_all_sent(busy: Serving) -> None:
    admin(busy.database, "tenants", "create", "equal")
    made = admin(busy.database, "invitations", "create", "equal")["invitation"]
    device = enroll(busy.url, made)
    one = item("one")
    one.vectors[:] = np.eye(8, dtype=np.float16)[0]  # 127 and zeros, whatever the scale
    assert device.statuses(one) == ["applied"]
    path = f"/v1/snapshot/coarse?head={PREFIX}&dim=8&scale="
    before = len(snapshots(busy))
    scales = [1 - n / 1000 for n in range(16)] * 6 + [1 + n * 1e-12 for n in range(100)]

    def get(scale: float) -> tuple[int, bytes]:
        caller = Caller(busy.url, device.token)
        reply = caller.call("GET", f"{path}{scale!r}")
        caller.close()
        return reply.status, reply.body

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(get, scales))
    assert {status for status, _ in answers} == {200}, answers
    # A file names its scale; scales that give the same codes share one.
    assert len(answers) == 16
    assert len(snapshots(busy)) == before + 16
    device.close()


def test_killed_server_leaves_no_snapshots_to_the_next(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    token = None
    for _ in range(3):
        with serving(tmp_path / "s.db", "--cache", str(cache), "--workers", "2") as server:
            device = (
                Caller(server.url, token) if token else enroll(server.url, str(server.invitation))
            )
            token = device.token
            assert device.call("GET", f"/v1/snapshot/coarse?head={PREFIX}&dim=8").status == 200
            device.close()
            wait_until(lambda: len([*cache.iterdir()]) == 2)
            server.kill()
    assert len([*cache.iterdir()]) == 2  # those of the last two workers, until the next start


def test_device_with_too_many_requests_at_once_is_told_to_wait(busy: Serving) -> None:
    device = other(busy)
    head = (
        "POST /v1/push HTTP/1.1\r\nHost: x\r\nEdge-MRL-Protocol: 1\r\nEdge-MRL-Sequence: 1\r\n"
        f"Edge-MRL-Space: {device.space}\r\nAuthorization: Bearer {device.token}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: 100\r\n\r\n"
    ).encode()
    assert device.call("GET", PULL).status == 200
    with contextlib.ExitStack() as stack:
        stack.enter_context(holding(busy, 16, head))
        for _ in range(
            16
        ):  # a request of the device's may have taken the place of one that is held
            if device.call("GET", PULL).status == 429:
                break
            stack.enter_context(holding(busy, 1, head))
        reply = device.push(*[item(f"x{n}", n=20, dim=384) for n in range(20)])
        assert (reply.status, reply.code) == (429, "rate")
        assert reply.headers["retry-after"] == "1"
        assert "connection" not in reply.headers  # all was read: the connection goes on
        neighbour = other(busy)
        assert neighbour.call("GET", PULL).status == 200
        neighbour.close()
    wait_until(lambda: device.call("GET", PULL).status == 200)
    device.close()


# --- odd HTTP


def _answer(data: bytes) -> Reply:
    """The first answer in what a server has sent, its digest checked."""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    body = rest[: int(headers["content-length"])]
    assert matches_digest(body, headers["content-digest"]), data
    return Reply(int(first.split()[1]), headers, body)


def _request(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    mine = ["Host: x", "Edge-MRL-Protocol: 1", "Edge-MRL-Sequence: 1", *headers]
    return "\r\n".join([f"{method} {path} HTTP/{version}", *mine, "", ""]).encode()


CHUNKED = "Transfer-Encoding: chunked"
ODD = {
    "HTTP/1.0": (_request("GET", "/healthz", version="1.0"), 200),
    "long head": (_request("GET", "/healthz", "X: " + "x" * 60_000), 400),
    "many headers": (_request("GET", "/healthz", *(f"a{n}: b" for n in range(9_000))), 400),
    "long address": (_request("GET", "/" + "a" * 60_000), 400),
    "percent garbage": (_request("GET", "/v1/%ff%fe%00%%zz?a=%ff&%00"), 404),
    "query garbage": (_request("GET", "/healthz?" + "&" * 9_000 + "%ff=%zz"), 200),
    "two lengths": (_request("POST", "/v1/push", "Content-Length: 1", "Content-Length: 2"), 400),
    "long length": (_request("POST", "/v1/push", "Content-Length: " + "9" * 5_000), 400),
    "length and chunks": (_request("POST", "/v1/push", CHUNKED, "Content-Length: 5"), 401),
    "chunk garbage": (_request("POST", "/v1/enroll", CHUNKED) + b"zz\r\n", 400),
    "small chunks": (_request("POST", "/v1/enroll", CHUNKED) + b"1\r\nx\r\n" * 4_000, 400),
    "method of bytes": (b"\x00\x01\x02 / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "long method": (_request("A" * 9_000, "/healthz"), 405),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "absolute": (_request("GET", "http://x/healthz"), 404),
    "gzip": (_request("GET", "/healthz", "Accept-Encoding: gzip, br, *;q=0"), 200),
    "stranger with a body": (_request("POST", "/v1/push", "Content-Length: 999999"), 401),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_request_is_answered_in_our_words(busy: Serving, name: str) -> None:
    data, status = ODD[name]
    reply = _answer(raw(busy, data))
    assert reply.status == status, reply
    if status >= 400:
        assert set(reply.json["error"]) >= {"code", "message"}
    assert _answer(raw(busy, _request("GET", "/healthz"))).status == 200


def test_client_that_expects_to_be_told_is_refused_before_it_sends(busy: Serving) -> None:
    more = ["Content-Length: 999999", "Expect: 100-continue"]
    got = raw(busy, _request("POST", "/v1/push", *more))
    assert got.startswith(b"HTTP/1.1 401 ")


def test_requests_that_come_together_are_answered_in_their_order(busy: Serving) -> None:
    together = b"".join(
        _request("GET", "/healthz").replace(b"Sequence: 1", f"Sequence: {n}".encode())
        for n in range(40)
    )
    with socket.create_connection(("127.0.0.1", busy.port), timeout=30) as sock:
        sock.sendall(together)
        got = b""
        while got.count(b"HTTP/1.1 200 ") < 40 or not got.endswith(b"}"):
            data = sock.recv(65_536)
            assert data, got
            got += data
    order = [line for line in got.lower().split(b"\r\n") if line.startswith(b"edge-mrl-sequence")]
    assert order == [f"edge-mrl-sequence: {n}".encode() for n in range(40)]


@pytest.mark.parametrize(
    "ranges", ["bytes=0-0", "bytes=" + "0-0," * 2_000 + "1-1", "bytes=-0", "x"]
)
def test_ranges_cost_no_more_than_the_file(busy: Serving, ranges: str) -> None:
    device = other(busy)
    path = f"/v1/snapshot/coarse?head={PREFIX}&dim=8"
    whole = device.call("GET", path)
    part = device.call("GET", path, None, {"Range": ranges})
    assert part.status in (200, 206, 416)
    assert len(part.body) <= len(whole.body)
    device.close()


# --- what fails inside

FAILS = """
from edge_mrl_server.http import handlers
def fail(*_, **__):
    raise KeyError("text-of-a-note")
handlers.changes_after = fail
"""


@pytest.mark.parametrize("error", ["KeyError('text-of-a-note')", "SystemExit('text-of-a-note')"])
def test_failure_inside_ends_no_process_and_quotes_nothing(tmp_path: Path, error: str) -> None:
    program = FAILS.replace('KeyError("text-of-a-note")', error)
    with serving(tmp_path / "s.db", program=program) as server:
        device = enroll(server.url, str(server.invitation))
        for _ in range(3):
            reply = device.call("GET", PULL)
            assert (reply.status, reply.code) == (500, "internal")
        assert device.statuses(item("id-of-a-note")) == ["applied"]
        wait_until(lambda: '"internal error"' in server.log())
        said = [json.loads(line) for line in server.log().splitlines()]
        traces = [line["trace"] for line in said if "trace" in line]
        assert len(traces) == 3
        assert all("changes_after" in trace for trace in traces)
        assert "text-of-a-note" not in server.log().replace(error.replace("'", '\\"'), "")
        device.close()


def test_killed_server_leaves_nobody_listening(tmp_path: Path) -> None:
    with serving(tmp_path / "s.db", "--workers", "2", "--admin-port", "0") as server:
        wait_until(lambda: len(children_of(server.process.pid)) == 3)
        workers = children_of(server.process.pid)
        server.process.kill()
        assert all_end(workers, 20.0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 5)


def test_answers_to_a_push_are_the_same_as_before(busy: Serving) -> None:
    """Old clients send what they always sent."""
    device = other(busy)
    body = encode_items({"cursor": 0}, [item("old-shape")], like=units(0))
    reply = device.call("POST", "/v1/push", body)
    assert reply.json["results"] == [{"status": "applied"}]
    query = encode_message({"ids": ["old-shape"]}, units(1))
    assert device.call("POST", "/v1/rerank", query).json["missing"] == []
    device.close()
