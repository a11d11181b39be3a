from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_mrl.index import Index
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl.wire import clock
from tests.support.bundles import TINY
from tests.support.serving import Serving, invitations, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One server for all; each test has a tenant of its own."""
    with serving(tmp_path_factory.mktemp("server") / "server.db") as running:
        yield running


class Device:
    """A store with its client, and a clock of its own."""

    def __init__(self, path: Path, url: str, code: str, clocks: Clock, ahead_ms: int) -> None:
        self._clocks, self._ahead_ms = clocks, ahead_ms
        self.here()
        self.index = Index.open(path, TINY)
        enroll(self.index.store, url, code, name=path.stem)
        self.client = SyncClient.open(self.index)

    def here(self) -> Device:
        """Make this device's clock the process's."""
        self._clocks.ahead_ms = self._ahead_ms
        return self

    def close(self) -> None:
        self.client.close()
        self.index.close()


class Clock:
    """The clock that versions are made by."""

    ahead_ms = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.ahead_ms * 1_000_000


NewCode = Callable[[], str]
NewDevice = Callable[..., Device]


@pytest.fixture
def new_code(server: Serving) -> Iterator[NewCode]:
    """Makes enrollment codes of one tenant."""
    with invitations(server) as make:
        yield make


@pytest.fixture
def new_device(
    server: Serving, new_code: NewCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NewDevice]:
    """Makes devices of one tenant."""
    clocks = Clock()
    monkeypatch.setattr(clock, "time", SimpleNamespace(time_ns=clocks.time_ns))
    devices: list[Device] = []

    def make(name: str, *, ahead_ms: int = 0, url: str | None = None) -> Device:
        clocks.ahead_ms = 0
        path = tmp_path / f"{name}.db"
        devices.append(Device(path, url or server.url, new_code(), clocks, ahead_ms))
        return devices[-1]

    yield make
    for device in devices:
        device.close()
