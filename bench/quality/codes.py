"""Bytes against quality: ``python -m bench.quality.codes``.

On folders in BEIR's layout, with the fp32 source's own vectors, and codes made from them as a graph and
a store do (FORMAT.md, "Codes"). For each set: plain truncation, and a linear head fitted to the set's
documents and excerpts of them; each at several dimensions, kept as float32, int8, int4, 1 bit (signs),
and 1 bit rotated and centred on at most 2,000 of the documents, as ``--code 1bit --corpus`` does. No
fit sees a query or a judgement. Queries are float32 or int8 (asymmetric scoring), or packed like the
documents (symmetric). Each figure is the share of the full fp32 vectors' nDCG@10 that is kept, by the
codes alone and with full vectors reranking their best 50; and, in the rows of the funnel, by a store's
search in stages.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality.metrics import bootstrap_ratio
from bench.quality.retrieval import ROOT
from bench.quality.sets import RERANKED, JudgedSet, add_set_arguments, model_name, read_sets
from bench.support.machine import RESULTS, save
from edge_mrl.bundle.head import derive_codes
from edge_mrl.cli.common.progress import Progress
from edge_mrl.codes.packing import INT8, Packing, int4_step, normalize
from edge_mrl.heads.rotation import centred_packing, rotate_for_bits
from edge_mrl.heads.selection import nested_sizes
from edge_mrl.search import scan as search
from edge_mrl.search.funnel import Funnel
from edge_mrl.store.codefile.file import Layout
from edge_mrl.store.codefile.table import CodeBlock, CodeTable
from edge_mrl_export.codes.packing import MOST_TEXTS
from edge_mrl_export.pages.plots import Axis, Line, Panel, svg
from edge_mrl_export.quality.metrics import judge

Float = NDArray[np.float32]
Codes = NDArray[np.int8]
Rows = NDArray[np.intp]
DIMS = (16, 32, 64, 128, 192, 256, 384)
#: Rows that the funnel's Hamming stages pass on here: of the same order to the sets' thousands of
#: documents as 20,000 and 5,000 are to a million.
WIDE, NARROW = 1_000, 250
#: Queries of a set that the funnel is asked: each is one search.
FUNNEL_QUERIES = 300
OWN = "linear, own text"
KINDS = ("float32", "int8", "int4", "1bit", "1bit, turned")


def main() -> int:
    """Measure, print a table, write bench/results/codes.json and codes.svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_set_arguments(parser)
    parser.add_argument("--dim", type=int, action="append", help=f"default: {DIMS}")
    args = parser.parse_args()
    model, sets = read_sets(args, "codes")
    dims = tuple(args.dim or DIMS)
    results = {name: Bench(data).measure(name, dims) for name, data in sets.items()}
    settings = {
        "model": model_name(model),
        "dims": list(dims),
        "reranked": RERANKED,
        "stages": [WIDE, NARROW],
    }
    path = save("codes", settings, results)
    print(table(results, dims))
    print(f"written to {path.relative_to(ROOT)}")
    if len(dims) > 1:
        picture = RESULTS / "codes.svg"
        picture.write_text(plot(results, dims), encoding="utf-8")
        print(f"written to {picture.relative_to(ROOT)}")
    return 0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Documents as a store keeps them, with the queries' codes.

    Attributes:
        queries: int8[q, dim].
        documents: int8[n, dim], before they are packed.
        packing: What is kept of them.
    """

    queries: Codes
    documents: Codes
    packing: Packing

    @property
    def levels(self) -> Codes:
        """int8[n, dim]: what a score sees of the documents."""
        return self._levels(self.documents)

    @property
    def packed_queries(self) -> Codes:
        """int8[q, dim]: what a score would see of queries that are packed too."""
        return self._levels(self.queries)

    def _levels(self, codes: Codes) -> Codes:
        return self.packing.unpack(self.packing.pack(codes), codes.shape[1])

    def table(self) -> CodeTable:
        """The documents as a store's search reads them; keys are rows + 1."""
        layout = Layout(self.documents.shape[1], packing=self.packing)
        packed = self.packing.pack(self.documents)
        keys = np.arange(1, len(packed) + 1, dtype=np.uint32)

        def load(first: int, after: int) -> Any:
            return layout.pack(packed[first:after], keys[first:after], first)

        parts = [
            CodeBlock(first, load(first, min(first + layout.rows, len(packed))), checked=True)
            for first in range(0, len(packed), layout.rows)
        ]
        nothing = np.empty(0, np.int64)
        return CodeTable(
            layout, parts, nothing, load=load, names=lambda some: {k: f"{k:09}" for k in some}
        )


