"""The tables of both databases, as named migrations.

``tenant`` comes first in every key, and no statement touches two tenants' documents, so that every table
but ``migrations`` can be distributed by that column unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MIGRATIONS", "Migration", "statements"]


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from a version of the tables to the next.

    Attributes:
        name: What the table ``migrations`` says of it.
        statements: SQL, with ``TYPES`` in braces.
    """

    name: str
    statements: tuple[str, ...]


#: What stands in the statements below for each database.
TYPES = {
    # Both compare UTF-8 byte by byte, and so by code point.
    "sqlite": {
        "text": "TEXT",
        "bytes": "BLOB",
        "long": "INTEGER",
        "truth": "INTEGER",
        "false": "0",
        "random": "lower(hex(randomblob(8)))",
    },
    "postgres": {
        "text": 'TEXT COLLATE "C"',
        "bytes": "BYTEA",
        "long": "BIGINT",
        "truth": "BOOLEAN",
        "false": "FALSE",
        "random": "left(replace(gen_random_uuid()::text, '-', ''), 16)",
    },
}

_FIRST = (
    # A row is locked by whoever changes the tenant's documents: change numbers come in commit order.
    """CREATE TABLE tenants (
        tenant {text} NOT NULL PRIMARY KEY,
        space_id {text},
        full_dim INTEGER,
        change {long} NOT NULL DEFAULT 0,
        fence {long} NOT NULL DEFAULT 0,
        fence_stamp {long} NOT NULL DEFAULT 0,
        fence_device {text} NOT NULL DEFAULT '',
        documents {long} NOT NULL DEFAULT 0,
        tombstones {long} NOT NULL DEFAULT 0,
        passages {long} NOT NULL DEFAULT 0,
        limits {text} NOT NULL DEFAULT '{{}}',
        created_ms {long} NOT NULL
    )""",
    """CREATE TABLE devices (
        tenant {text} NOT NULL,
        device {text} NOT NULL,
        name {text} NOT NULL,
        created_ms {long} NOT NULL,
        revoked_ms {long},
        pushed_ms {long},
        pulled_ms {long},
        pulled {long} NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, device)
    )""",
    """CREATE TABLE tokens (
        tenant {text} NOT NULL,
        hash {bytes} NOT NULL,
        device {text} NOT NULL,
        used {truth} NOT NULL,
        created_ms {long} NOT NULL,
        expires_ms {long} NOT NULL,
        PRIMARY KEY (tenant, hash)
    )""",
    "CREATE INDEX tokens_by_device ON tokens (tenant, device)",
    """CREATE TABLE codes (
        tenant {text} NOT NULL,
        hash {bytes} NOT NULL,
        device {text},
        created_ms {long} NOT NULL,
        expires_ms {long} NOT NULL,
        PRIMARY KEY (tenant, hash)
    )""",
    """CREATE TABLE heads (
        tenant {text} NOT NULL,
        head {text} NOT NULL,
        layer_norm {truth} NOT NULL,
        matrix_rows INTEGER NOT NULL,
        matrix_columns INTEGER NOT NULL,
        matrix {bytes} NOT NULL,
        created_ms {long} NOT NULL,
        PRIMARY KEY (tenant, head)
    )""",
    # text and metadata are bytes: PostgreSQL's text cannot hold U+0000, which documents may.
    """CREATE TABLE documents (
        tenant {text} NOT NULL,
        id {text} NOT NULL,
        stamp {long} NOT NULL,
        change {long} NOT NULL,
        passages INTEGER NOT NULL,
        deleted {truth} NOT NULL,
        device {text} NOT NULL,
        metadata {bytes},
        spans {bytes},
        text {bytes},
        PRIMARY KEY (tenant, id)
    )""",
    "CREATE UNIQUE INDEX documents_by_change ON documents (tenant, change)",
)

#: One row for each document: a file that is read by one machine gains nothing from smaller rows.
_SQLITE_VECTORS = """CREATE TABLE vectors (
        tenant TEXT NOT NULL,
        id TEXT NOT NULL,
        vectors BLOB NOT NULL,
        PRIMARY KEY (tenant, id)
    )"""

