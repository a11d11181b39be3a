"""What stands between a device and a server: TLS, an HTTP proxy, a line that is cut."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

__all__ = ["Certificates", "HttpProxy", "Relay", "make_certificates"]

_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-", re.IGNORECASE)
_CHUNK_BYTES = 1 << 16


class Relay:
    """Passes bytes on to a server.

    Args:
        target: The server's port on this machine.
        tls: Ends TLS here.
        cut_after: Ends each connection when it has passed on so many bytes to the device.

    Attributes:
        ranges: First bytes of the ranges that were asked for, in order.
        cut_after: May be changed; None lets everything through.
        damage: What is put in place of what in the next request that has it, and in no other.
    """

    def __init__(
        self, target: int, *, tls: ssl.SSLContext | None = None, cut_after: int | None = None
    ) -> None:
        self.ranges: list[int] = []
        self.cut_after = cut_after
        self.damage: tuple[bytes, bytes] | None = None
        self._target = target
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        """End it and its connections."""
        # Closing a listener does not wake the thread that accepts.
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for sock in (self._listener, *self._open):
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def meet(self, client: socket.socket) -> tuple[socket.socket, bytes]:
        """Connect a client to the server; also what the server is to get first."""
        del client
        return socket.create_connection(("127.0.0.1", self._target), 10), b""

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server, first = self.meet(client)
        except OSError:  # the client does not trust us
            client.close()
            return
        self._open += [client, server]
        server.sendall(first)
        threading.Thread(target=self._upwards, args=(client, server), daemon=True).start()
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK_BYTES):
                left = None if self.cut_after is None else max(self.cut_after - passed, 0)
                client.sendall(data[:left])
                passed += len(data)
                if left is not None and len(data) >= left:
                    break
        _end(client, server)

    def _upwards(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK_BYTES):
                self.ranges += [int(first) for first in _RANGE.findall(data)]
                if self.damage is not None and self.damage[0] in data:
                    data = data.replace(*self.damage, 1)
                    self.damage = None
                server.sendall(data)
        _end(client, server)


class HttpProxy(Relay):
    """An HTTP proxy that leads to one server, whatever host it is asked for.

    Attributes:
        heads: First lines and headers that it was sent.
    """

    def __init__(self, target: int) -> None:
        self.heads: list[bytes] = []
        super().__init__(target)

    def meet(self, client: socket.socket) -> tuple[socket.socket, bytes]:
        """A tunnel, or one request, whose target it makes the server's own."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = client.recv(_CHUNK_BYTES)
            if not part:
                raise ConnectionError
            data += part
        head, body = data.split(b"\r\n\r\n", 1)
        self.heads.append(head)
        server, _ = super().meet(client)
        if head.startswith(b"CONNECT "):
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            return server, body
        first, rest = head.split(b"\r\n", 1)
        first = re.sub(rb" http://[^/]+", b" ", first)
        return server, b"\r\n".join((first, b"Connection: close", rest, b"", body))


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(end, socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority of our own, and a server's certificate for ``HOST`` and 127.0.0.1."""

    authority: Path
    server: ssl.SSLContext


def make_certificates(folder: Path, host: str) -> Certificates:
    """Make them with openssl; the test is skipped where that is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    config = folder / "openssl.cnf"
    config.write_text("[req]\ndistinguished_name = name\n[name]\n")
    common = ["subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"]
    _certify(
        folder, "authority", "basicConstraints=critical,CA:TRUE",
        "keyUsage=critical,keyCertSign", *common,
    )  # fmt: skip
    _certify(
        folder, "server", "basicConstraints=critical,CA:FALSE",
        f"subjectAltName=DNS:{host},IP:127.0.0.1", *common, by="authority",
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return Certificates(folder / "authority.pem", context)


def _certify(folder: Path, name: str, *extensions: str, by: str | None = None) -> None:
    command = ["openssl", "req", "-x509", "-config", "openssl.cnf", "-newkey", "ec"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN=edge-mrl test {name}"]
    command += ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    if by is not None:
        command += ["-CA", f"{by}.pem", "-CAkey", f"{by}.key"]
    for extension in extensions:
        command += ["-addext", extension]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