class Bench:
    """A set whose documents are packed in every way."""

    def __init__(self, data: JudgedSet) -> None:
        self.data, self.documents, self.queries = data, data.documents, data.queries
        count = len(data.documents)
        self.some = np.linspace(0, count - 1, min(count, MOST_TEXTS)).astype(int)

    def measure(self, name: str, dims: tuple[int, ...]) -> dict[str, Any]:
        """Rows by head, dimensions, what is kept, and what queries keep; and the seconds of the fits."""
        seconds: dict[str, float] = {}
        heads: dict[str, Any] = {}
        with Progress(f"{name}: codes", 2 * len(dims)) as bar:
            for dim in dims:
                for head, matrix in self._heads(dim, seconds):
                    heads.setdefault(head, {})[str(dim)] = self._rows(matrix, dim)
                    bar.advance(1)
        counts = {"documents": len(self.documents), "queries": len(self.queries)}
        return {**counts, "fit_seconds": seconds, "heads": heads}

    def _heads(self, dim: int, seconds: dict[str, float]) -> Iterator[tuple[str, Float | None]]:
        """The cut, and where something is cut off, a linear head fitted on the set's documents."""
        yield "cut", None
        if dim < self.documents.shape[1]:
            start = time.perf_counter()
            fitted = self.data.trial(nested_sizes(dim)).fit("linear")
            seconds[str(dim)] = round(time.perf_counter() - start, 1)
            yield OWN, fitted

    def _rows(self, matrix: Float | None, dim: int) -> dict[str, Any]:
        """Rows by what is kept and what queries keep."""
        queries, documents = (
            normalize(vectors[:, :dim] if matrix is None else vectors @ matrix)
            for vectors in (self.queries, self.documents)
        )
        rows = {"float32": {"float32": self._kept(queries, documents)}}
        for kind, head, kept in self._packed(matrix, dim):
            levels = kept.levels
            exact = queries if head is None or head is matrix else normalize(self.queries @ head)
            rows[kind] = {
                "float32": self._kept(exact, levels),
                "int8": self._kept(kept.queries, levels),
            }
            if kept.packing is not INT8:
                rows[kind]["symmetric"] = self._kept(kept.packed_queries, levels)
            rows[kind] |= self._funnels(kept)
        return rows

    def _packed(self, matrix: Float | None, dim: int) -> Iterator[tuple[str, Float | None, Kept]]:
        """What is kept, the head that its codes are made with, and the codes."""
        both = self.queries, self.documents
        plain = [derive_codes(v, matrix, dim=dim, layer_norm=False) for v in both]
        for packing in (INT8, Packing("int4", int4_step(dim)), Packing("1bit")):
            yield packing.kind, matrix, Kept(plain[0], plain[1], packing)
        head = rotate_for_bits(self.documents[self.some], matrix, dim=dim, layer_norm=False)
        turned = [derive_codes(v, head, dim=dim, layer_norm=False) for v in both]
        yield (
            "1bit, turned",
            head,
            Kept(turned[0], turned[1], centred_packing(turned[1][self.some])),
        )

    def _funnels(self, kept: Kept) -> dict[str, Any]:
        """A store's search in two and in three stages, against the exact search of the same codes."""
        dim, whole = kept.documents.shape[1], {"int8": 8, "int4": 4}.get(kept.packing.kind, 1)
        texts = {"two stages": f"{dim}x1:{NARROW},{dim}x{whole}"}
        if dim > 64:
            texts["three stages"] = f"64x1:{WIDE},{dim}x1:{NARROW},{dim}x{whole}"
        table, rows = kept.table(), {}
        asked = slice(0, FUNNEL_QUERIES)
        for name, text in texts.items():
            stages = Funnel.of(text)
            found = np.array(
                [
                    [match.row for match in _search(table, query, stages)]
                    for query in kept.queries[asked]
                ],
                np.intp,
            )
            scores = judge(found, self.data.relevance[asked]).ndcg_at_10
            rows[name] = {"stages": text, "kept": bootstrap_ratio(scores, self.data.base[asked])}
        return rows

    def _kept(self, queries: Float | Codes, documents: Float | Codes) -> dict[str, Any]:
        left, right = (normalize(v.astype(np.float32)) for v in (queries, documents))
        return self.data.kept(left, right)


