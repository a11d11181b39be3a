"""The smallest codes for a quality: ``python -m bench.quality.frontier``.

On folders in BEIR's layout, with the fp32 source's own vectors, and codes made from them as a graph and a
store do (FORMAT.md, "Codes"). Three situations, as users have them:

no own text    the heads that an export makes without --corpus: a rotation fitted to passages that come
               with edge-mrl, or the fixed rotation
own text       a linear head fitted to the set's documents and excerpts of them; codes of few bits as
               they are, centred, or rotated and centred
one index      all sets in one index, with the same heads, and with one linear head fitted to all

No fit sees a query or a judgement. Queries keep int8 codes. Each figure is the share of the full fp32
vectors' nDCG@10 that is kept by the codes alone, and with full vectors reranking their best 50.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality.heads import mixed, shipped_trial
from bench.quality.retrieval import ROOT
from bench.quality.sets import RERANKED, JudgedSet, add_set_arguments, model_name, read_sets
from bench.support.machine import RESULTS, save
from edge_mrl.bundle.head import derive_codes
from edge_mrl.cli.common.progress import Progress
from edge_mrl.codes.kinds import PLANES
from edge_mrl.codes.packing import Packing, code_bytes, normalize, plain_packing
from edge_mrl.heads.fixed_rotation import random_rotation
from edge_mrl.heads.rotation import centred_packing, rotate_for_bits
from edge_mrl.heads.selection import HeadTrial, nested_sizes
from edge_mrl_export.codes.packing import MOST_TEXTS
from edge_mrl_export.pages.plots import Axis, Line, Panel, svg

Float = NDArray[np.float32]
#: Dimensions and kinds that are tried: from 16 to 192 bytes.
SIZES = (
    *((dim, "int8") for dim in (32, 64, 128)),
    *((dim, "int4") for dim in (64, 128, 192, 256)),
    *((dim, "2bit") for dim in (64, 128, 192, 256)),
    *((dim, "1bit") for dim in (128, 192, 256)),
)
#: All dimensions of the model: nothing is truncated, and no head is fitted.
WHOLE = ("int4", "2bit", "1bit")
ALL = "one index"


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A way to make codes.

    Attributes:
        head: How the head was made.
        shaped: "" for codes as they are, "centred", or "rotated, centred".
        matrix: float32[D, dim]; None for the model's own dimensions.
        dim: Dimensions.
        packing: What a store keeps.
    """

    head: str
    shaped: str
    matrix: Float | None
    dim: int
    packing: Packing

    @property
    def name(self) -> str:
        """Such as "256 2bit, centred"."""
        return f"{self.dim} {self.packing.kind}" + (f", {self.shaped}" if self.shaped else "")

    def kept(self, data: JudgedSet) -> dict[str, Any]:
        """Shares that the codes keep, alone and reranked."""
        codes = [
            derive_codes(v, self.matrix, dim=self.dim, layer_norm=False)
            for v in (data.queries, data.documents)
        ]
        levels = self.packing.unpack(self.packing.pack(codes[1]), self.dim)
        left, right = (normalize(c.astype(np.float32)) for c in (codes[0], levels))
        return data.kept(left, right)


