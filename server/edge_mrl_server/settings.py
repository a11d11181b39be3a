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
        proxies: Addresses and networks whose ``X-Forwarded-For`` says where a request comes from;
            ``*`` for whoever connects.
        cache_bytes: Bytes of snapshots on the disk at most.
        connections: Open connections at most; fewer where the system allows fewer files.
        address_connections: Open connections of one address at most, but for proxies.
        device_requests: Requests of one device that are answered at once.
        tenant_requests: Requests of a tenant that are answered at once.
        log_rate: Lines a second about one tenant's requests.
        grace_days: Days after its last contact in which a device may renew a token that has expired.
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
    proxies: tuple[str, ...] = ()
    cache_bytes: int = 2 << 30
    connections: int = 4_000
    address_connections: int = 256
    device_requests: int = 16
    tenant_requests: int = 256
    log_rate: float = 100.0
    grace_days: float = 365.0
