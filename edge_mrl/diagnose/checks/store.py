"""The check of a store and of the bundle that it belongs to, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_mrl.diagnose import probe
from edge_mrl.diagnose.findings import Finding
from edge_mrl.errors import EdgeMrlError, StoreError, reason

__all__ = ["check_store"]


def check_store(store: Path, bundle: Path | None) -> Iterator[Finding]:
    """Check every byte of a store that matters, and that its bundle is there.

    Args:
        store: The store's file.
        bundle: The folder of the bundle that should belong to it; None for the one that the store names.
    """
    job = {"store": str(store), "bundle": None if bundle is None else str(bundle)}
    try:
        health = probe.run_step("check", job)
    except StoreError as error:
        advice = "restore a copy, or index the documents again"
        yield Finding("store", "problem", str(error), advice)
        return
    except EdgeMrlError as error:
        yield Finding("store", "problem", reason(error))
        return
    yield from (
        Finding("store", "problem", text, f"see `edge-mrl check --store {store}`")
        for text in health["problems"]
    )
    if not health["problems"]:
        yield Finding("store", "good", f"intact, documents: {health['documents']:,}")
    if health["bundle_problem"] is not None:
        yield Finding("store", "problem", health["bundle_problem"])
