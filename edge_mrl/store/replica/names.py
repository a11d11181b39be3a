"""The names that a server gave this store's device: the present one, and those of before.

A device that is enrolled anew has another name. What it wrote before is on the server under the former
one, and stays that version; it is still this device's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge_mrl.store.binding import FORMER_NAMES, read_setting, write_setting

if TYPE_CHECKING:
    import sqlite3

    from edge_mrl.store.replica.outbox import Enrollment

__all__ = ["keep_name", "own_names"]

#: Names that are kept: whoever is enrolled more often writes mostly under the last ones.
MAX_NAMES = 64


def own_names(connection: sqlite3.Connection, enrollment: Enrollment) -> frozenset[str]:
    """All names of this store's device with its server, as versions have them."""
    return frozenset((enrollment.device, *_former(connection)))


def keep_name(connection: sqlite3.Connection, name: str | None) -> None:
    """Remember a name that is given up; None forgets all, where the server is another one.

    Args:
        connection: In a transaction that writes.
        name: The former name.
    """
    names = [] if name is None else [*_former(connection), name][-MAX_NAMES:]
    write_setting(connection, FORMER_NAMES, json.dumps(names) if names else None)


def _former(connection: sqlite3.Connection) -> list[str]:
    text = read_setting(connection, FORMER_NAMES)
    return [] if text is None else json.loads(text)
