"""Codes that a store's server makes, where only it has the full vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.store import replica

if TYPE_CHECKING:
    from edge_mrl.store import Store
    from edge_mrl.sync import ServerCodes

__all__ = ["codes_of_server"]


def codes_of_server(store: Store) -> Callable[[Path], ServerCodes] | None:
    """What asks the store's server for the codes of a bundle's folder; None if it has no server."""
    if replica.enrollment_of(store) is None:
        return None
    from edge_mrl.sync import ServerCodes  # loads ssl, which only this needs

    return partial(ServerCodes, store)
