"""A forwarding proxy that answers some requests itself, as nginx and login pages do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

__all__ = ["Gateway"]

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


class Gateway:
    """Passes requests on to a server, but for those that a rule gives a status.

    Args:
        port: The server's port on this machine.
        rule: Given a path and a body, the status to answer with; None passes the request on.

    Attributes:
        rule: May be changed.
        refused: Bytes of the bodies that were refused, in order.
        passed: Bytes of the bodies of pushes that were passed on.
    """

    def __init__(self, port: int, rule: Callable[[str, bytes], int | None]) -> None:
        self.rule = rule
        self.refused: list[int] = []
        self.passed: list[int] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status = gateway.rule(self.path, body)
                if status is not None:
                    gateway.refused.append(len(body))
                    page = b"<html><h1>no</h1></html>"
                    self._answer(status, {"Content-Type": "text/html", "Server": "nginx"}, page)
                    return
                if self.path.startswith("/v1/push"):
                    gateway.passed.append(len(body))
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                upstream.request(self.command, self.path, body or None, headers)
                answer = upstream.getresponse()
                data = answer.read()
                named = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
                upstream.close()
                self._answer(answer.status, named, data)

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _serve  # noqa: N815 - names that the library calls

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
