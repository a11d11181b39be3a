"""HTTP to one server: addresses that are refused, and responses that are not used."""

from __future__ import annotations

import socket
import threading

import pytest

from edge_mrl.errors import NetworkError, ServerError, UsageError
from edge_mrl.sync.address import server_address
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
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", NetworkError),
        (b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}", NetworkError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", NetworkError),
        (b"HTTP/1.1 302 Go\r\nLocation: http://x\r\nContent-Length: 0\r\n\r\n", ServerError),
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
    assert isinstance(caught.value, ServerError) == (kind is ServerError)


def test_former_name_of_the_total_time_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="total_s"):
        assert Timeouts(whole_s=5) == Timeouts(total_s=5)
    assert Timeouts().total_s == 120
