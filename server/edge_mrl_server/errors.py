"""What the server says no with.

EdgeMrlError
├── UnavailableError          exit 4   the database cannot be reached, is full, or is read-only just now
└── DatabaseError             exit 2   a database that is not ours, or newer than this server
Refusal                                an answer to a device: status, code, message (FORMAT.md, "Wire")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_mrl.errors import EdgeMrlError

__all__ = ["DatabaseError", "Refusal", "UnavailableError"]


class UnavailableError(EdgeMrlError):
    """The database cannot take or give anything just now; trying again later may help."""

    exit_code = 4


class DatabaseError(EdgeMrlError):
    """A database that this server cannot use, whenever it is tried."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """An answer other than success.

    Args:
        status: The HTTP status.
        code: The word that programs go by.
        message: What people read: what, expected, got, what to do next.
        retry_after_s: Seconds after which it may be tried again.
        extra: Further keys of the answer's ``error`` object.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.extra: Mapping[str, Any] = extra
