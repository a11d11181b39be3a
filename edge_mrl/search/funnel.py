"""Adaptive retrieval: which codes a search compares, and for how many rows, stage by stage.

A funnel starts with few bits of every row and ends with the whole code of a few (Kusupati et al.,
Matryoshka Representation Learning, arXiv 2205.13147, section 4.3: funnel retrieval). It is written
``64x1:20000,128x1:5000,128x8``: the first 64 dimensions of the 1-bit codes of all rows; the best 20,000
of them by 128; the best 5,000 of those by their int8 codes of 128 dimensions. With ``:100,full`` at the
end, the best 100 are rescored by full vectors, if the store keeps them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from edge_mrl.arguments import check_whole
from edge_mrl.codes import CODE_BITS
from edge_mrl.documents import shorten
from edge_mrl.errors import UsageError
from edge_mrl.store import SEARCH_STAGES

if TYPE_CHECKING:
    from edge_mrl.store import Layout, Store, View

__all__ = ["DEFAULT_WIDTH", "WORD_DIMS", "Funnel", "Stage", "tune", "tuned_funnel"]

#: Rows that the 1-bit stage passes on. At 1M clustered vectors 5,000 find what a full int8 scan
#: finds, and cost 0.3 ms more than 1,000.
DEFAULT_WIDTH = 5_000
#: Dimensions of a column of bits. A 1-bit stage compares a multiple of them, or all dimensions.
WORD_DIMS = 64
#: From so many rows and dimensions on, half of the bits are compared first, and all bits of so many times
#: the width: at 1M rows, 256 dimensions took 0.76 of the time, and 384 took 0.68, with the same recall.
#: At 100,000 rows it took 1.12 of the time.
HALF_FIRST_ROWS, HALF_FIRST_DIMS, HALF_FIRST_WIDTH = 300_000, 256, 4
_STAGE = re.compile(r"(\d{1,6})x(1|2|4|8)(?::(\d{1,9}))?")
_FULL = "full"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a funnel: a comparison, and how many of the best it passes on.

    Attributes:
        dims: The number of leading dimensions that are compared.
        bits: 1 compares bits with the query's bits, by Hamming distance; 2, 4 and 8, and 1 in the
            last stage, compare stored codes with the query's int8 code, by cosine.
        width: The number of rows that are passed on; in the last stage, the number of documents that
            are rescored by full vectors, or None.
    """

    dims: int
    bits: int
    width: int | None = None

    def __str__(self) -> str:
        end = "" if self.width is None else f":{self.width}"
        return f"{self.dims}x{self.bits}{end}"


