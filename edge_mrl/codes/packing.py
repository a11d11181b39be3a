"""int8, int4, 2-bit and 1-bit codes of unit-length vectors (FORMAT.md, "Codes").

A bundle's graph gives int8 codes, with the same arithmetic as ``quantize``, which is used to check the
graph and to make codes from full vectors. A store may keep less: ``pack`` makes int4, 2-bit or 1-bit
codes from int8 codes. A query keeps its int8 code, so that only one side loses precision (asymmetric
scoring; Dong et al., SIGIR 2008).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes.kinds import CODE_BITS, CODE_KINDS, CODE_MAX, PLANES, kind_fits
from edge_mrl.errors import UsageError

__all__ = [
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
]

#: Step of the best uniform quantiser with 16 levels for a normal distribution, in standard deviations
#: (Max, IRE Trans. Inf. Theory 6, 1960). Elements of embeddings are close to normal: other steps from
#: 0.25 to 0.4 kept less of nDCG@10 on four sets, with and without a fitted head.
_BEST_STEP = 0.335
#: The same for 4 levels: half the distance of two of them.
_BEST_HALF_STEP = 0.4979


def normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to unit length; a row of zeros stays as it is.

    Args:
        vectors: float32[n, d].

    Returns:
        float32[n, d].
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.maximum(norms, np.float32(1e-12))).astype(
        np.float32
    )
    return scaled


def quantize(vectors: NDArray[np.float32], *, scale: float = 1.0) -> NDArray[np.int8]:
    """Quantise vectors to int8: ``clip(round(127 * x / scale), -127, 127)``, rounding half to even.

    Args:
        vectors: float32[n, d], unit length, or prefixes of such vectors.
        scale: The bundle's ``code.scale``: the value that 127 stands for.

    Returns:
        int8[n, d].
    """
    steps = np.rint(vectors * np.float32(CODE_MAX / scale))
    codes: NDArray[np.int8] = np.clip(steps, -CODE_MAX, CODE_MAX).astype(np.int8)
    return codes


def pack_bits(codes: NDArray[np.int8], centre: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """Pack the 1-bit code: bit = code > centre, dimension 0 in the most significant bit of byte 0.

    Args:
        codes: int8[n, d].
        centre: d integers; None for zeros.

    Returns:
        uint8[n, ceil(d / 8)]; bits after the last dimension are 0.
    """
    least: Any = 0 if centre is None else np.array(centre, np.int8)
    return np.packbits(codes > least, axis=1, bitorder="big")


def int4_step(dim: int, *, scale: float = 1.0) -> float:
    """The step of int4 codes that suits vectors of unit length, in units of the int8 code.

    The elements of a unit-length vector have a root mean square of 1 / sqrt(dim). An export writes the
    step into the bundle's manifest.

    Args:
        dim: Dimensions of the code.
        scale: The bundle's ``code.scale``.
    """
    return round(_BEST_STEP * CODE_MAX / (scale * math.sqrt(dim)), 4)


def two_bit_step(codes: NDArray[np.int8], centre: Sequence[int] | None = None) -> int:
    """The step of 2-bit codes that suits some int8 codes: half the distance of two levels.

    Args:
        codes: int8[n, d], codes of text like the text that will be stored.
        centre: The centre of the 2-bit codes, d integers; None for zeros.

    Returns:
        At least 1, and at most 42, so that all levels are int8 codes.
    """
    around = codes.astype(np.float64) - (0 if centre is None else np.array(centre))
    return _whole_step(float(np.sqrt(np.square(around).mean())))


def plain_packing(kind: str, dim: int, *, scale: float = 1.0) -> Packing:
    """How codes of vectors of unit length are packed where no text is known.

    Args:
        kind: One of CODE_KINDS.
        dim: Dimensions of the code.
        scale: The bundle's ``code.scale``.

    Raises:
        UsageError: The kind is unknown.
    """
    if _bits(kind) == 4:
        return Packing(kind, int4_step(dim, scale=scale))
    if kind == "2bit":
        spread = CODE_MAX / (scale * math.sqrt(dim))
        return Packing(kind, float(_whole_step(spread)))
    return Packing(kind)


def code_bytes(dim: int, kind: str) -> int:
    """Bytes of a stored code.

    Args:
        dim: Dimensions of the code.
        kind: One of CODE_KINDS.

    Raises:
        UsageError: The kind is unknown.
    """
    bits = _bits(kind)
    if kind in PLANES:
        return PLANES[kind] * -(-dim // 8)
    return -(-dim * bits // 8)


def pack(
    codes: NDArray[np.int8],
    kind: str,
    *,
    step: float | None = None,
    centre: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Pack int8 codes as stored codes of a kind.

    int4: ``clip(ceil(code / step) + 7, 0, 15)``, even dimensions in the upper half of a byte. The highest
    bit of each half is ``code > 0``. 2-bit: ``clip(ceil((code - centre) / (2 * step)) + 1, 0, 3)``, the
    upper bits of all dimensions as one plane, then the lower bits as another. 1-bit: ``code > centre``,
    which is also the upper plane of 2-bit codes.

    Args:
        codes: int8[n, d].
        kind: One of CODE_KINDS.
        step: For int4 and 2-bit, the bundle's ``code.step``.
        centre: For 2-bit and 1-bit, the bundle's ``code.centre``, d integers; None for zeros.

    Returns:
        uint8[n, code_bytes(d, kind)]; bits after the last dimension of a plane are 0.

    Raises:
        UsageError: The kind is unknown, or the step of int4 or 2-bit codes is not above 0.
    """
    if _bits(kind) == 8:
        return np.ascontiguousarray(codes).view(np.uint8)
    if kind == "1bit":
        return pack_bits(codes, centre)
    if kind == "2bit":
        if step is None or step not in range(1, CODE_MAX + 1):
            raise UsageError(f"the step of 2bit codes is {step}, expected a whole number above 0")
        return _pack_two_bits(codes, int(step), centre)
    if step is None or not 0 < step < math.inf:
        raise UsageError(f"the step of int4 codes is {step}, expected a number above 0")
    halves = _nibbles(float(step)).take(codes.view(np.uint8))
    if codes.shape[1] % 2:
        halves = np.pad(halves, ((0, 0), (0, 1)))
    packed: NDArray[np.uint8] = halves[:, 0::2] << np.uint8(4) | halves[:, 1::2]
    return packed


