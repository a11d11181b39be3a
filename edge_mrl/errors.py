"""Every error that edge-mrl raises on purpose, and the command line's exit code for it.

EdgeMrlError
├── UsageError                exit 2   wrong usage or input
│   ├── NoStoreError                   there is no store at this path
│   ├── NotEnrolledError               a store that belongs to no server yet
│   └── RefusedDocumentsError exit 5   documents with such texts; all others were stored
├── GateError                 exit 1   a check or a quality gate failed
├── BundleError               exit 2   a bundle that cannot be trusted
│   ├── MissingFileError               a file that the manifest lists is missing
│   ├── TruncatedError                 a file's size differs from the manifest's
│   ├── HashError                      a file's SHA-256 differs from the manifest's
│   ├── FormatError                    a format or version that this release cannot read
│   ├── ManifestError                  a manifest with a missing, unknown or wrongly typed key
│   ├── GraphError                     a graph that is not as FORMAT.md says
│   ├── TokenizerError                 a tokenizer with parts that no bundle has
│   └── SignatureError                 a bundle that no trusted key has signed
├── EncoderError              exit 2   a text that a bundle's tokenizer or graph cannot encode
├── StoreError                exit 2   a store that cannot be used
│   ├── NotAStoreError                 a file that edge-mrl did not write (it is left untouched)
│   ├── BindingError                   a store of another embedding space or code
│   ├── StoreVersionError              a store that a newer edge-mrl wrote
│   ├── StoreKeyError                  an encrypted store without its key, or a key for a plain store
│   ├── DamagedError                   stored bytes that do not match their checksum
│   ├── UnwritableStoreError           a store that can be read, not written: a full card, for example
│   └── StoreBusyError                 another process is writing
├── OutOfMemoryError          exit 2   memory ran out; everything that was committed is kept
├── StepError                 exit 2   a process that took a measurement ended without a result
├── MissingDependencyError    exit 3   an optional package is not installed
├── WireError                 exit 4   bytes from another machine that are not a valid message
└── NetworkError              exit 4   a server or model hub could not be reached
    ├── ServerError                    a server was reached and refused the request
    ├── IntermediaryError              a proxy or a login page answered in the server's place
    └── OversizedAnswerError           an answer of more bytes than its kind can have
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "BindingError",
    "BundleError",
    "DamagedError",
    "EdgeMrlError",
    "EncoderError",
    "FormatError",
    "GateError",
    "GraphError",
    "HashError",
    "IntermediaryError",
    "ManifestError",
    "MissingDependencyError",
    "MissingFileError",
    "NetworkError",
    "NoStoreError",
    "NotAStoreError",
    "NotEnrolledError",
    "OutOfMemoryError",
    "OversizedAnswerError",
    "RefusedDocumentsError",
    "ServerError",
    "SignatureError",
    "StepError",
    "StoreBusyError",
    "StoreError",
    "StoreKeyError",
    "StoreVersionError",
    "TokenizerError",
    "TruncatedError",
    "UnwritableStoreError",
    "UsageError",
    "WireError",
    "brief",
    "reason",
]


class EdgeMrlError(Exception):
    """Base of all errors here; ``exit_code`` is what the command line returns for it."""

    exit_code: ClassVar[int] = 2


class UsageError(EdgeMrlError):
    """Wrong usage or input: the message says what was expected and what was given."""


class NotEnrolledError(UsageError):
    """A store that is not enrolled with a server.

    Args:
        store: The store's file.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        path = os.fspath(store)
        super().__init__(
            f"{path} is not enrolled: run `edge-mrl enroll --server URL --invitation INVITATION "
            f"--store {path}` first"
        )


class NoStoreError(UsageError):
    """There is no store at this path; the message says how to make one."""


class RefusedDocumentsError(UsageError):
    """Documents whose texts a bundle cannot take were left out; all others were stored.

    Attributes:
        stored: What was stored; an ``edge_mrl.ingest.Stored``, whose ``refused`` lists what was not.
    """

    exit_code = 5

    def __init__(self, message: str, *, stored: Any) -> None:
        super().__init__(message)
        self.stored = stored


