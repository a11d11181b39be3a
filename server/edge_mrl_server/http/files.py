"""A snapshot's file as a response, whole or in part (RFC 9110, ranges of bytes)."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import BinaryIO

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edge_mrl.wire import CONTENT_TYPE, digest
from edge_mrl_server.http.snapshot import Opened

__all__ = ["file_response"]

_CHUNK = 1 << 18
#: A part is read twice, so that its digest can stand before it. Of a longer one only the beginning is
#: sent: the device asks for the rest.
MAX_PART = 8 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def file_response(opened: Opened, request: Request) -> Response:
    """The response to a GET: 200, 206, 304, 412 or 416. Blocks. The file is closed behind it."""
    snapshot, wanted = opened.snapshot, request.headers
    headers = {
        "ETag": snapshot.etag,
        "Repr-Digest": snapshot.digest,
        "Accept-Ranges": "bytes",
        "Content-Type": CONTENT_TYPE,
    }
    if "if-match" in wanted and snapshot.etag not in _tags(wanted["if-match"]):
        return _empty(412, headers)
    if snapshot.etag in _tags(wanted.get("if-none-match", "")):
        return _empty(304, headers)
    asked, size = wanted.get("range"), snapshot.size_bytes
    match = None
    if asked is not None and wanted.get("if-range", snapshot.etag) == snapshot.etag:
        match = _RANGE.fullmatch(asked.strip())
    if match is None or match.groups() == ("", ""):
        # Several ranges, or another unit: ignored, as is allowed.
        headers["Content-Digest"] = snapshot.digest
        return _stream(opened.file, 0, size, 200, headers)
    start, stop = _bounds(match, size)
    if start >= stop:
        return _empty(416, headers | {"Content-Range": f"bytes */{size}"})
    stop = min(stop, start + MAX_PART)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Digest"] = _digest(opened.file, start, stop)
    return _stream(opened.file, start, stop, 206, headers)


def _digest(file: BinaryIO, start: int, stop: int) -> str:
    sha = hashlib.sha256()
    file.seek(start)
    while start < stop and (data := file.read(min(_CHUNK, stop - start))):
        sha.update(data)
        start += len(data)
    return f"sha-256=:{b64encode(sha.digest()).decode()}:"


def _stream(
    file: BinaryIO, start: int, stop: int, status: int, headers: dict[str, str]
) -> StreamingResponse:
    file.seek(start)
    headers |= {"Content-Length": str(stop - start)}
    return StreamingResponse(_chunks(file, stop - start), status, headers)


async def _chunks(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    while size and (data := await anyio.to_thread.run_sync(file.read, min(_CHUNK, size))):
        size -= len(data)
        yield data


def _bounds(match: re.Match[str], size: int) -> tuple[int, int]:
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


def _tags(value: str) -> set[str]:
    return {tag.strip() for tag in value.split(",")}


def _empty(status: int, headers: dict[str, str]) -> Response:
    return Response(b"", status, headers | {"Content-Digest": digest(b"")})
