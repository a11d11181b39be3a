"""A snapshot's file as a response, whole or in part (RFC 9110, ranges of bytes)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import BinaryIO

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edge_mrl.wire import CONTENT_TYPE, digest
from edge_mrl_server.http.snapshot import Snapshot

__all__ = ["file_response"]

_CHUNK = 1 << 18
#: A part is read at once, so that its digest can stand before it. Of a longer one only the beginning is
#: sent: the device asks for the rest.
MAX_PART = 8 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_response(snapshot: Snapshot, request: Request) -> Response:
    """The response to a GET: 200, 206, 304, 412 or 416. Blocks."""
    headers = {
        "ETag": snapshot.etag,
        "Repr-Digest": snapshot.digest,
        "Accept-Ranges": "bytes",
        "Content-Type": CONTENT_TYPE,
    }
    wanted = request.headers
    if "if-match" in wanted and snapshot.etag not in _tags(wanted["if-match"]):
        return _empty(412, headers)
    if snapshot.etag in _tags(wanted.get("if-none-match", "")):
        return _empty(304, headers)
    asked = wanted.get("range")
    if asked is None or wanted.get("if-range", snapshot.etag) != snapshot.etag:
        return _whole(snapshot, headers)
    match = _RANGE.fullmatch(asked.strip())
    if match is None or match.groups() == ("", ""):
        return _whole(snapshot, headers)  # several ranges, or another unit: ignored, as is allowed
    start, stop = _bounds(match, snapshot.size_bytes)
    if start >= stop:
        return _empty(416, headers | {"Content-Range": f"bytes */{snapshot.size_bytes}"})
    with snapshot.path.open("rb") as file:
        file.seek(start)
        part = file.read(min(stop - start, MAX_PART))
    last = start + len(part) - 1
    headers["Content-Range"] = f"bytes {start}-{last}/{snapshot.size_bytes}"
    headers["Content-Digest"] = digest(part)
    return Response(part, 206, headers)


def _whole(snapshot: Snapshot, headers: dict[str, str]) -> Response:
    # Opened here: the file may be deleted while it is sent.
    file = snapshot.path.open("rb")
    headers |= {"Content-Length": str(snapshot.size_bytes), "Content-Digest": snapshot.digest}
    return StreamingResponse(_chunks(file), 200, headers)


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while data := await anyio.to_thread.run_sync(file.read, _CHUNK):
            yield data
    finally:
        file.close()


def _bounds(match: re.Match[str], size: int) -> tuple[int, int]:
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


def _tags(value: str) -> set[str]:
    return {tag.strip() for tag in value.split(",")}


def _empty(status: int, headers: dict[str, str]) -> Response:
    return Response(b"", status, headers | {"Content-Digest": digest(b"")})