def main() -> int:
    """Measure, print a table, write bench/results/frontier.json and frontier.svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_set_arguments(parser)
    parser.add_argument("--name", default="frontier", help="file in bench/results (no suffix)")
    args = parser.parse_args()
    model, sets = read_sets(args, "frontier")
    if len(sets) > 1:
        sets[ALL] = mixed(list(sets.values()))
    results: dict[str, Any] = {name: {} for name in sets}
    shipped = shipped_trial(model, (1,))
    common = list(_without_text(shipped))
    settings = {"model": model_name(model), "reranked": RERANKED}
    with Progress("frontier", len(sets)) as bar:
        for name, data in sets.items():
            for coded in (*common, *_with_text(data)):
                row = {"bytes": code_bytes(coded.dim, coded.packing.kind), **coded.kept(data)}
                results[name].setdefault(coded.head, {})[coded.name] = row
            bar.advance(1)
            done = {key: found for key, found in results.items() if found}
            path = save(args.name, settings, done)
    print(table(results))
    print(f"written to {path.relative_to(ROOT)}")
    picture = RESULTS / f"{args.name}.svg"
    picture.write_text(plot(results), encoding="utf-8")
    print(f"written to {picture.relative_to(ROOT)}")
    return 0


def _without_text(shipped: HeadTrial) -> Iterator[Coded]:
    width = shipped.full.shape[1]
    fitted = _Fits(shipped, "rotation")
    for dim, kind in SIZES:
        yield Coded("shipped rotation", "", fitted[dim], dim, plain_packing(kind, dim))
        if kind in PLANES:
            some = derive_codes(shipped.full, fitted[dim], dim=dim, layer_norm=False)
            packing = centred_packing(some, kind)
            yield Coded("shipped rotation", "centred", fitted[dim], dim, packing)
    turned = random_rotation(width, width)
    for kind in WHOLE:
        yield Coded("none", "", None, width, plain_packing(kind, width))
        yield Coded("fixed rotation", "", turned, width, plain_packing(kind, width))


def _with_text(data: JudgedSet) -> Iterator[Coded]:
    trial = data.trial((1,))
    width, count = trial.full.shape[1], len(data.documents)
    some = data.documents[np.linspace(0, count - 1, min(count, MOST_TEXTS)).astype(int)]
    fitted = _Fits(trial, "linear")
    for dim, kind in (*SIZES, *((width, kind) for kind in WHOLE)):
        matrix = fitted[dim] if dim < width else None
        yield Coded("linear, own text", "", matrix, dim, plain_packing(kind, dim))
        if kind in PLANES:
            codes = derive_codes(some, matrix, dim=dim, layer_norm=False)
            packing = centred_packing(codes, kind)
            yield Coded("linear, own text", "centred", matrix, dim, packing)
            matrix = rotate_for_bits(some, matrix, dim=dim, layer_norm=False)
            codes = derive_codes(some, matrix, dim=dim, layer_norm=False)
            packing = centred_packing(codes, kind)
            yield Coded("linear, own text", "rotated, centred", matrix, dim, packing)


class _Fits(dict[int, Float]):
    """Heads by dimensions, fitted when they are first asked for."""

    def __init__(self, trial: HeadTrial, kind: str) -> None:
        super().__init__()
        self._trial, self._kind = trial, kind

    def __missing__(self, dim: int) -> Float:
        self[dim] = replace(self._trial, nested=nested_sizes(dim)).fit(self._kind)
        return self[dim]


def summary(
    results: dict[str, Any], head: str, name: str, field: str = "kept"
) -> tuple[float, float] | None:
    """Mean and least over the sets, without the one index."""
    rows = [found.get(head, {}).get(name) for key, found in results.items() if key != ALL]
    if not rows or not all(rows):
        return None
    kept = [row[field]["ratio"] for row in rows if row]
    return float(np.mean(kept)), min(kept)


def table(results: dict[str, Any]) -> str:
    """By head and bytes: every set, the mean and the worst, reranked, and the one index."""
    names = [name for name in results if name != ALL]
    ends = ("mean", "worst", "reranked", ALL)
    lines = ["".join(f"{c:>12}" for c in ("bytes", *names, *ends))]
    for head in next(iter(results.values())):
        lines.append(head)
        rows = results[names[0]][head]
        for name in sorted(rows, key=lambda n: (-rows[n]["bytes"], n)):
            cells = [f"{results[s][head][name]['kept']['ratio']:.1%}" for s in names]
            both, reranked = (
                summary(results, head, name, field) for field in ("kept", "kept_reranked")
            )
            assert both is not None
            assert reranked is not None
            mix = results.get(ALL, {}).get(head, {}).get(name)
            cells += [f"{both[0]:.1%}", f"{both[1]:.1%}", f"{reranked[0]:.1%}"]
            cells.append(f"{mix['kept']['ratio']:.1%}" if mix else "")
            cells.insert(0, str(rows[name]["bytes"]))
            lines.append("".join(f"{c:>12}" for c in cells) + f"   {name}")
    return "\n".join(lines)


def plot(results: dict[str, Any]) -> str:
    """The mean share kept against bytes: for each kind of code, its best shape."""
    x = Axis("bytes of a passage's code (log)", (8, 16, 32, 64, 128, 256))
    y = Axis("nDCG@10 kept of the full fp32 vectors, %", (70, 75, 80, 85, 90, 95, 100), log=False)
    panels = []
    groups = {
        "no own text": ("shipped rotation", "fixed rotation"),
        "own text": ("linear, own text",),
    }
    for title, heads in groups.items():
        lines = []
        for kind in ("int8", "int4", "2bit", "1bit"):
            best: dict[int, float] = {}
            for head in heads:
                for name, row in next(iter(results.values()))[head].items():
                    both = summary(results, head, name)
                    if both is not None and name.split(",")[0].split()[1] == kind:
                        best[row["bytes"]] = max(best.get(row["bytes"], 0.0), 100 * both[0])
            points = [(float(b), v) for b, v in sorted(best.items()) if v >= y.ticks[0]]
            lines.append(Line(kind, points))
        panels.append(Panel(title, x, y, lines))
    return svg(panels)


if __name__ == "__main__":
    sys.exit(main())
