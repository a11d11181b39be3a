"""The former place of reranking, now in ``edge_mrl.search`` and ``edge_mrl.sync``.

This module goes with the next minor version.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_mrl.lazy import moved

if TYPE_CHECKING:
    from edge_mrl.search import Margin
    from edge_mrl.store import Store

__all__: list[str] = []

__getattr__ = moved(
    __name__,
    {
        "edge_mrl.search": ("DEFAULT_MARGIN", "Margin", "Scorer"),
        "edge_mrl.sync": ("Reranker",),
    },
)


def calibrate_margin(
    local: Sequence[Sequence[float]],
    quality_local: Sequence[float],
    quality_server: Sequence[float],
    *,
    store: Store | None = None,
    **options: Any,
) -> Margin:
    """``edge_mrl.search.calibrate_margin``, which can also write the margin into a store."""
    from edge_mrl.search import calibrate_margin as calibrate
    from edge_mrl.store import replica

    warnings.warn(
        "edge_mrl.rerank.calibrate_margin has moved: import it from edge_mrl.search, and keep the "
        "margin with SyncClient.set_margin",
        DeprecationWarning,
        stacklevel=2,
    )
    found = calibrate(local, quality_local, quality_server, **options)
    if store is not None:
        replica.set_margin(store, found.margin)
    return found
