"""Codes: vectors as int8, 4-bit or 1-bit numbers, and how they are packed into bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.codes.kinds import kind_fits
    from edge_mrl.codes.packing import (
        CODE_BITS,
        CODE_KINDS,
        CODE_MAX,
        INT8,
        Packing,
        asymmetric,
        code_bytes,
        int4_step,
        normalize,
        pack,
        pack_bits,
        quantize,
        similarity,
        unpack,
    )

__all__ = [
    "CODE_BITS",
    "CODE_KINDS",
    "CODE_MAX",
    "INT8",
    "Packing",
    "asymmetric",
    "code_bytes",
    "int4_step",
    "kind_fits",
    "normalize",
    "pack",
    "pack_bits",
    "quantize",
    "similarity",
    "unpack",
]

__getattr__ = lazily(
    __name__,
    {
        "kinds": ("kind_fits",),
        "packing": (
            "CODE_BITS",
            "CODE_KINDS",
            "CODE_MAX",
            "INT8",
            "Packing",
            "asymmetric",
            "code_bytes",
            "int4_step",
            "normalize",
            "pack",
            "pack_bits",
            "quantize",
            "similarity",
            "unpack",
        ),
    },
)
