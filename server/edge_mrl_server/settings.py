"""What a server process is told when it starts."""

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
        threads: Storage calls at once.
        write_timeout_s: How long a device is kept waiting for a commit.
        in_flight_bytes: Bodies held at once.
        body_timeout_s: How long a body, or an answer's way out, may take without a byte.
        device_rate: Requests a second of one device.
        tenant_rate: Requests a second of one tenant.
        enroll_rate: Enrollments a second from one address.
        failure_rate: Requests a second from one address whose tokens are none.
        behind_proxy: Whether a proxy's ``X-Forwarded-For`` says where requests come from.
        cache_bytes: Snapshots on the disk at most.
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
