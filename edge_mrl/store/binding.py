"""What a store is bound to, and its settings: texts by name that hold for the codes it has now."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edge_mrl.documents import PassageRule, clean, shorten
from edge_mrl.errors import BindingError, DamagedError, UsageError
from edge_mrl.store.codefile.file import GENERATION_BYTES
from edge_mrl.store.codefile.state import State, write_state
from edge_mrl.store.engine.cipher import database_errors
from edge_mrl.store.engine.explaining import LostBindingError
from edge_mrl.store.file import Fill
from edge_mrl.store.records import KEEP_FULL, Binding, checksum, decode_packing, encode_packing
from edge_mrl.store.schema.tables import mend_definitions_of
from edge_mrl.store.statements import insert_row

__all__ = [
    "ENGINES",
    "FLOOR",
    "FORMER_NAMES",
    "SEARCH_STAGES",
    "SWEEP",
    "Bound",
    "bound_anew",
    "bound_to_other",
    "fill_new",
    "forget_bootstrap",
    "forget_floor",
    "read_bound",
    "read_setting",
    "relative_bundle",
    "write_bound",
    "write_setting",
]

#: The setting that holds the stages of this store's searches, as text.
SEARCH_STAGES = "funnel"
#: The setting that holds the names under which the store was enrolled before. It is about no codes, and
#: stays when the store is bound anew.
FORMER_NAMES = "former"
#: The setting that holds the splitter of the store's passage rule, where that is not "tokens".
SPLITTER = "splitter"
_BY_TOKENS = "tokens"
#: What SQLite and Python say where a table of settings is damaged or lost.
_DAMAGE = ("malformed", "no such table", "no such column", "codec can't decode", "UTF-8")
#: The setting that names the engines that have made vectors for the store, with commas between them. They
#: stay when the store is bound anew: codes may have been made of vectors that were kept.
ENGINES = "engines"
#: And of a sync: how far everything was pulled; and where the server stood before anything was exchanged.
SWEEP = "sweep"
FLOOR = "floor"
#: Columns that the checksum covers, in its order. The bundle's place may change without a new checksum.
BOUND_COLUMNS = (
    "space_id",
    "code_id",
    "dim",
    "scale",
    "full_dim",
    "keep_full",
    "passage_tokens",
    "passage_overlap",
    "stored",
    "step",
    "centre",
)
_COLUMNS = (*BOUND_COLUMNS, "crc", "bundle", "bundle_relative")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a store is bound to.

    Attributes:
        binding: What its codes are.
        rule: How its documents are split into passages.
        keep_full: What it keeps of full vectors: None, "until-synced", "fp16" or "int8".
        bundle_relative: The bundle's path seen from the store's folder; "" if it is on another drive.
    """

    binding: Binding
    rule: PassageRule
    keep_full: str | None
    bundle_relative: str


def read_bound(connection: sqlite3.Connection, *, mend: bool = False) -> Bound:
    """What a store is bound to.

    Args:
        connection: The store's connection.
        mend: Define the table again where that is damaged.

    Raises:
        LostBindingError: The row is missing, or not what was written.
    """
    query = f"SELECT {', '.join(_COLUMNS)} FROM binding"  # noqa: S608 - own names
    try:
        row = connection.execute(query).fetchone()
    except database_errors():
        if not mend or not mend_definitions_of(connection):
            raise
        row = connection.execute(query).fetchone()
    if row is None:
        raise LostBindingError("its binding is missing")
    value = dict(zip(_COLUMNS, row, strict=True))
    if checksum(*(value[name] for name in BOUND_COLUMNS)) != value["crc"]:
        raise LostBindingError("its binding cannot be trusted")
    binding = Binding(
        space_id=value["space_id"],
        code_id=value["code_id"],
        dim=value["dim"],
        scale=value["scale"],
        bundle=value["bundle"],
        full_dim=value["full_dim"],
        packing=decode_packing(value["stored"], value["step"], value["centre"]),
    )
    splitter = _read_splitter(connection)
    rule = PassageRule(value["passage_tokens"], value["passage_overlap"], splitter)
    return Bound(binding, rule, value["keep_full"], value["bundle_relative"])


