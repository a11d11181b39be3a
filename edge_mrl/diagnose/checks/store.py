"""The check of a store and of the bundle that it belongs to, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.diagnose import probe
from edge_mrl.diagnose.findings import Finding
from edge_mrl.errors import (
    EdgeMrlError,
    NotAStoreError,
    StoreBusyError,
    StoreError,
    StoreKeyError,
    StoreVersionError,
    UnwritableStoreError,
    reason,
)

if TYPE_CHECKING:
    from edge_mrl.store import Key

__all__ = ["check_store"]


#: What a store has that nothing else may have: what waits to be sent, and other devices' documents.
_KEEP = "keep the file and what lies beside it, which hold what was not sent yet"


def check_store(store: Path, bundle: Path | None, key: Key | None = None) -> Iterator[Finding]:
    """Check every byte of a store that matters, and that its bundle is there.

    Args:
        store: The store's file.
        bundle: The folder of the bundle that should belong to it; None for the one that the store names.
        key: Gives the store's key; None for a plain store.
    """
    job = {"store": str(store), "bundle": None if bundle is None else str(bundle)}
    job |= probe.job_key(key)
    try:
        health = probe.run_step("check", job)
    except StoreError as error:
        yield Finding("store", "problem", str(error), _advice(store, error))
        return
    except EdgeMrlError as error:
        yield Finding("store", "problem", reason(error))
        return
    yield from (
        Finding("store", "problem", text, f"see `edge-mrl check --store {store}`; {_KEEP}")
        for text in health["problems"]
    )
    if not health["problems"]:
        kind = "" if key is None else "encrypted, "
        yield Finding("store", "good", f"{kind}intact, documents: {health['documents']:,}")
    if "," in (health.get("engines") or ""):
        names = " and ".join(health["engines"].split(","))
        text = f"its vectors were made by {names}, which round differently, as x86 and ARM do"
        yield Finding("store", "note", text, "`edge-mrl verify` compares them on this machine")
    if health["bundle_problem"] is not None:
        yield Finding("store", "problem", health["bundle_problem"])


def _advice(store: Path, error: StoreError) -> str:
    """What to do about a store that cannot be checked: whatever it is, nothing that costs data."""
    known = {
        StoreBusyError: "wait for the other process: nothing is wrong with the store",
        StoreKeyError: "give the key with --key-file or --key-fd: nothing is wrong with the store",
        StoreVersionError: "update edge-mrl: nothing is wrong with the store",
        NotAStoreError: "name the store's own file",
        UnwritableStoreError: "nothing is wrong with the store: it needs room, or leave to write",
    }
    if type(error) in known:
        return known[type(error)]
    repair = f"`edge-mrl check --repair --store {store}` mends what can be mended"
    return f"{_KEEP}: copy them elsewhere first; then {repair}"
