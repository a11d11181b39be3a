"""A whole evaluation: every set of text, as a table, as JSON, as plots and as a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, floor, log2
from pathlib import Path
from typing import Any

from edge_mrl.cli import Progress
from edge_mrl.encode import Encoder
from edge_mrl_export.pages import Axis, Line, Page, Panel, svg
from edge_mrl_export.quality.evaluation import (
    FUNNEL_LEAST,
    FUNNEL_SHARE,
    KINDS,
    WIDTHS,
    Evaluation,
    Row,
    Vectors,
    evaluate,
    evaluate_pairs,
    usual_dims,
)
from edge_mrl_export.quality.metrics import BOOTSTRAP_ROUNDS
from edge_mrl_export.quality.vectors import Cache, Subject, is_bundle, open_bundle, open_source
from edge_mrl_export.texts import Retrieval, Similarity, read_data, read_passages

__all__ = ["Assessment", "assess", "kept_panel", "lines", "opened", "percent_axis"]

#: Of an axis: the letters of more would run into each other on a phone.
MOST_STEPS = 5
STAGES = ("alone", "funnel", *(f"rerank {width}" for width in WIDTHS))
HOW = (
    f"kept: share of the full fp32 vectors' nDCG@10, with the 95 % interval of {BOOTSTRAP_ROUNDS:,} "
    "resamplings of the queries, the same for both. alone: exact search by the codes, with the query's "
    f"int8 code. funnel: 1-bit codes pass on one row in {FUNNEL_SHARE} (at least {FUNNEL_LEAST}), as a "
    "store of a million does. rerank N: full vectors put the best N in order."
)


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was measured.

    Attributes:
        subject: Of what.
        sets: Retrieval, by set.
        pairs: Similarity, by set, as plain values.
    """

    subject: Subject
    sets: list[Evaluation]
    pairs: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
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
        """Tables for people."""
        subject = self.subject
        out = [f"{subject.name}: {subject.model.name}, against the {subject.base.name}"]
        out += [f"note: {note}" for note in subject.notes]
        for found in self.sets:
            out += ["", _title(found), *lines(*_table(found))]
        for pairs in self.pairs:
            out += ["", f"{pairs['name']}: Spearman over {pairs['pairs']:,} pairs"]
            out += lines(*_pairs_table(pairs))
        return "\n".join([*out, "", HOW] if self.sets else out)

    def plots(self) -> dict[str, str]:
        """SVG by name, one for each set."""
        return {
            f"eval-{re.sub(r'[^a-z0-9]+', '-', found.name.lower()).strip('-') or 'set'}": svg(
                _panels(found)
            )
            for found in self.sets
        }

    def html(self) -> str:
        """A page that needs nothing else."""
        subject = self.subject
        page = Page(
            f"{subject.name}: what short codes keep",
            f"Measured: the {subject.model.name}. Compared with: the full vectors of the "
            f"{subject.base.name}.",
        )
        for note in subject.notes:
            page.note(note)
        for found in self.sets:
            page.heading(found.name, _title(found))
            page.plots(_panels(found))
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
    """A bundle or a source model, by its name on the command line."""
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
        data: Folders in BEIR's layout, and files of scored pairs.
        corpus: Text without judgements.
        dims: Dimensions of codes; None for the usual ones.
        cache: Of vectors.
        quiet: Show no progress.

    Raises:
        UsageError: Data that is malformed or of no use.
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
    vectors = Vectors.of(subject, data, cache)
    with Progress(f"{data.name}: search", len(dims) * len(KINDS), quiet=quiet) as bar:
        return evaluate(subject, data, vectors, dims, advance=bar.advance)


def _title(found: Evaluation) -> str:
    base = found.base
    return (
        f"{found.name}: {found.documents:,} documents, {found.queries:,} queries ({found.asked}), judged "
        f"by {found.judged_by}. Full fp32: nDCG@10 {base['ndcg_at_10']:.4f}, recall@100 "
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
    return [name, f"{row.code_bytes:,}", *(f"{value:.4f}" for value in figures), interval(row)]


def interval(row: Row) -> str:
    """The share kept, with its interval."""
    return f"{row.kept.ratio:.1%} ({row.kept.low:.1%} to {row.kept.high:.1%})"


def _pairs_table(pairs: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    by_dim: dict[int, list[str]] = {}
    for row in pairs["rows"]:
        by_dim.setdefault(row["dim"], [str(row["dim"])]).append(f"{row['spearman']:.4f}")
    rows = [["full fp32", f"{pairs['base']:.4f}"]]
    if pairs["full"] is not None:
        rows.append(["bundle, full", f"{pairs['full']:.4f}"])
    rows += list(by_dim.values())
    return ["dimensions", *KINDS], [row + [""] * (1 + len(KINDS) - len(row)) for row in rows]


def lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as what is in them; the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in (heads, *rows)
    ]


def _panels(found: Evaluation) -> list[Panel]:
    rerank = f"rerank {WIDTHS[0]}"
    return [
        kept_panel("codes alone", found.rows, "alone"),
        kept_panel(f"full vectors rerank {WIDTHS[0]}", found.rows, rerank),
    ]


def kept_panel(title: str, rows: Sequence[Row], stage: str) -> Panel:
    """nDCG@10 kept against bytes, a line for each kind."""
    lines, values, sizes = [], [100.0], []
    for kind in KINDS:
        points = [
            (float(row.code_bytes), 100 * row.kept.ratio)
            for row in rows
            if (row.kind, row.stage) == (kind, stage)
        ]
        values += [kept for _, kept in points]
        sizes += [size for size, _ in points]
        if points:
            lines.append(Line(kind, points))
    first, last = floor(log2(min(sizes))), max(ceil(log2(max(sizes))), floor(log2(min(sizes))) + 1)
    step = -(-(last - first) // MOST_STEPS)
    ticks = tuple(2.0**power for power in range(first, last + step, step))
    return Panel(title, Axis("bytes of a code", ticks), percent_axis(values), lines)


def percent_axis(values: Sequence[float]) -> Axis:
    """From below the least value to above the greatest, in round steps."""
    low = min(values)
    step = next(s for s in (1, 2, 5, 10, 20) if (100 - low) / s <= 8 or s == 20)
    start = int(low // step) * step
    end = int(-(-max(values) // step)) * step
    return Axis("nDCG@10 kept, %", tuple(float(v) for v in range(start, end + 1, step)), log=False)
