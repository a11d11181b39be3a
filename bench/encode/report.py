"""What bench/encode/compare.py's measurements come to: numbers, tables and a chart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.encode.peak import Transformer
from bench.encode.rounds import Job, RoundResult
from bench.support.environments import installed_mb
from edge_mrl_export.pages.plots import Column, dots

__all__ = ["Work", "chart", "folder_mb", "ratchet_table", "spread", "summary", "tables"]

Floats = NDArray[np.float32]
#: Documents whose pairs are compared, where an engine's vectors are in a space of their own.
PAIRED = 500


@dataclass(frozen=True, slots=True)
class Work:
    """What the texts ask of a transformer, and what the machine could do.

    Attributes:
        shape: The transformer's sizes.
        documents: Tokens of each document.
        queries: Tokens of each query.
        peak: Billions of integer MAC a second; None if it was not measured.
    """

    shape: Transformer
    documents: Sequence[int]
    queries: Sequence[int]
    peak: float | None

    def document_share(self, found: RoundResult) -> float:
        """Part of the peak that a round's documents used."""
        assert self.peak is not None
        gmac = self.shape.gmac(self.documents[number] for number in found.numbers)
        return gmac / found.seconds / self.peak

    def query_share(self, found: RoundResult) -> float:
        """Part of the peak that a round's queries used."""
        assert self.peak is not None
        gmac = self.shape.gmac(self.queries[number] for number in found.queries)
        return gmac / (sum(found.latencies_ms) / 1e3) / self.peak


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, least and most."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def summary(job: Job, work: Work, reference: Floats | None) -> dict[str, Any]:
    """One engine's numbers; with ``problem`` if it could not run, or not to the end.

    Args:
        job: What was measured.
        work: What was asked.
        reference: float32[n, D] of all documents by the fp32 model; None if there is none.
    """
    row: dict[str, Any] = {"environment": job.environment.name, "static": job.engine.static}
    if job.environment.problem is None:
        row["installed_mb"] = round(installed_mb(job.environment), 1)
    if job.path.is_dir():
        row["model_mb"] = round(folder_mb(job.path), 1)
    if job.starts:
        row["cold_start_s"] = spread([start["process_s"] for start in job.starts])
        row["cold_start_inside_s"] = {
            name: round(statistics.median(start[name] for start in job.starts), 3)
            for name in job.starts[0]
            if name != "process_s"
        }
    if job.default:
        row |= _default(job, work) | _fidelity(job, reference)
    if job.best:
        row["best_batch"] = _best(job, work)
    row["peak_rss_mb"] = {name: round(value, 1) for name, value in job.memory.items()}
    if job.problem is not None:
        row["problem"] = job.problem
    return row


def _default(job: Job, work: Work) -> dict[str, Any]:
    rounds = job.default
    row: dict[str, Any] = {
        f"query_p{rank}_ms": spread([_percentile(found, rank) for found in rounds])
        for rank in (50, 95)
    }
    row["documents_per_s"] = spread([len(found.numbers) / found.seconds for found in rounds], 1)
    row["default_batch"] = job.engine.default_batch
    row["cpu_per_wall"] = round(statistics.median(found.cpu_per_wall for found in rounds), 2)
    if work.peak is not None and not job.engine.static:
        row["share_of_integer_peak"] = {
            "documents": spread([work.document_share(found) for found in rounds], 4),
            "queries": spread([work.query_share(found) for found in rounds], 4),
        }
    return row


def _percentile(found: RoundResult, rank: int) -> float:
    return float(np.percentile(found.latencies_ms, rank))


def _best(job: Job, work: Work) -> dict[str, Any]:
    row: dict[str, Any] = {
        "size": job.best_batch,
        "tried": {str(size): round(rate, 1) for size, rate in job.tried.items()},
        "documents_per_s": spread([len(found.numbers) / found.seconds for found in job.best], 1),
    }
    if work.peak is not None and not job.engine.static:
        row["share_of_integer_peak"] = spread([work.document_share(r) for r in job.best], 4)
    return row


def _fidelity(job: Job, reference: Floats | None) -> dict[str, Any]:
    """Cosines to the fp32 vectors, and of texts alone to the same in a batch."""
    numbers = [number for found in job.default for number in found.numbers]
    parts: list[Floats] = [np.load(job.vectors(number)) for number in range(len(job.default))]
    vectors = np.concatenate(parts)
    row: dict[str, Any] = {}
    if reference is not None and vectors.shape[1] == reference.shape[1] and not job.engine.static:
        cosines = _cosines(vectors, reference[numbers])
        mean, least = (round(float(value), 4) for value in (cosines.mean(), cosines.min()))
        row["cosine_to_fp32"] = {"mean": mean, "min": least, "texts": len(cosines)}
    if reference is not None:
        pairs = _pairs(vectors[:PAIRED]), _pairs(reference[numbers[:PAIRED]])
        row["pair_correlation"] = round(float(np.corrcoef(*pairs)[0, 1]), 4)
    if job.alone.exists():
        alone: Floats = np.load(job.alone)
        cosines = _cosines(alone, vectors[: len(alone)])
        row["cosine_alone_to_batch"] = {"min": round(float(cosines.min()), 4), "texts": len(alone)}
    return row