class GateError(EdgeMrlError):
    """A check or a quality gate failed."""

    exit_code = 1


class BundleError(EdgeMrlError):
    """A bundle that cannot be trusted."""


class MissingFileError(BundleError):
    """A file that the manifest lists is missing."""


class TruncatedError(BundleError):
    """A file's size differs from the one in the manifest."""


class HashError(BundleError):
    """A file's SHA-256 differs from the one in the manifest."""


class FormatError(BundleError):
    """A format or version that this release cannot read."""


class ManifestError(BundleError):
    """A manifest with a missing, unknown or wrongly typed key."""


class GraphError(BundleError):
    """A graph with other parts, inputs or outputs than FORMAT.md describes."""


class TokenizerError(BundleError):
    """A tokenizer with parts that no bundle has; some could hang or use up the memory."""


class SignatureError(BundleError):
    """A bundle that no trusted key has signed, or that was changed since."""


class EncoderError(EdgeMrlError):
    """A text that the bundle's tokenizer or graph cannot encode, or not into finite numbers."""


class StoreError(EdgeMrlError):
    """A store that cannot be used."""


class NotAStoreError(StoreError):
    """A file that edge-mrl did not write; it is left untouched."""


class BindingError(StoreError):
    """A store that was made with another embedding space or another code."""


class StoreVersionError(StoreError):
    """A store that a newer edge-mrl wrote."""


class StoreKeyError(StoreError):
    """An encrypted store without its key, or with another one; or a key for a store that needs none."""


class DamagedError(StoreError):
    """Stored bytes do not match their checksum; ``edge-mrl check`` says which."""


class UnwritableStoreError(StoreError):
    """A store that can be read and not written: its card is full, or read-only. Nothing is lost."""


class StoreBusyError(StoreError):
    """Another process holds the store's write lock."""


class OutOfMemoryError(EdgeMrlError):
    """Memory ran out, or would have. Everything that was committed is kept."""


class StepError(EdgeMrlError):
    """A process that took a measurement ended without a result."""


class MissingDependencyError(EdgeMrlError):
    """An optional package is not installed; the message says how to install it."""

    exit_code = 3


class WireError(EdgeMrlError):
    """Bytes from another machine that are not a message of the protocol (FORMAT.md, "Wire")."""

    exit_code = 4


class NetworkError(EdgeMrlError):
    """A server or a model hub could not be reached.

    Attributes:
        retry_after_s: Seconds to wait before the next request, if the server asked for that; else None.
    """

    exit_code = 4

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerError(NetworkError):
    """A server was reached and refused the request.

    Attributes:
        status: The HTTP status.
        code: The kind of refusal, as FORMAT.md, "Wire", lists them.
        details: Everything the server said about it, by name.
        refused_exit_code: What `edge-mrl sync` returns where it refuses until a person changes something.
    """

    refused_exit_code: ClassVar[int] = 6

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "unknown",
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status
        self.code = code
        self.details = dict(details or {})


class IntermediaryError(NetworkError):
    """What stands between this machine and a server answered in its place: a proxy, a login page.

    Attributes:
        status: The HTTP status.
        sent_bytes: Bytes of the request's body.
    """

    def __init__(
        self, message: str, *, status: int, sent_bytes: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status
        self.sent_bytes = sent_bytes


class OversizedAnswerError(NetworkError):
    """An answer of more bytes than any right one of its kind has; it was not read to its end."""


def reason(error: BaseException) -> str:
    """The first line of another library's error message, or the error's class if it has no message."""
    text = str(error).strip()
    return brief(text.splitlines()[0].rstrip(".")) if text else type(error).__name__


def brief(value: object, most: int = 300) -> str:
    """A text for a message, shortened: what is wrong may be megabytes long."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 40]}… ({len(text)} characters)"