@dataclass(frozen=True, slots=True)
class Funnel:
    """Stages in order. The width of the last one, if any, is the number of documents to rescore.

    Raises:
        UsageError: The stages do not fit together; the message says why.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        _check_types(self.stages)
        if not self.stages:
            raise UsageError("the funnel has no stages, expected for example 128x1:5000,128x8")
        for stage in self.stages:
            if stage.dims < 1 or stage.bits not in CODE_BITS.values():
                raise UsageError(
                    f"the funnel has a stage {stage}: expected at least 1 dimension, and 1, 2, 4 "
                    "or 8 bits"
                )
            if stage.width is not None and stage.width < 1:
                raise UsageError(
                    f"the funnel has a stage that passes on {stage.width} rows, expected at least 1"
                )
        if self.stages[1:] and self.stages[0].bits != 1:
            raise UsageError(
                f"the funnel's first stage is {self.stages[0]}, expected a stage of 1 bit"
            )
        for before, after in pairwise(self.stages):
            if before.width is None:
                raise UsageError(
                    f"the stage {before} is not the funnel's last and needs a width, for example "
                    f"{before}:{DEFAULT_WIDTH}"
                )
            if after.width is not None and after.width > before.width:
                raise UsageError(
                    f"a stage cannot be wider than the one before it: {after} comes after {before}"
                )
            if after.bits < before.bits:
                raise UsageError(
                    f"a stage cannot have fewer bits than the one before it: {after} comes after {before}"
                )

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a funnel from its text, such as "64x1:20000,128x1:5000,128x8".

        Raises:
            UsageError: The text is not a funnel; the message says why.
        """
        *parts, last = (part.strip() for part in text.split(","))
        if last != _FULL:
            parts.append(last)
        stages = []
        for part in parts:
            match = _STAGE.fullmatch(part)
            if match is None:
                raise UsageError(
                    f"the funnel has a stage {shorten(part)}, expected DIMSxBITS:WIDTH such as "
                    "128x1:5000, with 1, 2, 4 or 8 bits; the last stage has no width, or is followed by "
                    "full"
                )
            dims, bits, width = match.groups()
            stages.append(Stage(int(dims), int(bits), None if width is None else int(width)))
        if stages and (last == _FULL) != (stages[-1].width is not None):
            raise UsageError(
                f"the funnel's last stage is {stages[-1]}, expected no width, or a width followed by full"
            )
        return cls(tuple(stages))

    @classmethod
    def default(cls, layout: Layout, width: int = DEFAULT_WIDTH, *, rows: int = 0) -> Self:
        """Compare the bits of all rows, then the whole codes of the best.

        Where there are many rows of long codes, half of the bits come first.

        Args:
            layout: The store's codes.
            width: Rows that the last stage of bits passes on.
            rows: Rows of the store.
        """
        last = (Stage(layout.dim, 1, width), Stage(layout.dim, CODE_BITS[layout.packing.kind]))
        if rows < HALF_FIRST_ROWS or layout.dim < HALF_FIRST_DIMS:
            return cls(last)
        half = -(-layout.dim // (2 * WORD_DIMS)) * WORD_DIMS
        return cls((Stage(half, 1, HALF_FIRST_WIDTH * width), *last))

    def __str__(self) -> str:
        stages = ",".join(map(str, self.stages))
        return stages if self.rescored is None else f"{stages},{_FULL}"

    @property
    def coarse(self) -> tuple[Stage, ...]:
        """All stages but the last."""
        return self.stages[:-1]

    @property
    def shortlist(self) -> int:
        """The number of rows whose codes are read: those that the last Hamming stage passes on."""
        widths = [stage.width for stage in self.coarse if stage.bits == 1]
        return (widths[-1] if widths else None) or 0

    @property
    def rescored(self) -> int | None:
        """The number of documents that are rescored by full vectors; None if the funnel does not say."""
        return self.stages[-1].width

    def check(self, layout: Layout) -> None:
        """Raise UsageError unless codes of this layout can be searched with these stages."""
        kind, last = layout.packing.kind, self.stages[-1]
        whole = CODE_BITS[kind]
        if (last.dims, last.bits) != (layout.dim, whole):
            raise UsageError(
                f"the funnel {self} ends with {last.dims}x{last.bits}, but the store keeps {kind} codes "
                f"of {layout.dim} dimensions: end with {layout.dim}x{whole}"
            )
        for stage in self.stages:
            if stage.dims > layout.dim:
                raise UsageError(
                    f"the funnel {self} compares {stage.dims} dimensions, but the store's codes have "
                    f"{layout.dim}"
                )
        for stage in self.coarse:
            if stage.bits not in (1, whole):
                raise UsageError(
                    f"the funnel {self} compares {stage.bits}-bit codes, but the store keeps {kind} "
                    f"codes: use 1 or {whole} bits"
                )
            if stage.bits == 1 and stage.dims % WORD_DIMS and stage.dims != layout.dim:
                raise UsageError(
                    f"the funnel {self} compares {stage.dims} bits, expected a multiple of {WORD_DIMS}, "
                    f"or all {layout.dim}"
                )


def _check_types(stages: object) -> None:
    if not isinstance(stages, tuple):
        raise UsageError(f"the funnel is {shorten(stages)}, expected a tuple of stages")
    for stage in stages:
        if not isinstance(stage, Stage):
            raise UsageError(f"the funnel has {shorten(stage)}, expected a Stage")
        check_whole("a stage's dims", stage.dims, least=0)
        check_whole("a stage's bits", stage.bits, least=0)
        if stage.width is not None:
            check_whole("a stage's width", stage.width, least=0)


def tuned_funnel(view: View) -> Funnel | None:
    """The stages that a store's searches were tuned to; None for the default ones.

    Raises:
        DamagedError: They are not what was written.
    """
    text = view.setting(SEARCH_STAGES)
    return None if text is None else Funnel.of(text)


def tune(store: Store, stages: Funnel | str | None) -> None:
    """Keep stages for the searches of a store, until its bundle is changed; None for the default ones.

    Raises:
        UsageError: The store's codes cannot be searched with these stages.
    """
    if not isinstance(stages, Funnel | str | None):
        raise UsageError(f"stages is {shorten(stages)}, expected a funnel or its text")
    funnel = Funnel.of(stages) if isinstance(stages, str) else stages
    if funnel is not None:
        with store.reading() as view:
            funnel.check(view.layout)
            if funnel.rescored is not None and not view.keeps_full:
                raise UsageError(f"the funnel {funnel} ends with full vectors: none are kept")
    store.set_setting(SEARCH_STAGES, None if funnel is None else str(funnel))