def _search(table: CodeTable, query: Codes, stages: Funnel) -> list[search.Match]:
    """The ten best by the stages, also where a small store would score everything."""
    return search._funnel(query, table, None, table.live, 10, stages)  # noqa: SLF001 - see above


def size_bytes(dim: int, kind: str) -> int:
    """Bytes of a passage's code."""
    bits = {"float32": 32, "int8": 8, "int4": 4}.get(kind, 1)
    return -(-dim * bits // 8)


def mean(
    results: dict[str, Any], head: str, dim: int, kind: str, query: str, field: str = "kept"
) -> float | None:
    """Over the sets; None where a set has no such row."""
    rows = [found["heads"].get(head, {}).get(str(dim), {}) for found in results.values()]
    cells = [row.get(kind, {}).get(query, {}).get(field) for row in rows]
    if not all(cells):
        return None
    return float(np.mean([cell["ratio"] for cell in cells]))


def table(results: dict[str, Any], dims: tuple[int, ...]) -> str:
    """Means over the sets, by head, dimensions, and what is kept."""
    columns = ("float32", "int8", "symmetric", "two stages", "three stages")
    title = "".join(f"{name:>14}" for name in (*columns, "reranked"))
    lines = [f"{'share of nDCG@10 kept; query:':<32}{'bytes':>6}{title}"]
    for head in ("cut", OWN):
        for dim in dims:
            for kind in KINDS:
                values = [mean(results, head, dim, kind, query) for query in columns]
                query = "float32" if kind == "float32" else "int8"
                values.append(mean(results, head, dim, kind, query, "kept_reranked"))
                if any(values):
                    cells = "".join(f"{v:>14.1%}" if v else " " * 14 for v in values)
                    lines.append(f"{f'{head}, {dim} {kind}':<32}{size_bytes(dim, kind):>6}{cells}")
    return "\n".join(lines)


def plot(results: dict[str, Any], dims: tuple[int, ...]) -> str:
    """The share kept against bytes: by cutting and by a fitted head; alone, and reranked."""
    x = Axis("bytes of a passage's code (log)", (2, 8, 32, 128, 512, 2048))
    y = Axis("nDCG@10 kept of the full fp32 vectors, %", (40, 50, 60, 70, 80, 90, 100), log=False)
    panels = []
    for head, title in (("cut", "cut"), (OWN, "linear head fitted on own text")):
        for field, how in (("kept", "codes alone"), ("kept_reranked", f"best {RERANKED} reranked")):
            lines = []
            for kind in KINDS:
                query = "float32" if kind == "float32" else "int8"
                points = []
                for dim in dims:
                    source = "cut" if dim == max(dims) else head  # nothing is cut: nothing to fit
                    value = mean(results, source, dim, kind, query, field)
                    if value is not None and 100 * value >= y.ticks[0]:
                        points.append((float(size_bytes(dim, kind)), 100 * value))
                lines.append(Line(kind, points))
            panels.append(Panel(f"{title}: {how}", x, y, lines))
    return svg(panels)


if __name__ == "__main__":
    sys.exit(main())
