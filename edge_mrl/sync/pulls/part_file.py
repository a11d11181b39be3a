"""The part of a snapshot that was received, in a file of its own."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from edge_mrl.errors import NetworkError
from edge_mrl.machine import BINARY
from edge_mrl.store import PrivateData, PrivateStream

__all__ = ["PartFile"]

_HEAD_BYTES = 1_024
_LENGTH = struct.Struct("<I")


class PartFile:
    """The part of a snapshot that was received, kept so that an interrupted device continues there.

    The file begins with JSON that says which snapshot it is; the received bytes follow. Of an encrypted
    store, they are rows of its database.
    """

    def __init__(self, path: Path | PrivateData, code: str) -> None:
        self._path = path
        self._code = code
        self._file: BinaryIO | PrivateStream | None = None
        self.size = 0
        self.etag: str | None = None
        self._digest: str | None = None
        self._whole = -1

    def __enter__(self) -> Self:
        # Whatever its head has become: then it is begun anew.
        with suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            self._resume()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def complete(self) -> bool:
        """Whether the whole snapshot is there."""
        return self._whole >= 0 and self.size >= self._whole

    def add(self, data: bytes, *, size_bytes: int, etag: str, digest: str | None) -> None:
        """Append what was received."""
        if self._file is None:
            self._begin(size_bytes, etag, digest)
        elif size_bytes != self._whole:
            raise NetworkError("the snapshot changed while it was read")
        file = self._opened
        file.seek(_HEAD_BYTES + self.size)
        file.write(data)
        file.flush()
        self.size += len(data)

    def sound(self) -> bool:
        """Whether size and digest are those that the server announced."""
        file, sha = self._opened, hashlib.sha256()
        file.seek(_HEAD_BYTES)
        while part := file.read(1 << 20):
            sha.update(part)
        whole = f"sha-256=:{b64encode(sha.digest()).decode()}:"
        return self.size == self._whole and self._digest in (None, whole)

    def frames(self) -> Iterator[bytes]:
        """The snapshot's frames, in order.

        Raises:
            NetworkError: The snapshot ends within a frame.
        """
        file, at = self._opened, 0
        file.seek(_HEAD_BYTES)
        while at < self.size:
            head = file.read(_LENGTH.size)
            length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else self.size
            at += _LENGTH.size + length
            if at > self.size:
                raise NetworkError("the snapshot ends within a frame")
            yield file.read(length)

    def remove(self) -> None:
        """Delete the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._path.unlink(missing_ok=True)

    @property
    def _opened(self) -> BinaryIO | PrivateStream:
        assert self._file is not None
        return self._file

    def _begin(self, size_bytes: int, etag: str, digest: str | None) -> None:
        facts = {"code": self._code, "etag": etag, "size": size_bytes, "digest": digest}
        head = json.dumps(facts).encode().ljust(_HEAD_BYTES)
        if len(head) > _HEAD_BYTES:
            raise NetworkError("the snapshot's ETag is too long")
        self._path.unlink(missing_ok=True)
        if isinstance(self._path, PrivateData):
            self._path.append(head)
            self._file = self._path.stream()
        else:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
            self._file = os.fdopen(handle, "w+b")
            self._file.write(head)
        self.size, self.etag, self._digest, self._whole = 0, etag, digest, size_bytes

    def _stored(self) -> BinaryIO | PrivateStream:
        if isinstance(self._path, PrivateData):
            return self._path.stream()
        return self._path.open("r+b")

    def _resume(self) -> None:
        file = self._stored()
        try:
            facts = json.loads(file.read(_HEAD_BYTES))
            same = facts["code"] == self._code
            etag, whole, digest = str(facts["etag"]), int(facts["size"]), facts["digest"]
            size = min(file.seek(0, os.SEEK_END) - _HEAD_BYTES, whole)
        except BaseException:
            file.close()
            raise
        if not same or size < 0:
            file.close()
            return
        self._file, self.size, self.etag = file, size, etag
        self._whole, self._digest = whole, digest
