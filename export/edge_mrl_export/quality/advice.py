"""The smallest code that is good enough on the user's own text, and what each one costs.

Half of the queries choose, both how each code is made and which code is taken: a code is good if the
lower end of the 95 % interval of the quality that it keeps is within the tolerance. The other half is
held out: there, the quality itself must be within the tolerance too. Only the held-out figures are
reported, so luck in the choice does not flatter a code.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_mrl.cli import Progress, duration, size
from edge_mrl.codes import CODE_KINDS, PLANES, code_bytes
from edge_mrl.errors import UsageError
from edge_mrl_export.pages import Page, svg
from edge_mrl_export.quality.cache import Cache
from edge_mrl_export.quality.candidates import Tried, best_candidates, try_candidates
from edge_mrl_export.quality.choices import Choice, measure_choices
from edge_mrl_export.quality.coding import check_dim
from edge_mrl_export.quality.costs import MEASURED_ROWS
from edge_mrl_export.quality.evaluation import WIDTHS, Evaluation, SetVectors, evaluate, usual_dims
from edge_mrl_export.quality.figures import columns, frontier_panels, kept_panels, kept_share
from edge_mrl_export.quality.fitting import Text, make_candidates
from edge_mrl_export.quality.split import hold_out
from edge_mrl_export.quality.subject import Subject
from edge_mrl_export.texts import Retrieval

__all__ = ["Advice", "Question", "advise", "decide"]

#: With fewer queries, an interval is wider than most tolerances.
FEW_QUERIES = 100
#: With less, no code is chosen: among few passages every code finds the right ones, and a few questions
#: say what chance says. Fewer passages do if there will never be more.
FEWEST_PASSAGES, FEWEST_QUERIES = 500, 40
#: The code that is named then: on any text that was tried, its first choice of dimensions and bits.
USUAL = (256, "int4")
#: A shortlist of at most this fraction of the documents measured here says something about larger stores.
SHORTLIST_SHARE = 50
#: How many choices are named if none is good enough.
NEAREST = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What the user asks for.

    Attributes:
        tolerance: Share of the fp32 full model's nDCG@10 that may be lost.
        budget: Bytes of storage that all codes may take; None for no limit.
        documents: How many documents there will be, one passage in each.
        corpus: The text that heads are fitted to, for the recommended command.
    """

    tolerance: float = 0.03
    budget: int | None = None
    documents: int = 1_000_000
    corpus: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """What was measured, and what it recommends.

    Attributes:
        subject: The model.
        question: What was asked.
        choices: All choices that were measured, from the smallest.
        alone: The smallest good choice that needs codes only; None if no such choice is good.
        reranked: A smaller choice that is good with full vectors; None if there is no such choice.
        sets: The measurements.
        tried: Every way to make each code; none where the choices were not measured here.
        too_little: Why no code can be chosen; empty if one can.
        notes: For the reader: what limits these figures.
    """

    subject: Subject
    question: Question
    choices: list[Choice]
    alone: Choice | None
    reranked: Choice | None
    sets: list[Evaluation]
    tried: list[Tried]
    too_little: str
    notes: tuple[str, ...]

    @property
    def found(self) -> Choice | None:
        """The recommended choice; None if nothing is good enough and fits."""
        return self.alone or self.reranked

    def nearest(self) -> list[Choice]:
        """If nothing is good enough and fits: the best that fit, or the smallest that are good."""
        fitting = [c for c in self._telling() if c.affordable(self.question.budget)]
        if fitting:
            return sorted(fitting, key=lambda c: -c.chosen.low)[:NEAREST]
        good = [c for c in self.choices if c.within(self.question.tolerance)]
        return (good or self.choices)[:NEAREST]

    def _telling(self) -> list[Choice]:
        """Choices whose shortlist says something about so many documents."""
        widest = _widest(self.question, self.sets)
        return [choice for choice in self.choices if choice.rerank <= widest]

    def command(self, choice: Choice) -> str:
        """The command that exports a choice, or that shows the bundle which already has it."""
        subject = self.subject
        words = _export(subject, choice.dim, choice.kind)
        if choice.head == "bundle":
            assert subject.folder is not None
            if (choice.dim, choice.kind) == (subject.dim, subject.packing.kind):
                return shlex.join(["edge-mrl", "inspect", str(subject.folder)])
            words += ["--head", str(subject.folder / "head.npy")]
        else:
            words += ["--head", choice.head]
        fitted = choice.head not in ("bundle", "prefix", "random")
        if fitted or choice.turned:
            for path in self.question.corpus[:1]:
                words += ["--corpus", str(path)]
            if choice.kind in PLANES and not choice.turned:
                words += ["--no-turn"]
        return shlex.join([*words, "-o", f"{subject.name}-{choice.dim}-{choice.kind}"])

    def as_json(self) -> dict[str, Any]:
        """Values for JSON."""
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
            "too_little": self.too_little or None,
            "usual": usual_command(self.subject) if self.too_little else None,
            "nearest": [] if found else [choice.as_json() for choice in self.nearest()],
            "choices": [choice.as_json() for choice in self.choices],
            "tried": [way.as_json() for way in self.tried],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Text for people, the answer first."""
        question = self.question
        out = [
            f"{self.subject.name}: within {question.tolerance:.1%} of the {self.subject.base.name}'s "
            f"nDCG@10, for {question.documents:,} documents"
            + (f" in {size(question.budget)}" if question.budget else "")
        ]
        out += ["", *self.verdict(), ""]
        out += [f"set: {s.name}, {s.queries:,} queries ({s.asked})" for s in self.sets]
        out += [f"note: {note}" for note in self.notes]
        return "\n".join([*out, "", *columns(*self.table(self._shown())), "", HOW])

    def verdict(self) -> list[str]:
        """What to do; a line that starts with two spaces is a command."""
        if self.too_little:
            dim, kind = min(USUAL[0], self.subject.model.width), USUAL[1]
            usual = f"the usual code, {dim} {kind} ({code_bytes(dim, kind)} bytes a passage)"
            why = f"too little to choose a code by: {self.too_little}"
            return [f"{why}. Until there is more, take {usual}", f"  {usual_command(self.subject)}"]
        if self.found is None:
            names = "; ".join(
                f"{c.name} ({kept_share(c.confirmed)}, {size(c.cost.storage_bytes)})"
                for c in self.nearest()
            )
            advice = "allow a larger --tolerance or --budget, or give more queries"
            return [
                f"nothing that was measured is good enough and fits: {advice}. Nearest: {names}"
            ]
        out = []
        for label, choice in (
            ("by itself, without a server", self.alone),
            ("with full vectors, from a server or kept on the device", self.reranked),
        ):
            if choice is not None:
                code = f"{choice.name}, {choice.how} ({choice.cost.code_bytes:,} bytes a passage)"
                kept = f"keeps {kept_share(choice.confirmed)} on held-out queries"
                out += [f"{label}: {code} {kept}", f"  {self.command(choice)}"]
        return out

    def _shown(self) -> list[Choice]:
        """Choices that keep more than every smaller one, and the recommended ones."""
        front, best = [], -1.0
        for choice in self._telling():
            if choice.confirmed.ratio > best or choice in (self.alone, self.reranked):
                front.append(choice)
                best = max(best, choice.confirmed.ratio)
        return front

    def table(self, choices: Sequence[Choice]) -> tuple[list[str], list[list[str]]]:
        """Headings and rows."""
        heads = ["code", "bytes", "storage", "memory", "search", "push", "pull", "kept", "good"]
        heads += ["made by"]
        return heads, [
            [
                c.name,
                f"{c.cost.code_bytes:,}",
                size(c.cost.storage_bytes),
                size(c.cost.memory_bytes),
                duration(c.cost.search_s) if c.cost.search_s >= 0.001 else "< 1 ms",
                size(c.cost.push_bytes),
                size(c.cost.pull_bytes),
                kept_share(c.confirmed),
                "yes" if c.within(self.question.tolerance) else "no",
                c.how,
            ]
            for c in choices
        ]

    def plot(self) -> str:
        """The curve of bytes against quality with held-out questions, in the worst set, as SVG."""
        if self.tried:
            return svg(frontier_panels(self.tried, self.question.tolerance))
        return svg(kept_panels(self.sets[0].rows))

    def html(self) -> str:
        """A self-contained HTML page, the answer first."""
        question = self.question
        page = Page(
            f"{self.subject.name}: which code to take",
            f"Wanted: the smallest code within {question.tolerance:.1%} of the "
            f"{self.subject.base.name}'s nDCG@10, for {question.documents:,} documents"
            + (f" in {size(question.budget)}." if question.budget else "."),
        )
        for line in self.verdict():
            (page.code if line.startswith("  ") else page.text)(line.strip())
        for note in self.notes:
            page.note(f"Note: {note}.")
        if self.tried:
            page.heading("The frontier", "On held-out queries, by the codes alone.")
            page.plots(frontier_panels(self.tried, question.tolerance))
        page.heading("Quality by bytes", f"On {self.sets[0].name}, all queries.")
        page.plots(kept_panels(self.sets[0].rows))
        page.heading(
            "The best codes",
            "No smaller code keeps more. From the smallest; quality on held-out queries.",
        )
        page.figures(*self.table(self._shown()))
        page.heading("All codes that were measured")
        page.figures(*self.table(self.choices))
        page.heading("How it was measured")
        page.text(HOW)
        return page.html()


HOW = (
    "kept: share of the full fp32 vectors' nDCG@10 on the half of the queries that was held out, with "
    "its 95 % interval, in the worst of the sets. good: on the half that chose, the interval's lower end "
    "is within the tolerance, and on the held-out half the share is. made by: of all ways to make this "
    "code, the one that kept most on the half that chose. bytes: of one code. storage: codes "
    "in the database and in the code file, without texts; full vectors kept on the device take two more "
    "bytes for each dimension. memory: what every search reads. search: the store's own funnel over "
    f"{MEASURED_ROWS:,} random codes on one thread of this machine, scaled to all documents. push: a "
    "document's full vector to a server. pull: its code from a server. rerank N: full vectors order the "
    "best N again."
)


def usual_command(subject: Subject) -> str:
    """The command that exports the code to take where too little is known."""
    dim, kind = min(USUAL[0], subject.model.width), USUAL[1]
    return shlex.join([*_export(subject, dim, kind), "-o", f"{subject.name}-{dim}-{kind}"])


def _export(subject: Subject, dim: int, kind: str) -> list[str]:
    words = ["edge-mrl", "export", subject.command, "--dim", str(dim)]
    return words if kind == "int8" else [*words, "--code", kind]


def advise(
    subject: Subject,
    question: Question,
    data: Sequence[Retrieval],
    *,
    dims: Sequence[int] | None,
    cache: Cache,
    quiet: bool = False,
) -> Advice:
    """Make every code in every way, measure it on every set, and choose the smallest good one.

    Args:
        subject: A source model, or a bundle, whose head is one of the ways.
        question: What the user asks for.
        data: Sets to measure on; heads are fitted to their documents. Where questions come from the
            documents, no fit sees those that they come from.
        dims: Dimensions of codes; None for halves of the model's.
        cache: Keeps vectors for the next run.
        quiet: Show no progress.

    Raises:
        UsageError: There are too few queries, or the full model finds too little.
    """
    sizes = tuple(dims or usual_dims(replace(subject, head=None, dim=None)))
    for dim in sizes:
        check_dim(subject, dim)
    sets, text = measured_on(subject, data, cache)
    fitted = make_candidates(subject, text, sizes, cache=cache, quiet=quiet)
    tried = try_candidates(subject, fitted.candidates, sets, quiet=quiet)
    best = best_candidates(tried)
    codings = {code: made.coding for code, made in best.items()}
    with Progress("search", len(best) * len(sets), quiet=quiet) as bar:
        measured = [
            evaluate(subject, d, v, sizes, kinds=CODE_KINDS, codings=codings, advance=bar.advance)
            for d, v in sets
        ]
    choices = measure_choices(
        measured, best, width=subject.model.width, documents=question.documents, quiet=quiet
    )
    notes = (*subject.notes, fitted.note)
    return decide(subject, question, choices, measured, tried=tried, notes=notes)


def measured_on(
    subject: Subject, data: Sequence[Retrieval], cache: Cache
) -> tuple[list[tuple[Retrieval, SetVectors]], Text]:
    """Sets to measure on, with their vectors; and the text to fit on, which gives no question.

    Raises:
        UsageError: There are too few queries.
    """
    parts = [hold_out(found) for found in data]
    for found, _ in parts:
        if len(found.queries) < 8:
            raise UsageError(
                f"{found.name} gives {len(found.queries)} queries, expected at least 8: give more text. "
                f"Until there is more, take the usual code: {usual_command(subject)}"
            )
    sets = [(found, SetVectors.of(subject, found, cache)) for found, _ in parts]
    text = Text(
        [found.documents[row] for found, rows in parts for row in rows],
        np.concatenate(
            [v.documents.full[rows] for (_, v), (_, rows) in zip(sets, parts, strict=True)]
        ),
        all(found.relevance is not None for found in data),
    )
    return sets, text


def decide(
    subject: Subject,
    question: Question,
    choices: Sequence[Choice],
    sets: Sequence[Evaluation],
    *,
    tried: Sequence[Tried] = (),
    notes: Sequence[str] = (),
) -> Advice:
    """Choose among what was measured.

    Args:
        subject: The model.
        question: What the user asks for.
        choices: All choices, from the smallest.
        sets: The measurements.
        tried: Every way to make each code.
        notes: For the reader: what limits these figures.
    """
    too_little = _too_little(question, sets)
    widest = _widest(question, sets)
    good = [
        c
        for c in choices
        if not too_little
        and c.rerank <= widest
        and c.within(question.tolerance)
        and c.affordable(question.budget)
    ]
    alone = next((c for c in good if not c.rerank), None)
    best = next(iter(good), None)
    smaller = alone is None or (best and best.cost.code_bytes < alone.cost.code_bytes)
    told = list(notes)
    if widest < WIDTHS[-1]:
        least = min(found.documents for found in sets)
        told.append(
            f"measured among {least:,} documents; more compete among {question.documents:,}. A shortlist "
            f"of more than {widest} is nearly a search by full vectors here, and is not recommended"
        )
    short = [s for s in sets if s.queries < FEW_QUERIES]
    told += [f"{s.name} has only {s.queries} queries, so its intervals are wide" for s in short]
    reranked = best if smaller else None
    return Advice(
        subject=subject,
        question=question,
        choices=list(choices),
        alone=alone,
        reranked=reranked,
        sets=list(sets),
        tried=list(tried),
        too_little=too_little,
        notes=tuple(told),
    )


def _too_little(question: Question, sets: Sequence[Evaluation]) -> str:
    """Why these sets choose no code; empty if they do."""
    for found in sets:
        least = min(FEWEST_PASSAGES, question.documents)
        if found.documents < least:
            return (
                f"{found.name} has {found.documents:,} passages, which say nothing about "
                f"{question.documents:,} (at least {least:,})"
            )
        if found.queries < FEWEST_QUERIES:
            return f"{found.name} gives {found.queries} questions (at least {FEWEST_QUERIES})"
    return ""


def _widest(question: Question, sets: Sequence[Evaluation]) -> int:
    """The longest shortlist that says something about so many documents."""
    least = min(found.documents for found in sets)
    return WIDTHS[-1] if question.documents <= 2 * least else least // SHORTLIST_SHARE
