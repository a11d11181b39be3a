"""What the funnel's first stage costs, on real text: ``python -m bench.search.funnel --bundle DIR``.

Recall of the funnel at several widths against its exact twin, over the same int8 codes and through a
real store; and of funnels that begin with the first 64 bits alone. Sets: scifact (abstracts, asked by its
claims) and load-en (short texts, asked by others of them that are not in the store; equal texts count
once). Where a store has few rows for the width (EXACT_BELOW), the funnel scores all of them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.search.compare import ONE_THREAD
from bench.support.machine import RESULTS, save
from edge_mrl.cli.common.progress import Progress
from edge_mrl.documents import Document, PassageRule
from edge_mrl.encode.encoder import Encoder
from edge_mrl.search.funnel import Funnel
from edge_mrl.search.scan import EXACT_BELOW, nearest
from edge_mrl.store import Binding, Entry, Store
from edge_mrl.store.view import View
from edge_mrl_export.pages.plots import Axis, Line, Panel, svg

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / "build" / "bench-funnel"
DATA = ROOT.parent / "shared" / "data"
WIDTHS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
#: Rows that a first stage over 64 bits passes on to one over all bits, which passes on 5,000.
FIRST_WIDTHS = (10_000, 20_000, 50_000)
LAST = 5_000
KS = (10, 100)
#: Texts of load-en that are asked and not stored.
HELD_OUT = 500
#: Documents in one put.
BATCH = 4096


@dataclass(frozen=True, slots=True)
class Texts:
    """A set: what is stored, and what is asked."""

    name: str
    documents: list[str]
    queries: list[str]


def main() -> int:
    """Measure, print a table, write bench/results/funnel.json and funnel.svg."""
    args = _arguments()
    if args.measure is not None:
        print(json.dumps(measure(*args.measure)))
        return 0
    sets = read_sets(args.data, args.texts)
    if not sets:
        print("funnel skipped, no data: give --data FOLDER of the sets", file=sys.stderr)
        return 0
    with Encoder.open(args.bundle) as encoder:
        files = {texts.name: encoded(encoder, texts) for texts in sets}
        manifest = encoder.manifest
    results = {name: _measured(*paths) for name, paths in files.items()}
    settings = {
        "model": manifest.source.model,
        "dim": manifest.dim,
        "precision": manifest.precision.weights,
        "threads": 1,
        "widths": WIDTHS,
        "against": "exact=True, the same int8 codes",
    }
    path = save("funnel", settings, results)
    plot = RESULTS / "funnel.svg"
    plot.write_text(chart(results), encoding="utf-8")
    print(table(results))
    print(f"written to {path.relative_to(ROOT)} and {plot.relative_to(ROOT)}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the sets")
    parser.add_argument("--texts", type=int, default=100_000, help="most of load-en")
    parser.add_argument("--measure", type=Path, nargs=2, help=argparse.SUPPRESS)  # in a child
    args = parser.parse_args()
    if args.measure is None and args.bundle is None:
        parser.error("--bundle is missing")
    if args.texts < max(KS):
        parser.error(f"--texts must be at least {max(KS)}")
    return args


def read_sets(folder: Path, most: int) -> list[Texts]:
    """The sets that are there; a message on stderr for each that is not."""
    readers: dict[str, Callable[[Path], Texts]] = {
        "scifact": read_scifact,
        "load-en": partial(read_load, most=most),
    }
    found = []
    for name, read in readers.items():
        if (folder / name).is_dir():
            found.append(read(folder / name))
        else:
            print(f"{name} skipped: it is not in the data folder", file=sys.stderr)
    return found


def read_scifact(folder: Path) -> Texts:
    """Every abstract, as its title, a space, and its text; every claim."""
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open("rb")]
    documents = [f"{entry.get('title') or ''} {entry['text']}".strip() for entry in corpus]
    queries = [json.loads(line)["text"] for line in (folder / "queries.jsonl").open("rb")]
    return Texts("scifact", documents, queries)


def read_load(folder: Path, *, most: int) -> Texts:
    """Random texts: HELD_OUT to ask, and at most ``most`` others to store."""
    with gzip.open(folder / "corpus.jsonl.gz") as lines:
        texts = list(dict.fromkeys(json.loads(line)["text"] for line in lines))
    order = np.random.default_rng(1).permutation(len(texts))[: HELD_OUT + most]
    chosen = [texts[i] for i in order]
    return Texts("load-en", chosen[HELD_OUT:], chosen[:HELD_OUT])


def encoded(encoder: Encoder, texts: Texts) -> tuple[Path, Path]:
    """Files of int8[n, dim] codes of the documents and of the queries; made once."""
    paths = []
    for kind, some in (("document", texts.documents), ("query", texts.queries)):
        manifest = encoder.manifest
        parts = (manifest.space_id, manifest.code_id, kind, *some)
        key = hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]
        path = CACHE / f"{texts.name}-{len(some)}-{kind}-{key}.npy"
        if not path.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            codes = _encode(encoder, some, kind)
            np.save(path.with_suffix(".partial.npy"), codes)
            path.with_suffix(".partial.npy").rename(path)
        paths.append(path)
    return paths[0], paths[1]


def _encode(encoder: Encoder, texts: Sequence[str], kind: str) -> NDArray[np.int8]:
    parts = []
    with Progress(f"{len(texts):,} codes", len(texts)) as progress:
        for window in encoder.stream(texts, kind=kind):
            parts.append(window.coarse)
            progress.advance(len(window))
    return np.concatenate(parts)


def _measured(documents: Path, queries: Path) -> dict[str, Any]:
    """``measure`` in a fresh process with one thread."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.search.funnel", "--measure", str(documents), str(queries)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(documents: Path, queries: Path) -> dict[str, Any]:
    """Recall and milliseconds for a query at each width, over the codes in two files."""
    codes, asked = np.load(documents), np.load(queries)
    folder = CACHE / f"store-{os.getpid()}"
    folder.mkdir()
    try:
        with _filled(folder / "bench.store", codes) as store, store.reading() as view:
            exact, exact_ms = _answers(view, asked, exact=True)
            widths = {
                str(width): _at_width(view, asked, exact, width, width=width) for width in WIDTHS
            }
            dim = codes.shape[1]
            texts = [f"64x1:{width},{dim}x1:{LAST},{dim}x8" for width in FIRST_WIDTHS if dim > 64]
            stages = {
                text: _at_width(view, asked, exact, LAST, funnel=Funnel.of(text)) for text in texts
            }
    finally:
        shutil.rmtree(folder)
    return {
        "documents": len(codes),
        "queries": len(asked),
        "exact_ms": exact_ms,
        "widths": widths,
        "stages": stages,
    }