#: One row for each passage, as an index over vectors wants.
_POSTGRES_VECTORS = """CREATE TABLE passages (
        tenant TEXT COLLATE "C" NOT NULL,
        id TEXT COLLATE "C" NOT NULL,
        position INTEGER NOT NULL,
        vector HALFVEC NOT NULL,
        PRIMARY KEY (tenant, id, position)
    )"""

_SECOND = (
    "ALTER TABLE tenants ADD COLUMN epoch {text} NOT NULL DEFAULT ''",
    "UPDATE tenants SET epoch = {random}",
    "ALTER TABLE devices ADD COLUMN push {long} NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN refused {text}",
    "ALTER TABLE devices ADD COLUMN kept {long} NOT NULL DEFAULT 0",
)

_THIRD = (
    "ALTER TABLE tenants ADD COLUMN newest {long} NOT NULL DEFAULT 0",
    "ALTER TABLE tenants ADD COLUMN restamped {text} NOT NULL DEFAULT '{{}}'",
    (
        "UPDATE tenants SET newest = coalesce((SELECT max(stamp) FROM documents "
        "WHERE documents.tenant = tenants.tenant), 0)"
    ),
    "UPDATE tenants SET newest = fence_stamp WHERE fence_stamp > newest",
    "ALTER TABLE devices ADD COLUMN pulled_epoch {text} NOT NULL DEFAULT ''",
)

_IDENTITIES = (
    # Makes tokens and receipts; filled when it is first needed, so that it is random in both databases.
    "ALTER TABLE tenants ADD COLUMN secret {bytes}",
    "ALTER TABLE tenants ADD COLUMN doubt_ms {long} NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN doubts {long} NOT NULL DEFAULT 0",
    "ALTER TABLE devices ADD COLUMN marks {text} NOT NULL DEFAULT ''",
    "ALTER TABLE devices ADD COLUMN cloned_ms {long}",
    "ALTER TABLE devices ADD COLUMN space_id {text}",
    "ALTER TABLE devices ADD COLUMN read_only {truth} NOT NULL DEFAULT {false}",
    "ALTER TABLE codes ADD COLUMN read_only {truth} NOT NULL DEFAULT {false}",
)

_AGREEMENT = (
    # Sums of live documents; those of another change than the tenant's are made again.
    """CREATE TABLE sums (
        tenant {text} NOT NULL,
        change {long} NOT NULL,
        sums {bytes} NOT NULL,
        made_ms {long} NOT NULL,
        PRIMARY KEY (tenant)
    )""",
    # When the tenant's epoch began, where that was after a restore.
    "ALTER TABLE tenants ADD COLUMN restored_ms {long} NOT NULL DEFAULT 0",
)

#: In order, for each kind of database. A released migration never changes; a new one goes at the end.
MIGRATIONS: dict[str, tuple[Migration, ...]] = {
    "sqlite": (
        Migration("0001-tenants-documents-vectors", (*_FIRST, _SQLITE_VECTORS)),
        Migration("0002-epochs-numbered-pushes", _SECOND),
        Migration("0003-newest-stamps", _THIRD),
        Migration("0004-identities-of-devices", _IDENTITIES),
        Migration("0005-sums-restored", _AGREEMENT),
    ),
    "postgres": (
        Migration(
            "0001-tenants-documents-vectors",
            (
                *_FIRST,
                _POSTGRES_VECTORS,
                "ALTER TABLE passages ALTER COLUMN vector SET STORAGE PLAIN",
            ),
        ),
        Migration("0002-epochs-numbered-pushes", _SECOND),
        Migration("0003-newest-stamps", _THIRD),
        Migration("0004-identities-of-devices", _IDENTITIES),
        Migration("0005-sums-restored", _AGREEMENT),
    ),
}


def statements(kind: str, version: int) -> list[str]:
    """The statements of migration ``version`` (from 0) for ``sqlite`` or ``postgres``."""
    return [sql.format(**TYPES[kind]) for sql in MIGRATIONS[kind][version].statements]
