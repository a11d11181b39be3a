"""The smallest code that is good enough on the user's own text, and what each one costs.

Half of the queries choose: a code passes where the lower end of the 95 % interval of what it keeps is
within the tolerance. The other half confirms: there, what it keeps must be within the tolerance too, and
those are the figures that are reported. So a code is not praised for the luck that it was chosen by.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes
from edge_mrl.cli import Progress, duration, size
from edge_mrl.codes import CODE_KINDS, INT8
from edge_mrl.errors import UsageError
from edge_mrl.heads import (
    MOST_PASSAGES,
    Short,
    Trial,
    balanced,
    centre_of,
    count_pieces,
    cut_pieces,
    nested_sizes,
    spread,
)
from edge_mrl_export.pages import Page, svg
from edge_mrl_export.quality.assessment import kept_panel, lines
from edge_mrl_export.quality.costs import MEASURED_ROWS, Cost, cost, search_seconds
from edge_mrl_export.quality.evaluation import (
    WIDTHS,
    Coding,
    Evaluation,
    Row,
    Vectors,
    evaluate,
    own_coding,
    usual_dims,
)
from edge_mrl_export.quality.metrics import Interval, ratio
from edge_mrl_export.quality.vectors import Cache, Subject
from edge_mrl_export.texts import Retrieval

__all__ = ["Advice", "Choice", "Question", "advise", "decide"]

Float = NDArray[np.float32]

#: Fewer than these are too few to fit a head on.
FEWEST_TO_FIT = 100
#: Below so many queries an interval is wider than most tolerances.
FEW_QUERIES = 100
#: A shortlist tells of larger stores if it is at most one in so many of the documents here.
SHORTLIST_SHARE = 50
#: Choices that are named where none is good enough.
NEAREST = 3
SEED = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What the user wants.

    Attributes:
        tolerance: Share of the fp32 full model's nDCG@10 that may be lost.
        budget: Bytes of storage that all codes may take; None for any.
        documents: How many there will be, with a passage each.
        corpus: For the command: the text that heads are fitted on.
    """

    tolerance: float = 0.03
    budget: int | None = None
    documents: int = 1_000_000
    corpus: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A code with a way to search.

    Attributes:
        dim: Dimensions.
        kind: One of ``edge_mrl.codes.packing.CODE_KINDS``.
        rerank: Best of the codes' order that full vectors put in order; 0 for none.
        chosen: What it keeps by the queries that choose, in the worst of the sets.
        confirmed: By the others, in the worst of the sets.
        cost: What it costs.
    """

    dim: int
    kind: str
    rerank: int
    chosen: Interval
    confirmed: Interval
    cost: Cost

    def within(self, tolerance: float) -> bool:
        """Whether it is good enough; see above."""
        least = 1 - tolerance
        return self.chosen.low >= least and self.confirmed.ratio >= least

    def affordable(self, budget: int | None) -> bool:
        """Whether its codes fit."""
        return budget is None or self.cost.storage_bytes <= budget

    @property
    def name(self) -> str:
        """Such as "128 int4, rerank 50"."""
        return f"{self.dim} {self.kind}" + (f", rerank {self.rerank}" if self.rerank else "")

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Advice:
    """What was found.

    Attributes:
        subject: The model.
        question: What was asked.
        choices: All that were measured, from the smallest.
        alone: The smallest good one that needs nothing but codes; None if there is none.
        reranked: A smaller one, good with full vectors from a server or kept; None if there is none.
        sets: The measurements.
        heads: The kind of head that was fitted here, by dimension.
        notes: What the reader should know.
    """

    subject: Subject
    question: Question
    choices: list[Choice]
    alone: Choice | None
    reranked: Choice | None
    sets: list[Evaluation]
    heads: Mapping[int, str]
    notes: tuple[str, ...]

    @property
    def found(self) -> Choice | None:
        """What is recommended."""
        return self.alone or self.reranked

    def nearest(self) -> list[Choice]:
        """Where nothing is good enough: the best that fit, or the smallest that are good."""
        fitting = [c for c in self._telling() if c.affordable(self.question.budget)]
        if fitting:
            return sorted(fitting, key=lambda c: -c.chosen.low)[:NEAREST]
        good = [c for c in self.choices if c.within(self.question.tolerance)]
        return (good or self.choices)[:NEAREST]

    def _telling(self) -> list[Choice]:
        """Those whose shortlist says something about so many documents."""
        widest = _widest(self.question, self.sets)
        return [choice for choice in self.choices if choice.rerank <= widest]

    def command(self, choice: Choice) -> str:
        """The export that makes a choice."""
        words = ["edge-mrl", "export", self.subject.command, "--dim", str(choice.dim)]
        if choice.kind != "int8":
            words += ["--code", choice.kind]
        if choice.dim in self.heads:
            words += ["--head", self.heads[choice.dim]]
        for path in self.question.corpus[:1]:
            words += ["--corpus", str(path)]
        return shlex.join([*words, "-o", f"{self.subject.name}-{choice.dim}-{choice.kind}"])

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found, question = self.found, self.question
        return {
            "model": self.subject.name,
            "compared_with": f"full vectors of the {self.subject.base.name}",
            "tolerance": question.tolerance,
            "budget_bytes": question.budget,
            "documents": question.documents,
            "sets": [{"name": s.name, "queries": s.queries, "base": s.base} for s in self.sets],
            "alone": self.alone and self.alone.as_json(),
            "reranked": self.reranked and self.reranked.as_json(),
            "command": found and self.command(found),
            "nearest": [] if found else [choice.as_json() for choice in self.nearest()],
            "choices": [choice.as_json() for choice in self.choices],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """For people."""
        question = self.question
        out = [
            f"{self.subject.name}: within {question.tolerance:.1%} of the {self.subject.base.name}'s "
            f"nDCG@10, for {question.documents:,} documents"
            + (f" in {size(question.budget)}" if question.budget else "")
        ]
        out += [f"set: {s.name}, {s.queries:,} queries ({s.asked})" for s in self.sets]
        out += [f"note: {note}" for note in self.notes]
        out += ["", *lines(*self.table(self._shown())), "", *self.verdict(), "", HOW]
        return "\n".join(out)

    def verdict(self) -> list[str]:
        """What to do."""
        if self.found is None:
            names = "; ".join(
                f"{c.name} ({_kept(c.confirmed)}, {size(c.cost.storage_bytes)})"
                for c in self.nearest()
            )
            advice = "widen --tolerance or --budget, or give more queries"
            return [
                f"nothing that was measured is good enough and fits: {advice}. Nearest: {names}"
            ]
        out = []
        for label, choice in (("offline", self.alone), ("with full vectors", self.reranked)):
            if choice is not None:
                out += [
                    f"{label}: {choice.name} keeps {_kept(choice.confirmed)} on queries held out",
                    f"  {self.command(choice)}",
                ]
        return out

    def _shown(self) -> list[Choice]:
        """Those that no other beats in both bytes and quality, and the recommended."""
        front, best = [], -1.0
        for choice in self._telling():
            if choice.confirmed.ratio > best or choice in (self.alone, self.reranked):
                front.append(choice)
                best = max(best, choice.confirmed.ratio)
        return front

    def table(self, choices: Sequence[Choice]) -> tuple[list[str], list[list[str]]]:
        """Heads and rows."""
        heads = ["code", "bytes", "storage", "memory", "search", "push", "pull", "kept", "good"]
        return heads, [
            [
                c.name,
                f"{c.cost.code_bytes:,}",
                size(c.cost.storage_bytes),
                size(c.cost.memory_bytes),
                duration(c.cost.search_s) if c.cost.search_s >= 0.001 else "< 1 ms",
                size(c.cost.push_bytes),
                size(c.cost.pull_bytes),
                _kept(c.confirmed),
                "yes" if c.within(self.question.tolerance) else "no",
            ]
            for c in choices
        ]

    def plot(self) -> str:
        """The curve of bytes against quality, of the first set, as SVG."""
        return svg([kept_panel(*panel) for panel in self._panels()])

    def _panels(self) -> list[tuple[str, list[Row], str]]:
        rows = self.sets[0].rows
        rerank = f"rerank {WIDTHS[0]}"
        return [("codes alone", rows, "alone"), (f"full vectors rerank {WIDTHS[0]}", rows, rerank)]

    def html(self) -> str:
        """A page that needs nothing else."""
        question = self.question
        page = Page(
            f"{self.subject.name}: which code to take",
            f"Asked: the smallest code within {question.tolerance:.1%} of the "
            f"{self.subject.base.name}'s nDCG@10, for {question.documents:,} documents"
            + (f" in {size(question.budget)}." if question.budget else "."),
        )
        for line in self.verdict():
            (page.code if line.startswith("  ") else page.text)(line.strip())
        for note in self.notes:
            page.note(note)
        page.heading("Bytes against quality", f"On {self.sets[0].name}, all queries.")
        page.plots([kept_panel(*panel) for panel in self._panels()])
        page.heading("What no other beats", "From the smallest; quality on the queries held out.")
        page.figures(*self.table(self._shown()))
        page.heading("All that was measured")
        page.figures(*self.table(self.choices))
        page.heading("How it was measured")
        page.text(HOW)
        return page.html()


HOW = (
    "kept: share of the full fp32 vectors' nDCG@10 on the half of the queries that chose nothing, with "
    "its 95 % interval, in the worst of the sets. good: by the queries that choose, the interval's lower "
    "end is within the tolerance, and by the others the share is. storage: codes in the database and the "
    "code file, without texts; full vectors kept on the device would add two bytes a dimension. memory: "
    "what every search touches. search: the store's own funnel over "
    f"{MEASURED_ROWS:,} random codes on one thread here, scaled to all documents. push: a document's "
    "full vector to a server; pull: its code from one. rerank N: full vectors order the best N."
)


def _kept(found: Interval) -> str:
    return f"{found.ratio:.1%} ({found.low:.1%} to {found.high:.1%})"


def advise(
    subject: Subject,
    question: Question,
    data: Sequence[Retrieval],
    *,
    dims: Sequence[int] | None,
    cache: Cache,
    quiet: bool = False,
) -> Advice:
    """Measure every code on every set, and choose.

    Args:
        subject: A source, or a bundle of it. Heads are fitted in either case: any other code than the
            bundle's own takes another export.
        question: What is wanted.
        data: What it is measured on; its documents are what heads are fitted on.
        dims: Dimensions of codes; None for the usual ones.
        cache: Of vectors.
        quiet: Show no progress.

    Raises:
        UsageError: Too few queries to choose and to confirm by.
    """
    few = [found for found in data if len(found.queries) < 8]
    if few:
        raise UsageError(f"{few[0].name} has {len(few[0].queries)} queries, expected at least 8")
    vectors = [Vectors.of(subject, found, cache) for found in data]
    subject = replace(subject, head=None, dim=None, packing=INT8)
    sizes = tuple(dims or usual_dims(subject))
    codings, heads, note = _codings(subject, data, vectors, sizes, cache=cache, quiet=quiet)
    with Progress("search", len(sizes) * len(CODE_KINDS) * len(data), quiet=quiet) as bar:
        sets = [
            evaluate(subject, d, v, sizes, kinds=CODE_KINDS, codings=codings, advance=bar.advance)
            for d, v in zip(data, vectors, strict=True)
        ]
    choices = _choices(subject, question, sets, quiet=quiet)
    return decide(subject, question, choices, sets, heads=heads, notes=(*subject.notes, note))


def decide(
    subject: Subject,
    question: Question,
    choices: Sequence[Choice],
    sets: Sequence[Evaluation],
    *,
    heads: Mapping[int, str] | None = None,
    notes: Sequence[str] = (),
) -> Advice:
    """Choose among what was measured.

    Args:
        subject: The model.
        question: What is wanted.
        choices: What there is, from the smallest.
        sets: The measurements.
        heads: The kind of head that was fitted, by dimension.
        notes: What the reader should know.
    """
    widest = _widest(question, sets)
    good = [
        c
        for c in choices
        if c.rerank <= widest and c.within(question.tolerance) and c.affordable(question.budget)
    ]
    alone = next((c for c in good if not c.rerank), None)
    best = next(iter(good), None)
    smaller = alone is None or (best and best.cost.code_bytes < alone.cost.code_bytes)
    told = list(notes)
    if widest < WIDTHS[-1]:
        least = min(found.documents for found in sets)
        told.append(
            f"measured among {least:,} documents; more compete among {question.documents:,}. A shortlist "
            f"of more than {widest} is nearly a search by full vectors here, and is not recommended by it"
        )
    short = [s for s in sets if s.queries < FEW_QUERIES]
    told += [f"{s.name} has {s.queries} queries: intervals are wide" for s in short]
    reranked = best if smaller else None
    return Advice(
        subject=subject,
        question=question,
        choices=list(choices),
        alone=alone,
        reranked=reranked,
        sets=list(sets),
        heads=heads or {},
        notes=tuple(told),
    )


def _widest(question: Question, sets: Sequence[Evaluation]) -> int:
    """The widest shortlist that says something about so many documents."""
    least = min(found.documents for found in sets)
    return WIDTHS[-1] if question.documents <= 2 * least else least // SHORTLIST_SHARE


def _choices(
    subject: Subject, question: Question, sets: Sequence[Evaluation], *, quiet: bool
) -> list[Choice]:
    """All of them, from the smallest; of equal bytes, the narrowest rerank first."""
    kept = [_halves(found) for found in sets]
    codes = sorted({(row.dim, row.kind) for row in sets[0].rows})
    speed = {}
    with Progress("time searches", len(codes), quiet=quiet) as bar:
        for code in codes:
            speed[code] = search_seconds(*code)
            bar.advance()
    choices = []
    for dim, kind in codes:
        price = cost(
            dim,
            kind,
            width=subject.model.width,
            documents=question.documents,
            seconds_per_row=speed[dim, kind],
        )
        for rerank in (0, *WIDTHS):
            found = [halves[dim, kind, rerank] for halves in kept]
            chosen, confirmed = (
                min(half, key=lambda i: i.low) for half in zip(*found, strict=True)
            )
            choices.append(Choice(dim, kind, rerank, chosen, confirmed, price))
    return sorted(choices, key=lambda c: (c.cost.code_bytes, c.rerank, c.dim))


def _halves(found: Evaluation) -> Mapping[tuple[int, str, int], tuple[Interval, Interval]]:
    """What each way keeps by the queries that choose, and by those that confirm."""
    order = np.random.default_rng(SEED).permutation(found.queries)
    parts = (order[: found.queries // 2], order[found.queries // 2 :])
    if any(not found.base_by_query[part].any() for part in parts):
        raise UsageError(f"{found.name}: the full model finds too little; give more queries")
    kept = {}
    for row in found.rows:
        if row.stage != "funnel":
            rerank = 0 if row.stage == "alone" else int(row.stage.split()[1])
            first, second = (ratio(row.by_query[p], found.base_by_query[p]) for p in parts)
            kept[row.dim, row.kind, rerank] = (first, second)
    return kept


def _codings(
    subject: Subject,
    data: Sequence[Retrieval],
    vectors: Sequence[Vectors],
    dims: Sequence[int],
    *,
    cache: Cache,
    quiet: bool,
) -> tuple[Callable[[int, str], Coding], Mapping[int, str], str]:
    """How codes are made: as an export with this text would; the heads fitted by dimension; a note."""
    texts = [text for found in data for text in found.documents]
    if len(texts) < FEWEST_TO_FIT:
        note = f"{len(texts)} passages are too few to fit a head on: the model is cut"
        return lambda dim, kind: own_coding(subject, dim, kind), {}, note
    picks = np.array(spread(range(len(texts)), MOST_PASSAGES))
    full = np.concatenate([v.documents.full for v in vectors])[picks]
    cut = () if subject.matryoshka else tuple(d for d in dims if d < subject.model.width)
    # A linear head learns to find a piece's own passage, and agrees less with the full model's ranking.
    head = "rotation" if any(found.relevance is None for found in data) else "linear"
    heads: dict[int, Float | None] = dict.fromkeys(dims)
    short = _pieces(subject, [texts[i] for i in picks], cache) if cut else None
    with Progress("fit heads", len(cut), quiet=quiet) as bar:
        for dim in cut:
            trial = Trial.of(full, nested_sizes(dim), layer_norm=subject.layer_norm, short=short)
            heads[dim] = trial.on_all().fit(head)
            bar.advance()
    made = {
        (dim, kind): _fitted(subject, full, heads[dim], dim, kind)
        for dim in dims
        for kind in CODE_KINDS
    }
    how = "cut, as the model was trained to be" if subject.matryoshka else f"behind {head} heads"
    note = f"codes are {how}; 1-bit codes are balanced; both fitted on {len(full):,} documents, no query"
    return lambda dim, kind: made[dim, kind], dict.fromkeys(cut, head), note


def _pieces(subject: Subject, texts: Sequence[str], cache: Cache) -> Short | None:
    """Pieces of passages, as the model's vectors; None where the texts give none."""
    pieces = cut_pieces(texts, count_pieces(len(texts)))
    if not pieces:
        return None
    full = subject.model.vectors(cache, [piece for _, piece in pieces], "query").full
    return Short(full, np.array([row for row, _ in pieces], dtype=np.intp))


def _fitted(subject: Subject, full: Float, head: Float | None, dim: int, kind: str) -> Coding:
    if kind != "1bit":
        return Coding.plain(head, dim, kind, scale=subject.scale)
    layer_norm = subject.layer_norm
    some = full[:: max(1, len(full) // 2000)]
    turned = balanced(some, head, dim=dim, layer_norm=layer_norm)
    codes = derive_codes(some, turned, dim=dim, layer_norm=layer_norm, scale=subject.scale)
    return Coding(turned, centre_of(codes))
