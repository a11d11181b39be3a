"""How a bundle's codes are chosen: head and packing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_export.codes.curve import curve_of_texts, kept_by_stored_codes
    from edge_mrl_export.codes.head import ChosenHead, choose_head
    from edge_mrl_export.codes.packing import choose_packing

__all__ = [
    "ChosenHead",
    "choose_head",
    "choose_packing",
    "curve_of_texts",
    "kept_by_stored_codes",
]

__getattr__ = lazily(
    __name__,
    {
        "curve": ("curve_of_texts", "kept_by_stored_codes"),
        "head": ("ChosenHead", "choose_head"),
        "packing": ("choose_packing",),
    },
)