def _cosines(left: Floats, right: Floats) -> Floats:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: Floats = (left * right).sum(axis=1) / lengths
    return found


def _pairs(vectors: Floats) -> Floats:
    """The cosine of each pair of different texts."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return found


def folder_mb(folder: Path) -> float:
    """Megabytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _spread_cell(name: str, digits: int) -> Callable[[Mapping[str, Any]], str]:
    def cell(row: Mapping[str, Any]) -> str:
        found = row[name]
        low, high = found["min"], found["max"]
        return f"{found['median']:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"

    return cell


def _best_cell(row: Mapping[str, Any]) -> str:
    best = row["best_batch"]
    text = _spread_cell("documents_per_s", 0)(best)
    return text if best["size"] is None else f"{text} b{best['size']}"


def _cosine_cell(row: Mapping[str, Any]) -> str:
    found = row.get("cosine_to_fp32")
    if found is None:
        return f"(pairs {row['pair_correlation']:.2f})"
    return f"{found['mean']:.4f} ({found['min']:.4f})"


def _share_cell(row: Mapping[str, Any]) -> str:
    shares = [row["share_of_integer_peak"]["documents"]]
    if "best_batch" in row:
        shares.append(row["best_batch"]["share_of_integer_peak"])
    return " / ".join(f"{share['median']:.0%}" for share in shares)


SPEED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "query p50 ms": _spread_cell("query_p50_ms", 2),
    "p95 ms": _spread_cell("query_p95_ms", 2),
    "documents/s": _spread_cell("documents_per_s", 0),
    "best batch": _best_cell,
    "of integer peak": _share_cell,
    "of it, queries": lambda row: f"{row['share_of_integer_peak']['queries']['median']:.0%}",
    "cold start s": _spread_cell("cold_start_s", 2),
}
COST: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "peak RSS MB, queries": lambda row: f"{row['peak_rss_mb']['queries_mb']:,.0f}",
    "documents": lambda row: f"{row['peak_rss_mb']['bulk_mb']:,.0f}",
    "installed MB": lambda row: f"{row['installed_mb']:,.0f}",
    "model MB": lambda row: f"{row['model_mb']:,.1f}",
    "cosine to fp32, mean (min)": _cosine_cell,
    "alone to batch, min": lambda row: f"{row['cosine_alone_to_batch']['min']:.4f}",
}


def tables(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Speed, then cost and fidelity, in Markdown; those that could not run are lines below."""
    lines = [*_table(results, SPEED), "", *_table(results, COST), ""]
    lines += [
        f"{name}: could not run: {row['problem']}"
        for name, row in results.items()
        if "problem" in row
    ]
    return "\n".join(lines).rstrip()


def ratchet_table(results: Mapping[str, Any]) -> str:
    """Memory by engine and number of documents."""
    lines = [f"{'':<24}{'documents':>12}{'peak RSS MB':>14}{'RSS MB':>10}{'documents/s':>14}"]
    for name, points in results.items():
        if isinstance(points, dict):
            lines.append(f"{name}: could not run: {points['problem']}")
            continue
        for point in points:
            cells = (point["peak_mb"], point["rss_mb"], point["documents_per_s"])
            peak, now, rate = (f"{cell:,.0f}" for cell in cells)
            lines.append(f"{name:<24}{point['documents']:>12,.0f}{peak:>14}{now:>10}{rate:>14}")
    return "\n".join(lines)


def _table(
    results: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
) -> list[str]:
    rows = [["", *columns]]
    for name, row in results.items():
        cells = [_cell(column, row) for column in columns.values()]
        if set(cells) != {"-"}:
            rows.append([name, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [lines[0], rule, *lines[1:]]


def _cell(column: Callable[[Mapping[str, Any]], str], row: Mapping[str, Any]) -> str:
    """A value as text; "-" where there is none."""
    try:
        return column(row)
    except KeyError:
        return "-"


def chart(results: Mapping[str, Mapping[str, Any]], *, threads: int) -> str:
    """Documents a second, query latency, cold start and memory of the transformers, quickest first."""
    able = [name for name, row in results.items() if "best_batch" in row and not row["static"]]
    able.sort(key=lambda name: -results[name]["best_batch"]["documents_per_s"]["median"])
    rows = {name: results[name] for name in able}
    columns = [
        _column("documents/s", rows, lambda row: row["best_batch"]["documents_per_s"]),
        _column("query p50, ms", rows, lambda row: row["query_p50_ms"]),
        _column("cold start, s", rows, lambda row: row["cold_start_s"]),
        _column("peak RSS, MB: queries to documents", rows, _memory_marks),
    ]
    title = f"all-MiniLM-L6-v2, {threads} threads, best batch sizes; log scales, bars from least to most"
    return dots(list(rows), columns, title=title, marked="edge-mrl")


def _memory_marks(row: Mapping[str, Any]) -> Mapping[str, float]:
    """From the queries' to the documents'."""
    memory = row["peak_rss_mb"]
    return {"min": memory["queries_mb"], "median": memory["bulk_mb"], "max": memory["bulk_mb"]}


def _column(
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    marks: Callable[[Mapping[str, Any]], Mapping[str, float]],
) -> Column:
    found = [marks(row) for row in rows.values()]
    return Column(title, [(entry["min"], entry["median"], entry["max"]) for entry in found])
