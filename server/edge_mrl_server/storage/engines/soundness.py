"""Whether a SQLite file is a whole database of this server."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from edge_mrl_server.errors import DamagedDatabaseError, DatabaseError
from edge_mrl_server.storage.migrations import MIGRATIONS

__all__ = ["APPLICATION_ID", "check_structure", "count_problems", "identify", "is_damage"]

#: "eMRS": a server's database, not a device's store.
APPLICATION_ID = 0x654D5253
#: "eMRL": a device's store.
_STORE_ID = 0x654D524C
#: SQLite's codes for what waiting does not mend.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: Problems that are told.
_TOLD = 5


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that a file is malformed, or no database at all."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return (code & 0xFF) in _DAMAGE
    return "malformed" in str(error) or "not a database" in str(error)


def identify(connection: sqlite3.Connection, path: Path) -> int:
    """Check that a file is a database of this server, or of an earlier one; returns its version.

    Raises:
        DatabaseError: It is not.
        sqlite3.Error: It cannot be read.
    """
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found == _STORE_ID:
        raise DatabaseError(f"{path} is a device's store, not a server's database: name another")
    if found != APPLICATION_ID:
        what = "is not a database of this server" if found or tables else "is an empty database"
        raise DatabaseError(f"{path} {what}: name another file")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    names = [step.name for step in MIGRATIONS["sqlite"]]
    if version > len(names):
        raise DatabaseError(f"{path} was written by a newer edge-mrl: update this one")
    sql = "SELECT name FROM migrations ORDER BY version"
    applied = [row[0] for row in connection.execute(sql)]
    if applied != names[:version]:
        raise DatabaseError(
            f"{path} was made by another line of this program ({', '.join(applied) or 'no steps'}), "
            f"expected {', '.join(names[:version]) or 'some'}: use the program that made it"
        )
    return int(version)


def check_structure(connection: sqlite3.Connection, path: Path, *, quick: bool = False) -> None:
    """Read every page.

    Args:
        connection: To the file.
        path: Its name.
        quick: Do not compare indexes with their tables.

    Raises:
        DamagedDatabaseError: The file is malformed.
    """
    try:
        pragma = "quick_check" if quick else "integrity_check"
        rows = [row[0] for row in connection.execute(f"PRAGMA {pragma}({_TOLD})")]
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        rows = [str(error)]
    if rows != ["ok"]:
        raise DamagedDatabaseError(
            f"{path} is damaged ({_short(rows)}): restore a copy (`edge-mrl admin restore COPY`)"
        )


def count_problems(connection: sqlite3.Connection) -> list[str]:
    """Where the counts of tenants disagree with what is there: files of several moments mixed.

    SQLite compares indexes with tables, and finds no fault in pages that are whole but of other commits.
    """
    problems = [
        f"tenant {row[0]}: it counts {row[1]}, there are {row[2]}"
        for row in connection.execute(
            "SELECT t.tenant, t.documents || ' documents, ' || t.tombstones || ' tombstones, ' "
            "|| t.passages || ' passages' AS counted, coalesce(d.live, 0) || ' documents, ' "
            "|| coalesce(d.dead, 0) || ' tombstones, ' || coalesce(d.passages, 0) || ' passages' "
            "AS found FROM tenants t LEFT JOIN (SELECT tenant, sum(NOT deleted) AS live, "
            "sum(deleted <> 0) AS dead, sum(passages) AS passages FROM documents GROUP BY tenant) d "
            "ON d.tenant = t.tenant WHERE counted <> found"
        )
    ]
    sql = {
        "documents of no tenant": "SELECT count(*) FROM documents WHERE tenant NOT IN "
        "(SELECT tenant FROM tenants)",
        "documents changed after their tenant's last change": "SELECT count(*) FROM documents d "
        "JOIN tenants t ON t.tenant = d.tenant WHERE d.change > t.change",
        "documents whose vectors are missing or of another length": "SELECT count(*) FROM documents d "
        "JOIN tenants t ON t.tenant = d.tenant LEFT JOIN vectors v ON v.tenant = d.tenant "
        "AND v.id = d.id WHERE coalesce(length(v.vectors), 0) <> 2 * d.passages * "
        "coalesce(t.full_dim, 0)",
        "vectors of no document": "SELECT count(*) FROM vectors v LEFT JOIN documents d "
        "ON d.tenant = v.tenant AND d.id = v.id WHERE d.id IS NULL",
    }
    for name, query in sql.items():
        (count,) = connection.execute(query).fetchone()
        if count:
            problems.append(f"{count:,} {name}")
    return problems


def _short(rows: Sequence[str]) -> str:
    lines = [line.strip() for row in rows for line in row.splitlines() if line.strip()]
    return "; ".join(lines[:2])[:200]
