"""A whole evaluation: every set of text, as text, JSON, charts and an HTML page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mrl.cli import Progress
from edge_mrl.encode import Encoder
from edge_mrl_export.pages import Page, svg
from edge_mrl_export.quality.cache import Cache
from edge_mrl_export.quality.evaluation import (
    FUNNEL_LEAST,
    FUNNEL_SHARE,
    KINDS,
    WIDTHS,
    Evaluation,
    Row,
    SetVectors,
    evaluate,
    usual_dims,
)
from edge_mrl_export.quality.figures import columns, kept_panels, kept_share
from edge_mrl_export.quality.metrics import BOOTSTRAP_ROUNDS
from edge_mrl_export.quality.similarity import evaluate_pairs
from edge_mrl_export.quality.subject import Subject, is_bundle, open_bundle, open_source
from edge_mrl_export.texts import Retrieval, Similarity, read_data, read_passages

__all__ = ["Assessment", "assess", "opened"]

#: Share of the nDCG@10 that a code must keep to be named first; advise's usual tolerance.
ENOUGH = 0.97
STAGES = ("alone", "funnel", *(f"rerank {width}" for width in WIDTHS))
HOW = (
    "kept: share of the full fp32 vectors' nDCG@10, with its 95 % interval from "
    f"{BOOTSTRAP_ROUNDS:,} resamplings of the queries. top 10: share of the fp32 vectors' ten best "
    "documents that are among these ten. alone: exhaustive search by the codes, with the query's int8 "
    f"code. funnel: 1-bit codes first pass on one document in {FUNNEL_SHARE} (at least {FUNNEL_LEAST}), "
    "as in a store of a million. rerank N: full vectors order the best N again."
)


@dataclass(frozen=True, slots=True)
class Assessment:
    """Everything that was measured.

    Attributes:
        subject: The bundle or model.
        sets: Retrieval quality, by set.
        pairs: Similarity, by set, as values for JSON.
    """

    subject: Subject
    sets: list[Evaluation]
    pairs: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Values for JSON."""
        return {
            "model": self.subject.name,
            "measured": self.subject.model.name,
            "compared_with": f"full vectors of the {self.subject.base.name}",
            "head": "prefix" if self.subject.head is None else "matrix",
            "notes": list(self.subject.notes),
            "sets": [found.as_json() for found in self.sets],
            "similarity": self.pairs,
        }

    def text(self) -> str:
        """Text for people, the answer first."""
        subject = self.subject
        out = [f"{subject.name}: {subject.model.name}, compared with the {subject.base.name}", ""]
        out += self.answers()
        out += [f"note: {note}" for note in subject.notes]
        for found in self.sets:
            out += ["", _title(found), *columns(*_table(found))]
        for pairs in self.pairs:
            out += ["", f"{pairs['name']}: Spearman over {pairs['pairs']:,} pairs"]
            out += columns(*_pairs_table(pairs))
        return "\n".join([*out, "", HOW] if self.sets else out)

    def answers(self) -> list[str]:
        """What the reader wants to know first, in a sentence for each set."""
        return [
            *(_answer(self.subject, found) for found in self.sets),
            *(_pairs_answer(self.subject, pairs) for pairs in self.pairs),
        ]

    def plots(self) -> dict[str, str]:
        """SVG by name, one for each set."""
        return {
            f"eval-{re.sub(r'[^a-z0-9]+', '-', found.name.lower()).strip('-') or 'set'}": svg(
                kept_panels(found.rows)
            )
            for found in self.sets
        }

    def html(self) -> str:
        """A self-contained HTML page, the answer first."""
        subject = self.subject
        page = Page(
            f"{subject.name}: what short codes keep",
            f"Measured: the {subject.model.name}. Compared with: the full vectors of the "
            f"{subject.base.name}.",
        )
        for answer in self.answers():
            page.text(answer)
        for note in subject.notes:
            page.note(f"Note: {note}.")
        for found in self.sets:
            page.heading(found.name, _title(found))
            page.plots(kept_panels(found.rows))
            page.figures(*_table(found))
        for pairs in self.pairs:
            page.heading(f"{pairs['name']}: similarity", f"Spearman over {pairs['pairs']:,} pairs.")
            page.figures(*_pairs_table(pairs))
        if self.sets:
            page.heading("How it was measured")
            page.text(HOW)
        return page.html()


@contextmanager
def opened(target: str | None, source: str | None) -> Iterator[Subject]:
    """A bundle or a source model, named as on the command line."""
    if target is not None and is_bundle(target):
        with Encoder.open(target) as encoder:
            yield open_bundle(encoder, source)
    else:
        yield open_source(target)


