"""The settings of a server process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server behaves.

    Attributes:
        database: A path, or a ``postgresql://`` address.
        cache: Folder for snapshots; None for a temporary one.
        threads: Calls of the storage that may run at once.
        write_timeout_s: Seconds that a device waits for a commit at most.
        in_flight_bytes: Bytes of request bodies in memory at once.
        body_timeout_s: Seconds without a byte, in or out, after which a client is disconnected.
        device_rate: Requests a second from one device.
        tenant_rate: Requests a second from all devices of a tenant.
        enroll_rate: Enrollments a second from one address.
        failure_rate: Requests a second without a valid token from one address.
        behind_proxy: Whether a request's address is the last entry of ``X-Forwarded-For``.
        cache_bytes: Bytes of snapshots on the disk at most.
    """

    database: str
    cache: Path | None = None
    threads: int = 8
    write_timeout_s: float = 20.0
    in_flight_bytes: int = 128 << 20
    body_timeout_s: float = 20.0
    device_rate: float = 100.0
    tenant_rate: float = 2_000.0
    enroll_rate: float = 20.0
    failure_rate: float = 20.0
    behind_proxy: bool = False
    cache_bytes: int = 2 << 30
