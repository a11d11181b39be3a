"""Codes: vectors as int8, 4-bit, 2-bit or 1-bit numbers, and how they are packed into bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.codes.kinds import PLANES, kind_fits
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
        plain_packing,
        quantize,
        similarity,
        two_bit_step,
        unpack,
    )
    from edge_mrl.codes.scoring import Scorer, planes_of
    from edge_mrl.codes.splitmix import splitmix64

__all__ = [
    "CODE_BITS",
    "CODE_KINDS",
    "CODE_MAX",
    "INT8",
    "PLANES",
    "Packing",
    "Scorer",
    "asymmetric",
    "code_bytes",
    "int4_step",
    "kind_fits",
    "normalize",
    "pack",
    "pack_bits",
    "plain_packing",
    "planes_of",
    "quantize",
    "similarity",
    "splitmix64",
    "two_bit_step",
    "unpack",
]

__getattr__ = lazily(
    __name__,
    {
        "kinds": ("PLANES", "kind_fits"),
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
            "plain_packing",
            "quantize",
            "similarity",
            "two_bit_step",
            "unpack",
        ),
        "scoring": ("Scorer", "planes_of"),
        "splitmix": ("splitmix64",),
    },
)
