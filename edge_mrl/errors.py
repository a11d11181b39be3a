"""Every error that edge-mrl raises on purpose.

EdgeMrlError
├── UsageError                exit 2   wrong usage or input
│   └── NoStoreError                   there is no store at this path
├── GateError                 exit 1   a check or a quality gate said no
├── BundleError               exit 2   a bundle that cannot be trusted
│   ├── MissingFileError               a file that the manifest names is not there
│   ├── TruncatedError                 a file is shorter or longer than the manifest says
│   ├── HashError                      a file's bytes are not those that were written
│   ├── FormatError                    a format or version that this reader does not know
│   ├── ManifestError                  a missing, unknown or wrongly typed key
│   └── GraphError                     the graph's inputs or outputs are not those promised
├── StoreError                exit 2   a store that cannot be used
│   ├── NotAStoreError                 a file that is not ours (it is left untouched)
│   ├── BindingError                   a store made with another embedding space or code
│   ├── StoreVersionError              a store written by a newer edge-mrl
│   ├── DamagedError                   bytes in a store that are not those that were written
│   └── StoreBusyError                 another process is writing
├── OutOfMemoryError          exit 2   memory ran out; nothing that was committed is lost
├── StepError                 exit 2   a process that was started to measure died
├── MissingDependencyError    exit 3   an optional package is not installed
├── WireError                 exit 4   bytes from another machine that are no message of ours
└── NetworkError              exit 4   a server or hub could not be reached
    └── ServerError                    a server was reached, and said no
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "BindingError",
    "BundleError",
    "DamagedError",
    "EdgeMrlError",
    "FormatError",
    "GateError",
    "GraphError",
    "HashError",
    "ManifestError",
    "MissingDependencyError",
    "MissingFileError",
    "NetworkError",
    "NoStoreError",
    "NotAStoreError",
    "OutOfMemoryError",
    "ServerError",
    "StepError",
    "StoreBusyError",
    "StoreError",
    "StoreVersionError",
    "TruncatedError",
    "UsageError",
    "WireError",
    "reason",
]


class EdgeMrlError(Exception):
    """Base of all errors here; ``exit_code`` is what the command line returns for it."""

    exit_code: ClassVar[int] = 2


class UsageError(EdgeMrlError):
    """Wrong usage or input: the message says what was expected and what came."""


class NoStoreError(UsageError):
    """There is no store at this path; the message says how to make one."""


class GateError(EdgeMrlError):
    """A check or a quality gate said no."""

    exit_code = 1


class BundleError(EdgeMrlError):
    """A bundle that cannot be trusted."""


class MissingFileError(BundleError):
    """A file that the manifest names is not there."""


class TruncatedError(BundleError):
    """A file's size is not the one in the manifest."""


class HashError(BundleError):
    """A file's SHA-256 is not the one in the manifest."""


class FormatError(BundleError):
    """A format or a version that this reader does not know."""


class ManifestError(BundleError):
    """A manifest with a missing, an unknown or a wrongly typed key."""


class GraphError(BundleError):
    """A graph whose inputs or outputs are not those that FORMAT.md promises."""


class StoreError(EdgeMrlError):
    """A store that cannot be used."""


class NotAStoreError(StoreError):
    """A file that edge-mrl did not write; it is left untouched."""


class BindingError(StoreError):
    """A store that was made with another embedding space or another code."""


class StoreVersionError(StoreError):
    """A store that a newer edge-mrl wrote."""


class DamagedError(StoreError):
    """Bytes in a store are not those that were written; ``edge-mrl check`` says which."""


class StoreBusyError(StoreError):
    """Another process holds the store's write lock."""


class OutOfMemoryError(EdgeMrlError):
    """Memory ran out, or would. Nothing that was committed is lost."""


class StepError(EdgeMrlError):
    """A process that was started to measure ended without an answer."""


class MissingDependencyError(EdgeMrlError):
    """An optional package is not installed; the message carries the line to type."""

    exit_code = 3


class WireError(EdgeMrlError):
    """Bytes from another machine that are no message of this protocol (FORMAT.md, "Wire")."""

    exit_code = 4


class NetworkError(EdgeMrlError):
    """A server or a model hub could not be reached.

    Attributes:
        retry_after_s: How long it asks to be left alone, in seconds; None if it said nothing.
    """

    exit_code = 4

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerError(NetworkError):
    """A server was reached, and said no.

    Attributes:
        status: The HTTP status.
        code: The server's word for it (FORMAT.md, "Wire").
        details: What else it said, by name.
    """

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


def reason(error: BaseException) -> str:
    """The first line of what another library says of an error, or its name if it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