def _filled(path: Path, codes: NDArray[np.int8]) -> Store:
    binding = Binding("s" * 64, "c" * 64, codes.shape[1], 1.0, "bench")
    store = Store.create(path, binding, PassageRule(200, 0))
    for first in range(0, len(codes), BATCH):
        rows = range(first, min(first + BATCH, len(codes)))
        store.put([Entry(Document(str(i), ""), [(0, 0)], codes[i : i + 1]) for i in rows])
    return store


def _at_width(
    view: View,
    queries: NDArray[np.int8],
    exact: dict[int, list[set[int]]],
    last: int,
    **how: Any,
) -> dict[str, Any]:
    """Recall against the exact answers, and milliseconds by k; ``last`` is the width of all bits."""
    found, ms = _answers(view, queries, **how)
    row: dict[str, Any] = {"scores_all": view.codes.live <= EXACT_BELOW * max(last, min(KS))}
    for k in KS:
        hits = sum(len(a & b) for a, b in zip(found[k], exact[k], strict=True))
        row[f"recall_at_{k}"] = round(hits / sum(map(len, exact[k])), 4)
    return row | {"ms": ms}


def _answers(
    view: View, queries: NDArray[np.int8], **how: Any
) -> tuple[dict[int, list[set[int]]], dict[str, float]]:
    """Keys of the k best of each query, and the median milliseconds of a query, by k."""
    table = view.codes
    answers: dict[int, list[set[int]]] = {}
    medians = {}
    for k in KS:
        answers[k], times = [], []
        for query in queries:
            start = time.perf_counter()
            found = nearest(query[None], table, k=k, **how)[0]
            times.append((time.perf_counter() - start) * 1e3)
            answers[k].append({match.key for match in found})
        medians[k] = round(statistics.median(times), 3)
    return answers, {str(k): ms for k, ms in medians.items()}


def table(results: dict[str, dict[str, Any]]) -> str:
    """A line for each width, by set; milliseconds are those of the 10 best."""
    k, more = KS
    lines = []
    for name, found in results.items():
        lines.append(f"\n{name}: {found['documents']:,} documents, {found['queries']} queries")
        lines.append(f"{'width':>8}{f'recall@{k}':>12}{f'recall@{more}':>12}{'ms':>9}")
        for width, row in found["widths"].items():
            recalls = "".join(f"{row[f'recall_at_{at}']:>12.4f}" for at in KS)
            note = "  (all rows are scored)" if row["scores_all"] else ""
            lines.append(f"{int(width):>8,}{recalls}{row['ms'][str(k)]:>9.3f}{note}")
        for text, row in found["stages"].items():
            recalls = "".join(f"{row[f'recall_at_{at}']:>12.4f}" for at in KS)
            lines.append(f"{'':>8}{recalls}{row['ms'][str(k)]:>9.3f}  {text}")
        lines.append(f"{'exact':>8}{'':>24}{found['exact_ms'][str(k)]:>9.3f}")
    return "\n".join(lines).lstrip("\n")


def chart(results: dict[str, dict[str, Any]]) -> str:
    """Recall against width, a panel for each set."""
    x = Axis("width: rows that the 1-bit stage passes on (log)", WIDTHS)
    panels = []
    for name, found in results.items():
        lines = [
            Line(
                f"recall@{k}",
                [(int(width), row[f"recall_at_{k}"]) for width, row in found["widths"].items()],
            )
            for k in KS
        ]
        least = min(value for line in lines for _, value in line.points)
        y = Axis("recall against the exact scan", _recall_ticks(least), log=False)
        panels.append(Panel(f"{name}, {found['documents']:,} documents", x, y, lines))
    return svg(panels)


def _recall_ticks(least: float) -> tuple[float, ...]:
    """About five ticks from below the least recall up to 1."""
    step = next(
        step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if step == 0.2 or least > 1 - 5 * step
    )
    count = min(5, int((1 - least) / step) + 1)
    return tuple(round(1 - step * (count - i), 2) for i in range(count + 1))


if __name__ == "__main__":
    sys.exit(main())
