"""How a code is made from full vectors, and what is left of it in a store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes
from edge_mrl.codes import INT8, Packing, normalize, plain_packing
from edge_mrl.errors import UsageError
from edge_mrl_export.quality.subject import Encoded, Subject

__all__ = ["Coding", "check_dim", "codes_of", "levels", "own_coding", "truncated"]

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """How a code is made.

    Attributes:
        head: float32[D, at least dim], or None for the plain prefix.
        packing: How a store packs its int8 code.
    """

    head: Float | None
    packing: Packing = INT8

    @classmethod
    def plain(cls, head: Float | None, dim: int, kind: str, *, scale: float = 1.0) -> Coding:
        """A code of a kind with nothing fitted on text. For float32 the packing is not used."""
        return cls(head, INT8 if kind == "float32" else plain_packing(kind, dim, scale=scale))


def check_dim(subject: Subject, dim: int) -> None:
    """Refuse more dimensions than the model has.

    Raises:
        UsageError: The number is below 1 or above the model's width.
    """
    width = subject.model.width
    if not 1 <= dim <= width:
        raise UsageError(f"{dim} dimensions: expected 1 to {width}, the width of {subject.name}")


def own_coding(subject: Subject, dim: int, kind: str) -> Coding:
    """The coding of the bundle's own code, of a shorter prefix of it, or of the whole full vector.

    Raises:
        UsageError: The bundle's head has fewer dimensions.
    """
    check_dim(subject, dim)
    head, width = subject.head, subject.model.width
    if (dim, kind) == (subject.dim, subject.packing.kind):
        return Coding(head, subject.packing)
    if head is not None and dim > head.shape[1]:
        if dim < width:
            raise UsageError(
                f"{dim} dimensions: the bundle's head has {head.shape[1]}; choose at most that, "
                f"or {width} for the full vector"
            )
        head = None  # the full vector itself
    return Coding.plain(head, dim, kind, scale=subject.scale)


def codes_of(subject: Subject, texts: Encoded, head: Float | None, dim: int) -> NDArray[np.int8]:
    """int8[n, dim]: the bundle's own codes, or codes derived from full vectors as a graph would."""
    if dim == subject.dim and head is subject.head and texts.codes is not None:
        return texts.codes
    return derive_codes(
        texts.full, head, dim=dim, layer_norm=subject.layer_norm, scale=subject.scale
    )


def levels(codes: NDArray[np.int8], packing: Packing) -> Float:
    """float32[n, dim] of unit length: what a store's packed codes represent."""
    return normalize(packing.unpack(packing.pack(codes), codes.shape[1]).astype(np.float32))


def truncated(subject: Subject, full: Float, head: Float | None, dim: int) -> Float:
    """float32[n, dim] of unit length: the truncated full vectors, or what the head makes of them."""
    inputs = subject.head_inputs(full)
    return normalize(inputs[:, :dim] if head is None else inputs @ head[:, :dim])