def unpack(
    packed: NDArray[np.uint8],
    dim: int,
    kind: str,
    *,
    step: float | None = None,
    centre: Sequence[int] | None = None,
) -> NDArray[np.int8]:
    """Unpack stored codes to the levels that they stand for.

    Args:
        packed: uint8[n, at least code_bytes(dim, kind)]; more bytes are ignored.
        dim: Dimensions d.
        kind: One of CODE_KINDS.
        step: For 2-bit, and for 1-bit with a centre, the bundle's ``code.step``, a whole number.
        centre: For 2-bit and 1-bit, the bundle's ``code.centre``.

    Returns:
        int8[n, d], up to a factor that does not change cosines: int8 codes unchanged; int4 as odd numbers
        from -15 to 15, in half steps; 2-bit as -3, -1, 1 and 3, in steps; 1-bit as 1 and -1. With a
        centre, 2-bit and 1-bit levels are multiplied by the step and added to the centre.
    """
    if _bits(kind) == 8:
        return packed.view(np.int8)[:, :dim]
    if kind == "int4":
        halves: NDArray[np.int8] = _int4_levels().take(packed).view(np.int8)
        return halves[:, :dim]
    plane = -(-dim // 8)
    levels = _signs().take(packed[:, :plane]).view(np.int8)[:, :dim]
    if kind == "2bit":
        levels = 2 * levels + _signs().take(packed[:, plane : 2 * plane]).view(np.int8)[:, :dim]
    if centre is None:
        return levels
    scaled: NDArray[np.int8] = levels * np.int8(step or 1) + np.array(centre, np.int8)
    return scaled


def asymmetric(
    queries: NDArray[np.int8] | NDArray[np.float32],
    packed: NDArray[np.uint8],
    dim: int,
    kind: str,
    *,
    step: float | None = None,
    centre: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """Cosine between each query, which is not packed, and each stored code.

    Args:
        queries: int8[m, dim] codes, or float32[m, dim] vectors.
        packed: uint8[n, code_bytes(dim, kind)].
        dim: Dimensions.
        kind: One of CODE_KINDS.
        step: See ``unpack``.
        centre: See ``unpack``.

    Returns:
        float32[m, n] in [-1, 1]; 0 if either side is all zeros. (An int8 code of zeros, which a text
        without tokens has, becomes all -1 as an int4 or 1-bit code.)
    """
    return _cosines(queries, unpack(packed, dim, kind, step=step, centre=centre))


@dataclass(frozen=True, slots=True)
class Packing:
    """How a store packs the int8 codes of documents.

    Attributes:
        kind: One of CODE_KINDS.
        step: For int4, the step in units of the int8 code. For 2-bit, half the distance of two levels, a
            whole number. For 1-bit with a centre, the distance of the two levels from it, a whole number.
            Otherwise None.
        centre: For 2-bit and 1-bit, the mean int8 code of text like the stored text, or None if it is
            unknown. Bits that are set as often as not tell most, and cosines that include what all codes
            share rank best.
    """

    kind: str = "int8"
    step: float | None = None
    centre: tuple[int, ...] | None = None

    def fits(self, dim: int) -> bool:
        """Whether codes of so many dimensions can be packed with these parameters."""
        return kind_fits(self.kind, self.step, self.centre, dim)

    def bytes(self, dim: int) -> int:
        """Bytes of a packed code of so many dimensions."""
        return code_bytes(dim, self.kind)

    def pack(self, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
        """Pack int8[n, d] codes to uint8[n, bytes]; see ``pack``."""
        return pack(codes, self.kind, step=self.step, centre=self.centre)

    def unpack(self, packed: NDArray[np.uint8], dim: int) -> NDArray[np.int8]:
        """Unpack uint8[n, bytes] to levels int8[n, dim]; see ``unpack``."""
        return unpack(packed, dim, self.kind, step=self.step, centre=self.centre)

    def representatives(self, packed: NDArray[np.uint8], dim: int) -> NDArray[np.int8]:
        """int8 codes that are packed like the ones that were packed.

        Args:
            packed: uint8[n, bytes], made by ``pack`` with this packing.
            dim: Dimensions d.

        Returns:
            int8[n, d]; ``pack`` gives ``packed`` again.
        """
        levels = self.unpack(packed, dim)
        if self.kind == "int4":
            middles = _nibble_middles(float(self.step or 1))
            return middles.take((levels.astype(np.intp) + 15) // 2)
        if self.kind == "2bit" and self.centre is None:
            levels = levels * np.int8(self.step or 1)
        return levels

    def bits(self, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
        """The 1-bit codes, uint8[n, ceil(d / 8)], of int8[n, d]; a search compares them first."""
        return pack_bits(codes, self.centre)


#: The packing that keeps int8 codes unchanged.
INT8 = Packing()


def similarity(queries: NDArray[np.int8], codes: NDArray[np.int8]) -> NDArray[np.float32]:
    """Cosine between each query code and each document code.

    Dot products are computed in float32, where they are exact (at most d * 127 * 127, which is below
    2**24 for d <= 1040) and fast in numpy.

    Args:
        queries: int8[m, d].
        codes: int8[n, d].

    Returns:
        float32[m, n] in [-1, 1]; 0 if either code is all zeros.
    """
    return _cosines(queries, codes)


def _cosines(
    queries: NDArray[np.int8] | NDArray[np.float32], levels: NDArray[np.int8]
) -> NDArray[np.float32]:
    left, right = queries.astype(np.float32), levels.astype(np.float32)
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    dots = left @ right.T
    cosines: NDArray[np.float32] = np.divide(
        dots, lengths, out=np.zeros_like(dots), where=lengths > 0
    )
    return cosines


def _bits(kind: str) -> int:
    if kind not in CODE_BITS:
        raise UsageError(f"the kind of code is {kind!r}, expected one of {', '.join(CODE_KINDS)}")
    return CODE_BITS[kind]


def _whole_step(spread: float) -> int:
    """The step of 2-bit codes for a root mean square, such that all levels are int8 codes."""
    return min(max(round(_BEST_HALF_STEP * spread), 1), CODE_MAX // 3)


@functools.cache
def _nibbles(step: float) -> NDArray[np.uint8]:
    """uint8[256]: the int4 code of each int8 code, indexed by its bits as uint8."""
    codes = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
    nibbles: NDArray[np.uint8] = np.clip(np.ceil(codes / step) + 7, 0, 15).astype(np.uint8)
    return nibbles


def _pack_two_bits(
    codes: NDArray[np.int8], step: int, centre: Sequence[int] | None
) -> NDArray[np.uint8]:
    middle: NDArray[np.int16] = np.array([0] if centre is None else centre, np.int16)
    around = codes.astype(np.int16) - middle
    upper, outer = around > 0, np.abs(2 * around - 1) > 4 * step
    return np.concatenate([np.packbits(upper, axis=1), np.packbits(upper == outer, axis=1)], axis=1)


@functools.cache
def _nibble_middles(step: float) -> NDArray[np.int8]:
    """int8[16]: of the int8 codes with an int4 code, the middle one; 0 where there are none."""
    nibbles = _nibbles(step)
    codes = np.arange(-CODE_MAX, CODE_MAX + 1)
    made = nibbles[codes.astype(np.int8).view(np.uint8)]
    each = [codes[made == nibble] for nibble in range(16)]
    return np.array([some[len(some) // 2] if len(some) else 0 for some in each], np.int8)


@functools.cache
def _int4_levels() -> NDArray[np.uint16]:
    """uint16[256]: the two levels in each byte of an int4 code, int8 each, as one number."""
    each = np.arange(256, dtype=np.uint8)
    halves = np.stack([each >> 4, each & 15], axis=1).astype(np.int8)
    return (halves * 2 - 15).astype(np.int8).view(np.uint16).ravel()


@functools.cache
def _signs() -> NDArray[np.uint64]:
    """uint64[256]: 1 or -1 for each bit of a byte, int8 each, as one number."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.int8)
    return (bits * 2 - 1).astype(np.int8).view(np.uint64).ravel()
