"""What may be chosen for a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypedDict, Unpack

from edge_mrl.arguments import check_flag, check_number, check_whole
from edge_mrl.documents import shorten
from edge_mrl.errors import UsageError
from edge_mrl.search.funnel import Funnel

__all__ = ["Mode", "SearchKeywords", "SearchOptions", "check_rerank"]

Mode = Literal["vector", "keyword", "hybrid"]
MODES: tuple[Mode, ...] = ("vector", "keyword", "hybrid")


class SearchKeywords(TypedDict, total=False):
    """The fields of ``SearchOptions`` that ``Index.search`` takes as keyword arguments, besides ``k``."""

    filter: Mapping[str, Any] | None
    mode: Mode
    exact: bool
    width: int | None
    stages: Funnel | str | None
    diversity: float


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search.

    Attributes:
        k: The number of documents to return at most.
        filter: Which documents are searched, by their metadata:
            ``{"lang": "en", "year": {"$gte": 2020}}``; the rules are those of ``compile_filter`` in
            edge_mrl/store/filters. If k documents match it, k are found. None searches all documents.
        mode: "vector" ranks by meaning; "keyword" by words (BM25; no model is loaded); "hybrid" by both.
        exact: Score every code. By default, only the rows that the 1-bit stage passes on are scored.
        width: The number of rows that the 1-bit stage passes on. More rows take longer and never give a
            worse result. None takes the store's own stages (see ``Index.tune``), or else 5,000.
        stages: Which codes are compared, and for how many rows: a funnel, or its text, such as
            "64x1:20000,128x1:5000,128x8" (see ``edge_mrl.search.funnel``). None takes the store's own.
        diversity: From 0, the best documents, to 1: how much more a document counts that differs from
            those above it (see ``edge_mrl.search.diversity``). Needs mode "vector".

    Raises:
        UsageError: A value is out of its range, or ``width`` and ``stages`` are both given.
    """

    k: int = 10
    filter: Mapping[str, Any] | None = None
    mode: Mode = "vector"
    exact: bool = False
    width: int | None = None
    stages: Funnel | str | None = None
    diversity: float = 0.0

    def __post_init__(self) -> None:
        check_whole("k", self.k)
        if self.width is not None:
            check_whole("width", self.width)
        check_flag("exact", self.exact)
        if not isinstance(self.filter, Mapping | None):
            raise UsageError(f"filter is {shorten(self.filter)}, expected an object")
        if not isinstance(self.stages, Funnel | str | None):
            raise UsageError(f"stages is {shorten(self.stages)}, expected a funnel or its text")
        if self.width is not None and self.stages is not None:
            raise UsageError("width and stages are both given: stages have widths of their own")
        if not isinstance(self.mode, str) or self.mode not in MODES:
            raise UsageError(f"mode is {shorten(self.mode)}, expected one of {', '.join(MODES)}")
        check_number("diversity", self.diversity)
        if self.diversity > 1:
            raise UsageError(f"diversity is {self.diversity}, expected a number from 0 to 1")
        if self.diversity and self.mode != "vector":
            raise UsageError(f'diversity needs mode "vector", not {self.mode!r}')
        if isinstance(self.stages, str):
            Funnel.of(self.stages)

    @property
    def funnel(self) -> Funnel | None:
        """The stages as a funnel."""
        return Funnel.of(self.stages) if isinstance(self.stages, str) else self.stages

    @classmethod
    def of(cls, options: Self | None, k: int | None, **keywords: Unpack[SearchKeywords]) -> Self:
        """Options with some fields replaced: those that are named, and ``k`` if it is not None.

        Raises:
            TypeError: There is no option of that name.
            UsageError: See the class.
        """
        if not isinstance(options, SearchOptions | None):
            raise UsageError(f"options is {shorten(options)}, expected SearchOptions")
        base = cls() if options is None else options
        return replace(base, k=base.k if k is None else k, **keywords)


def check_rerank(rerank: object, deadline_ms: object, options: SearchOptions) -> None:
    """Check who is to rerank, until when, and that the search can be reranked.

    Raises:
        UsageError: It is nobody who can, or no time, or the options ask for another order.
    """
    if options.mode != "vector":
        raise UsageError(f'rerank needs mode "vector", not {options.mode!r}')
    if options.diversity:
        raise UsageError(
            "rerank orders by score alone, and diversity does not: leave one of them out"
        )
    by_name = isinstance(rerank, str) and rerank in ("auto", "always")
    if not by_name and not hasattr(rerank, "rerank"):
        raise UsageError(f'rerank is {shorten(rerank)}, expected "auto", "always" or a SyncClient')
    check_number("deadline_ms", deadline_ms)