def assess(
    subject: Subject,
    *,
    data: Sequence[Path],
    corpus: Sequence[Path],
    dims: Sequence[int] | None,
    cache: Cache,
    quiet: bool = False,
) -> Assessment:
    """Measure on every set.

    Args:
        subject: What is measured.
        data: Folders in BEIR's layout, and files of pairs with scores.
        corpus: Text without judgements.
        dims: Dimensions of codes; None for halves of the model's, and the bundle's own.
        cache: Keeps vectors for the next run.
        quiet: Show no progress.

    Raises:
        UsageError: The data is malformed or cannot be used.
    """
    read = [read_data(path) for path in data]
    if corpus:
        read.append(read_passages(corpus))
    sizes = tuple(dims or usual_dims(subject))
    sets, pairs = [], []
    for found in read:
        if isinstance(found, Similarity):
            pairs.append(evaluate_pairs(subject, found, cache, sizes))
        else:
            sets.append(_evaluated(subject, found, sizes, cache, quiet=quiet))
    return Assessment(subject, sets, pairs)


def _evaluated(
    subject: Subject, data: Retrieval, dims: Sequence[int], cache: Cache, *, quiet: bool
) -> Evaluation:
    vectors = SetVectors.of(subject, data, cache)
    with Progress(f"{data.name}: search", len(dims) * len(KINDS), quiet=quiet) as bar:
        return evaluate(subject, data, vectors, dims, advance=bar.advance)


def _answer(subject: Subject, found: Evaluation) -> str:
    """What the bundle's own code keeps; for a model without one, the smallest code that keeps enough."""
    codes = [row for row in found.rows if row.kind != "float32"]
    alone = sorted((row for row in codes if row.stage == "alone"), key=lambda row: row.code_bytes)
    own = [row for row in alone if (row.dim, row.kind) == (subject.dim, subject.packing.kind)]
    good = [row for row in alone if row.kept.low >= ENOUGH]
    row = next(iter(own or good), None)
    quality = f"the {subject.base.name}'s nDCG@10"
    if row is None:
        return f"{found.name}: no code that was measured keeps {ENOUGH:.0%} of {quality} by itself."
    again = (row.dim, row.kind, f"rerank {WIDTHS[0]}")
    reranked = next(r for r in codes if (r.dim, r.kind, r.stage) == again)
    which = "this bundle's code" if own else f"the smallest code that keeps {ENOUGH:.0%}"
    return (
        f"{found.name}: {which} ({row.dim} {row.kind}, {row.code_bytes:,} bytes a passage) keeps "
        f"{kept_share(row.kept)} of {quality}; {reranked.kept.ratio:.1%} where full vectors rerank its "
        f"best {WIDTHS[0]}."
    )


def _pairs_answer(subject: Subject, pairs: dict[str, Any]) -> str:
    shown = {(row["dim"], row["kind"]): row["spearman"] for row in pairs["rows"]}
    largest = max(dim for dim, _ in shown)
    dim, kind = (largest, "int8") if subject.dim is None else (subject.dim, subject.packing.kind)
    found = shown.get((dim, kind))
    code = "" if found is None else f", the {dim} {kind} code {found:.4f}"
    return (
        f"{pairs['name']}: Spearman's correlation with people's scores: full fp32 vectors "
        f"{pairs['base']:.4f}{code}."
    )


def _title(found: Evaluation) -> str:
    base = found.base
    return (
        f"{found.name}: {found.documents:,} documents, {found.queries:,} queries ({found.asked}), judged "
        f"by {found.judged_by}. Full fp32 vectors: nDCG@10 {base['ndcg_at_10']:.4f}, recall@100 "
        f"{base['recall_at_100']:.4f}, MRR@10 {base['mrr_at_10']:.4f}"
    )


def _table(found: Evaluation) -> tuple[list[str], list[list[str]]]:
    """One line for each code, one column for each stage."""
    heads = ["code", "bytes", "nDCG@10", "R@100", "MRR@10", "top 10", "alone, kept", *STAGES[1:]]
    cells = {(row.dim, row.kind, row.stage): row for row in found.rows}
    rows = [] if found.full is None else [_first_cells(found.full, "bundle, full")]
    for row in found.rows:
        if row.stage == "alone":
            others = [cells.get((row.dim, row.kind, stage)) for stage in STAGES[1:]]
            shown = [f"{other.kept.ratio:.1%}" if other else "-" for other in others]
            rows.append(_first_cells(row, f"{row.dim} {row.kind}") + shown)
    return heads, [row + [""] * (len(heads) - len(row)) for row in rows]


def _first_cells(row: Row, name: str) -> list[str]:
    figures = (row.ndcg_at_10, row.recall_at_100, row.mrr_at_10, row.overlap_at_10)
    return [
        name,
        f"{row.code_bytes:,}",
        *(f"{value:.4f}" for value in figures),
        kept_share(row.kept),
    ]


def _pairs_table(pairs: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    by_dim: dict[int, list[str]] = {}
    for row in pairs["rows"]:
        by_dim.setdefault(row["dim"], [str(row["dim"])]).append(f"{row['spearman']:.4f}")
    rows = [["full fp32", f"{pairs['base']:.4f}"]]
    if pairs["full"] is not None:
        rows.append(["bundle, full", f"{pairs['full']:.4f}"])
    rows += list(by_dim.values())
    return ["dimensions", *KINDS], [row + [""] * (1 + len(KINDS) - len(row)) for row in rows]
