"""Which engines have made a store's vectors: they agree as those of x86 and ARM do, not bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from edge_mrl.errors import DamagedError
from edge_mrl.store import ENGINES

if TYPE_CHECKING:
    from edge_mrl.store import Store

__all__ = ["note_engine"]

#: What was noted for open stores: to look it up for each put would take a third of a small one's time.
_NOTED: WeakKeyDictionary[Store, str] = WeakKeyDictionary()


def note_engine(store: Store, engine: str) -> None:
    """Remember that an engine makes vectors for a store.

    Args:
        store: The store.
        engine: As ``Encoder.engine`` has it. The native kernels are one engine: they give the same bits
            on all processors.

    Raises:
        StoreError: It could not be written.
    """
    name = engine.split(" ", maxsplit=1)[0]
    if _NOTED.get(store) == name:
        return
    try:
        with store.reading() as view:
            text = view.setting(ENGINES)
    except DamagedError:  # `check` names it; documents are stored all the same
        return
    known = set() if text is None else set(text.split(","))
    if name not in known:
        store.set_setting(ENGINES, ",".join(sorted({*known, name})))
    _NOTED[store] = name
