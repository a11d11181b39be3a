"""HTTP to one server: addresses that are refused, and responses that are not used."""

from __future__ import annotations

import socket
import threading

import pytest

from edge_mrl.errors import (
    IntermediaryError,
    NetworkError,
    OversizedAnswerError,
    ServerError,
    UsageError,
)
from edge_mrl.sync.address import server_address
from edge_mrl.sync.answers.limits import answer_limit
from edge_mrl.sync.transport import Timeouts, Transport


@pytest.mark.parametrize(
    "url", ["http://example.org", "ftp://x", "https://u:p@x", "https://x:port"]
)
def test_address_that_gives_the_token_away_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="server"):
        server_address(url)


def answering(data: bytes) -> tuple[socket.socket, str]:
    """A server that says one thing to everybody."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with peer:
                peer.recv(1 << 16)
                peer.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", IntermediaryError),
        (b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}", IntermediaryError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", NetworkError),
        (b"HTTP/1.1 302 Go\r\nLocation: http://x\r\nContent-Length: 0\r\n\r\n", IntermediaryError),
        (b"SSH-2.0-OpenSSH\r\n", NetworkError),
        (b"", NetworkError),
    ],
)
def test_answer_that_is_not_whole_is_no_answer(data: bytes, kind: type[NetworkError]) -> None:
    listening, url = answering(data)
    with (
        listening,
        Transport(url, timeouts=Timeouts(total_s=5)) as transport,
        pytest.raises(NetworkError) as caught,
    ):
        transport.request("GET", "/healthz")
    assert isinstance(caught.value, kind)
    assert not isinstance(caught.value, ServerError)  # the server has said nothing


def asked(data: bytes, *, method: str = "GET", path: str = "/healthz") -> Exception:
    """What a request ends with that gets this answer."""
    listening, url = answering(data)
    with listening, Transport(url, timeouts=Timeouts(total_s=5)) as transport:
        body = bytes(300) if method == "POST" else None
        with pytest.raises(NetworkError) as caught:
            transport.request(method, path, body=body)
    return caught.value


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (200, "sign in"),
        (301, "--server"),
        (302, "sign in"),
        (307, "--server"),
        (401, "USER:PASSWORD"),
        (403, "ask who runs it"),
        (404, "check the address"),
        (407, "USER:PASSWORD"),
        (411, "length"),
        (413, "larger requests"),
        (414, "too long"),
        (418, "tried again"),
        (429, "fewer requests"),
        (431, "headers"),
        (502, "cannot reach"),
        (503, "being started"),
        (504, "in time"),
        (511, "sign in"),
        (599, "tried again"),
    ],
)
def test_status_that_a_proxy_gives_is_named_with_what_to_do(status: int, advice: str) -> None:
    page = b"<html>no</html>"
    head = f"HTTP/1.1 {status} X\r\nServer: nginx\r\nContent-Length: {len(page)}\r\n\r\n"
    error = asked(head.encode() + page, method="POST", path="/v1/push")
    assert isinstance(error, IntermediaryError)
    assert (error.status, error.sent_bytes) == (status, 300)
    assert f"(nginx) answers {status} to 300 bytes: " in str(error)
    assert advice in str(error)
    assert "<html>" not in str(error)


BIG = 10**12


@pytest.mark.parametrize(
    "head",
    [
        f"Content-Length: {BIG}\r\n\r\n".encode(),
        b"Connection: close\r\n\r\n" + bytes(200_000),
        b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + bytes(0x8000) + b"\r\n8000\r\n"
        + bytes(0x8000) + b"\r\n8000\r\n" + bytes(0x8000) + b"\r\n",
    ],
    ids=["declared", "until-closed", "chunked"],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 503])
def test_answer_is_bounded_by_its_route_however_it_is_framed(head: bytes, status: int) -> None:
    error = asked(f"HTTP/1.1 {status} OK\r\n".encode() + head, method="POST", path="/v1/token")
    assert isinstance(error, OversizedAnswerError)
    assert error.retry_after_s == 300
    assert "expected at most 65,536" in str(error)


def test_limits_are_those_of_the_routes() -> None:
    routes = ["/v1/token", "/v1/push", "/v1/pull?since=0", "/base/v1/snapshot/coarse?head=1", "/x"]
    assert [answer_limit(route) >> 10 for route in routes] == [64, 2048, 16384, 5120, 64]
    assert answer_limit("/collections/x/points", plain=True) == answer_limit("/v1/pull")


def test_former_name_of_the_total_time_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="total_s"):
        assert Timeouts(whole_s=5) == Timeouts(total_s=5)
    assert Timeouts().total_s == 120
