"""Devices with real stores, and a server of their own whose database is copied and put back."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.outcome import Outcome
from tests.support.bundles import TINY
from tests.support.serving import Serving, admin

__all__ = ["Fleet", "enroll_anew", "spoil", "texts"]

DOCUMENTS = "SELECT id, stamp, device FROM {table} WHERE NOT deleted ORDER BY id"


class Fleet:
    """A server of its own, and devices; the server's database is copied and put back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "server.db"
        self.server = Serving(self.database, "--quiet")
        self.devices: dict[str, tuple[Index, SyncClient]] = {}

    def device(self, name: str, *, with_text: bool = False, keep_full: str | None = None) -> None:
        index = Index.open(self.folder / f"{name}.db", TINY, keep_full=keep_full)
        invitation = admin(self.database, "invitations", "create", "default")["invitation"]
        enroll(index.store, self.server.url, invitation, name=name, with_text=with_text)
        self.devices[name] = index, SyncClient.open(index)

    def put(self, device: str, **texts: str) -> None:
        self.devices[device][0].put([Document(name, text) for name, text in texts.items()])

    def sync(self, *names: str) -> list[Outcome]:
        outcomes = [self.devices[name][1].sync_once() for name in names]
        assert all(outcome.done for outcome in outcomes), outcomes
        return outcomes

    def copy(self, name: str = "copy") -> None:
        with (
            closing(sqlite3.connect(self.database)) as source,
            closing(sqlite3.connect(self.folder / f"{name}.db")) as target,
        ):
            source.backup(target)

    def restore(self, name: str = "copy", *, said: bool = True) -> None:
        port = self.server.port
        self.server.kill()
        for end in ("-wal", "-shm"):
            Path(f"{self.database}{end}").unlink(missing_ok=True)
        shutil.copy(self.folder / f"{name}.db", self.database)
        if said:
            admin(self.database, "restored")
        self.server = Serving(self.database, "--quiet", port=port)

    def held(self) -> list[tuple[str, int, str]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(DOCUMENTS.format(table="documents")).fetchall()

    def here(self, name: str) -> list[tuple[str, int, str]]:
        with self.devices[name][0].store.locked() as (connection, _):
            return connection.execute(DOCUMENTS.format(table="versions")).fetchall()

    def assert_same(self, *names: str) -> None:
        held = self.held()
        for name in names:
            index = self.devices[name][0]
            assert self.here(name) == held, name
            assert set(index.get([row[0] for row in held])) == {row[0] for row in held}
            assert index.stats().documents == len(held)
            assert index.check().sound, index.check().problems

    def letters(self, name: str) -> list[tuple[str, str]]:
        return [(one.id, one.reason) for one in self.devices[name][1].dead_letters()]

    def close(self) -> None:
        for index, client in self.devices.values():
            client.close()
            index.close()
        self.server.kill()


def texts(fleet: Fleet, name: str, *ids: str) -> list[str]:
    found = fleet.devices[name][0].get(ids)
    return [found[one].text if one in found else "-" for one in ids]


def enroll_anew(fleet: Fleet, name: str) -> None:
    index, client = fleet.devices[name]
    client.close()
    invitation = admin(fleet.database, "invitations", "create", "default")["invitation"]
    enroll(index.store, fleet.server.url, invitation, name=name, with_text=True)
    fleet.devices[name] = index, SyncClient.open(index)


def spoil(fleet: Fleet, statement: str) -> None:
    with closing(sqlite3.connect(fleet.database)) as connection, connection:
        assert connection.execute(statement).rowcount > 0
        connection.execute("DELETE FROM sums")