def write_bound(
    connection: sqlite3.Connection,
    path: Path,
    binding: Binding,
    rule: PassageRule,
    keep_full: str | None,
) -> None:
    """Write what a store is bound to, and delete settings that were made for other codes."""
    stored, step, centre = encode_packing(binding.packing)
    bound: dict[str, str | int | float | bytes | None] = {
        "space_id": binding.space_id,
        "code_id": binding.code_id,
        "dim": binding.dim,
        "scale": float(binding.scale),
        "full_dim": binding.full_dim,
        "keep_full": keep_full,
        "passage_tokens": rule.max_tokens,
        "passage_overlap": rule.overlap,
        "stored": stored,
        "step": step,
        "centre": centre,
    }
    beside = {
        "id": 1,
        "crc": checksum(*(bound[name] for name in BOUND_COLUMNS)),
        "bundle": clean(binding.bundle),
        "bundle_relative": relative_bundle(binding.bundle, path),
    }
    insert_row(connection, "binding", bound | beside, replace=True)
    connection.execute("DELETE FROM settings WHERE name NOT IN (?, ?)", (FORMER_NAMES, ENGINES))
    if rule.splitter != _BY_TOKENS:
        write_setting(connection, SPLITTER, rule.splitter)


def _read_splitter(connection: sqlite3.Connection) -> str:
    """How documents are split. If that is lost, by tokens, which gives right passages of any text."""
    try:
        return read_setting(connection, SPLITTER) or _BY_TOKENS
    except DamagedError:  # `check` names it, and `check --repair` deletes it
        return _BY_TOKENS
    except database_errors() as error:
        if not any(word in str(error) for word in _DAMAGE):
            raise
        return _BY_TOKENS


def fill_new(path: Path, binding: Binding, rule: PassageRule, keep_full: str | None) -> Fill:
    """What fills the tables of a new store.

    Raises:
        UsageError: The store cannot keep full vectors, because its bundle gives none.
    """
    if not isinstance(keep_full, str | None) or keep_full not in KEEP_FULL:
        raise UsageError(f"keep_full is {shorten(keep_full)}, expected one of {KEEP_FULL}")
    if keep_full is not None and binding.full_dim is None:
        raise UsageError(
            f"{path} cannot keep full vectors: the bundle {binding.bundle} gives none "
            "(it was exported with --coarse-only)"
        )

    def fill(connection: sqlite3.Connection) -> None:
        write_bound(connection, path, binding, rule, keep_full)
        write_state(connection, State(0, 1, 0, 0, b"\0" * GENERATION_BYTES))

    return fill


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


def forget_bootstrap(connection: sqlite3.Connection) -> None:
    """Have the next sync begin with nothing: what it had brought so far is not here any more."""
    write_setting(connection, SWEEP, None)
    forget_floor(connection)


def forget_floor(connection: sqlite3.Connection) -> None:
    """Have a store be filled without a snapshot: a server may have deletions of what this device sent.

    It may if it did not take one of its documents, or if it is not known what it said of one.
    """
    write_setting(connection, FLOOR, None)


def relative_bundle(bundle: str, path: Path) -> str:
    """A bundle's path seen from the store's folder; "" if it is on another drive.

    With it, the bundle is found again after both were moved together.
    """
    try:
        return clean(os.path.relpath(bundle, path.absolute().parent))
    except ValueError:
        return ""


def bound_to_other(path: Path, mine: Binding, given: Binding) -> BindingError:
    """What is wrong with a bundle whose codes do not belong in a store; both are named."""
    what = "embedding space" if given.space_id != mine.space_id else "code"
    return BindingError(
        f"{path} was made with another {what}: its bundle is {mine.bundle} ({describe_binding(mine)}), "
        f"not {given.bundle} ({describe_binding(given)}): use that bundle, or another --store, or change "
        "this one with `edge-mrl reindex`"
    )


def bound_anew(path: Path, now: Binding) -> BindingError:
    """What is wrong where another process has changed a store's bundle."""
    return BindingError(
        f"{path} has been changed to another bundle, {now.bundle} ({describe_binding(now)}): use that "
        "bundle, and try again"
    )


def describe_binding(binding: Binding) -> str:
    """A store's codes in a few words, for error messages."""
    return f"space {binding.space_id[:12]}, code {binding.code_id[:12]}, {binding.dim} dimensions"
