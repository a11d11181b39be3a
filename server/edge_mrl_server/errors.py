"""What the server's storage cannot do, or will not.

EdgeMrlError
├── UnavailableError               exit 4   the database cannot be reached, is full, or is read-only now
│   └── DatabaseInUseError                  another process has the database open
└── DatabaseError                  exit 2   a database that is not this server's, or a newer server's
    └── DamagedDatabaseError                the database is malformed: waiting does not help
RejectedError                               a device asks for what cannot be done; says why
├── InvalidTokenError                       a token that is unknown, expired or revoked
├── InvalidInvitationError                  an invitation that is unknown, used or expired
├── LimitReachedError                       the tenant has all devices or heads that it may have
├── InvalidHeadError                        a head that is not what its id says
├── WrongDimensionsError                    a query of other dimensions than the tenant's vectors
├── SpaceMismatchError                      vectors of another embedding space
├── FencedError                             tombstones that the device has not seen are forgotten
├── RestoredError                           the database is an older copy of what the device knew
├── SupersededPushError                     a push that comes after a later one
├── UnsureCopyError                         a device has to draw another mark, and to ask again
└── ClonedError                             a store that is a copy of another device's
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_mrl.errors import EdgeMrlError

__all__ = [
    "ClonedError",
    "DamagedDatabaseError",
    "DatabaseError",
    "DatabaseInUseError",
    "FencedError",
    "InvalidHeadError",
    "InvalidInvitationError",
    "InvalidTokenError",
    "LimitReachedError",
    "RejectedError",
    "RestoredError",
    "SpaceMismatchError",
    "SupersededPushError",
    "UnavailableError",
    "UnsureCopyError",
    "WrongDimensionsError",
]


class UnavailableError(EdgeMrlError):
    """The database cannot take or give anything just now; trying again later may help."""

    exit_code = 4


class DatabaseInUseError(UnavailableError):
    """Another process has the database open, and what is asked for needs it closed."""


class DatabaseError(EdgeMrlError):
    """A database that this server cannot use, whenever it is tried."""


class DamagedDatabaseError(DatabaseError):
    """The database is malformed. It is not busy: only a restore from a copy helps."""


class RejectedError(Exception):
    """What a device asks for cannot be done. The message is for people: what, why, what to do next.

    Args:
        message: The message.
        **details: What a program needs to know beside it, as JSON values.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details: Mapping[str, Any] = details


class InvalidTokenError(RejectedError):
    """A token that is unknown, expired or revoked, or no token at all."""


class InvalidInvitationError(RejectedError):
    """An invitation that is unknown, used or expired."""


class LimitReachedError(RejectedError):
    """The tenant has as many devices or heads as it may have."""


class InvalidHeadError(RejectedError):
    """A matrix that is not the head of its id, or holds values that are not finite."""


class WrongDimensionsError(RejectedError):
    """A query that has other dimensions than the tenant's vectors."""


class SpaceMismatchError(RejectedError):
    """Vectors of another embedding space than the tenant's; ``space`` is the tenant's."""

    def __init__(self, tenant_space: str, device_space: str) -> None:
        super().__init__(
            f"another model: this device's vectors are of embedding space {device_space[:64]}, this "
            f"tenant's of {tenant_space}. Vectors of two spaces cannot be compared, so nothing was "
            "stored or sent. Use a bundle of the tenant's space, or an invitation to another tenant",
            space=tenant_space,
        )


class FencedError(RejectedError):
    """Tombstones that the device has not seen are forgotten; ``fence`` is the last of them."""

    def __init__(self, message: str, *, fence: int) -> None:
        super().__init__(message, fence=fence)


class RestoredError(RejectedError):
    """The database was restored from an older copy, and the device's cursor is of another epoch.

    Args:
        claim: How the device showed that, if its request began the epoch: "proved" or "unproved".
    """

    def __init__(self, *, claim: str | None = None) -> None:
        super().__init__(
            "the server was restored from an older copy: pull everything, from 0, and send what it lacks"
        )
        self.claim = claim


class SupersededPushError(RejectedError):
    """A push that comes after the device was told that it had not arrived; ``push`` is the last one."""

    def __init__(self, number: int, *, last: int) -> None:
        super().__init__(
            f"push {number} comes too late, the last one was {last}: ask what became of it",
            push=last,
        )


class UnsureCopyError(RejectedError):
    """A device's marks go on where others had taken over: is it there, or is this request late?"""

    def __init__(self) -> None:
        super().__init__("draw another mark (Edge-MRL-Copy), and send this request again")


class ClonedError(RejectedError):
    """Several copies of a store send under one device's name; ``device`` is that name."""

    def __init__(self, device: str) -> None:
        super().__init__(
            f"this store is a copy of another device's: both send as device {device}. Enroll this one "
            "as a device of its own, with a new invitation; what waits in it is kept and sent then",
            device=device,
        )
