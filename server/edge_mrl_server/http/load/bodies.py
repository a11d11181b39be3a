"""Bodies of requests: read within limits of size and time, and only then looked at."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request

from edge_mrl.wire import matches_digest
from edge_mrl_server.http.refusals import Refusal

__all__ = ["Reading", "check_digest", "discard", "json_of_frame"]

#: A whole body may take so many times as long as a client may be silent.
_PATIENCE = 3
#: What a device is still sending when it is told to wait is read and thrown away, so that the answer
#: reaches it: so much, for so long.
DISCARD_BYTES, DISCARD_S = 1 << 20, 2.0
_LENGTH = struct.Struct("<I")
#: Python refuses to read longer numbers; no body is that long.
_MAX_DIGITS = 19


class Reading:
    """How a body is read.

    Args:
        silence_s: Seconds without a byte after which it is given up; three times that for all of it.
        add: Counts bytes that are in memory, and raises ``Refusal`` where there are too many.
    """

    def __init__(self, silence_s: float, add: Callable[[int], None]) -> None:
        self._silence_s = silence_s
        self._add = add

    async def read(self, request: Request, most: int, most_json: int | None = None) -> bytearray:
        """The whole body.

        Args:
            request: The request.
            most: Bytes that it may have.
            most_json: Bytes that the JSON of a frame may have: one that says that it has more is not
                kept in memory. None for bodies that are no frames.

        Raises:
            Refusal: The body is too large or too slow, or too much is in memory already.
        """
        size = _declared(request)
        if size > most:
            raise _too_large(size, most)
        self._add(size)
        data, count, refused = bytearray(), 0, None
        loop, chunks = asyncio.get_running_loop(), request.stream().__aiter__()
        deadline = loop.time() + _PATIENCE * self._silence_s
        try:
            while True:
                async with asyncio.timeout(min(self._silence_s, deadline - loop.time())):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                count += len(chunk)
                if count > most:
                    raise _too_large(count, most)
                if count > size:
                    self._add(count - size)
                    size = count
                # Of what is refused, the rest is read, so that the answer arrives, and thrown away.
                if refused is None:
                    data += chunk
                    refused = _too_much_json(data, size, most_json)
        except TimeoutError as error:
            raise Refusal(408, "timeout", "the body came too slowly") from error
        except ClientDisconnect as error:
            raise Refusal(400, "malformed", "the body ended early") from error
        if refused is not None:
            raise refused
        return data


async def discard(request: Request) -> bool:
    """Read what is left of a body and throw it away; returns whether it has ended."""
    if _declared(request) > DISCARD_BYTES:
        return False
    count = 0
    try:
        async with asyncio.timeout(DISCARD_S):
            async for chunk in request.stream():
                count += len(chunk)
                if count > DISCARD_BYTES:
                    return False
    except (TimeoutError, ClientDisconnect):
        return False
    except RuntimeError:  # it was read before
        return True
    return True


def json_of_frame(body: bytearray) -> memoryview:
    """The JSON of a frame, not parsed; empty where the frame is none."""
    if len(body) < _LENGTH.size:
        return memoryview(b"")
    (size,) = _LENGTH.unpack_from(body)
    return memoryview(body)[_LENGTH.size : _LENGTH.size + size]


def _too_much_json(data: bytearray, size: int, most: int | None) -> Refusal | None:
    """The refusal of a frame's beginning that says that its JSON is too long; the beginning is dropped.

    Args:
        data: What has come of the body.
        size: Bytes that the body is said to have, or has.
        most: Bytes that the JSON may have; None for bodies that are no frames.
    """
    if most is None or len(data) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(data)
    room = _LENGTH.size + most
    if length <= most or (length > size - _LENGTH.size and len(data) <= room):
        return None
    data.clear()
    return Refusal(413, "too_large", f"a frame's header of {length} bytes, expected at most {most}")


def check_digest(body: bytes | bytearray, given: str | None) -> None:
    """Compare a body with its digest.

    Raises:
        Refusal: It is not what the digest says.
    """
    if not matches_digest(body, given):
        raise Refusal(
            400, "digest", "the body is not what its Content-Digest (sha-256) says: send it again"
        )


def _declared(request: Request) -> int:
    declared = request.headers.get("content-length", "0")
    good = declared.isascii() and declared.isdigit() and len(declared) <= _MAX_DIGITS
    return int(declared) if good else 0


def _too_large(size: int, most: int) -> Refusal:
    return Refusal(413, "too_large", f"a body of {size} bytes, expected at most {most}")
