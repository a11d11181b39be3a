"""Keys of the encrypted stores that tests make."""

from __future__ import annotations

import hashlib

__all__ = ["KEY", "OTHER", "named_key"]


def named_key(name: str) -> bytes:
    """A key that is always the same for a name, so that other processes have it too."""
    return hashlib.sha256(name.encode()).digest()


def KEY() -> bytes:  # noqa: N802 - a constant, as code under test takes it
    """The key of tests."""
    return named_key("key")


def OTHER() -> bytes:  # noqa: N802 - as above
    """Another key."""
    return named_key("other")
