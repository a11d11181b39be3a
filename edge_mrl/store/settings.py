"""Settings of a store: texts by name, each with a checksum.

They hold for the codes that the store has now, and are deleted when it is bound to a bundle anew.
"""

from __future__ import annotations

import sqlite3

from edge_mrl.errors import DamagedError
from edge_mrl.store.records import checksum
from edge_mrl.store.statements import insert_row

__all__ = ["SEARCH_STAGES", "delete_settings", "read_setting", "write_setting"]

#: The setting that holds the stages of this store's searches, as text.
SEARCH_STAGES = "funnel"


def read_setting(connection: sqlite3.Connection, name: str) -> str | None:
    """The text of a setting, or None if it is not set.

    Raises:
        DamagedError: The text is not what was written.
    """
    query = "SELECT value, crc FROM settings WHERE name = ?"
    row = connection.execute(query, (name,)).fetchone()
    if row is None:
        return None
    value, crc = row
    if checksum(name, value) != crc:
        raise DamagedError(f"its setting {name!r} cannot be trusted")
    return str(value)


def write_setting(connection: sqlite3.Connection, name: str, value: str | None) -> None:
    """Write a setting; None deletes it."""
    connection.execute("DELETE FROM settings WHERE name = ?", (name,))
    if value is not None:
        row = {"name": name, "value": value, "crc": checksum(name, value)}
        insert_row(connection, "settings", row)


def delete_settings(connection: sqlite3.Connection) -> None:
    """Delete all settings: the codes that they were made for are not there any more."""
    connection.execute("DELETE FROM settings")
