"""What codes keep in real stores: ``python -m bench.quality.stores --bundle DIR --bundle DIR``.

On folders in BEIR's layout. For each set and each bundle, a store on disk with full vectors; its codes
are searched exhaustively, with questions that the bundle encodes; and searched again with full vectors
reranking the best 50, as ``Index.search`` does. "one index" is a store with all sets. With ``--adapt``,
each store of a single set is then adapted to its own text, and measured again. The first row is the
network's own: its full vectors, ranked without a store.

Each document is cut to its first passage, since the fp32 source reads no more of it. The network runs
once: bundles of one model differ in their heads alone. The codes of the other bundles are made from its
full vectors; some of them are compared with the codes of the bundle's own graph, and may differ by 1.
Each figure is the share of the nDCG@10 of the source's full fp32 vectors among the same documents: in one
index, those vectors find less than in an index for each set, too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.quality.frontier import ALL
from bench.quality.metrics import bootstrap_ratio
from bench.quality.retrieval import CACHE, ROOT, SETS, DataSet, read_set, source_vectors
from bench.quality.sets import MAX_TOKENS, RERANKED, add_set_arguments, best, model_name
from bench.support.machine import save
from edge_mrl.bundle import WEIGHTS, bundle_codes, read_head
from edge_mrl.cli.common.progress import Progress
from edge_mrl.codes import CODE_BITS
from edge_mrl.documents import Document, PassageRule
from edge_mrl.encode import Encoder
from edge_mrl.encode.passages import split_passages
from edge_mrl.errors import GateError
from edge_mrl.heads import adapt
from edge_mrl.index import Index
from edge_mrl.search import nearest
from edge_mrl.store import Entry
from edge_mrl_export.quality.metrics import judge

Float = NDArray[np.float32]
#: Tokens of a passage: what the source reads, less the two special tokens.
PASSAGE = MAX_TOKENS - 2
#: Documents put into a store together, and compared with a bundle's own graph.
BATCH, COMPARED = 512, 64


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A set, ready to be stored.

    Attributes:
        texts: The first passage of each document.
        queries: Questions.
        relevance: For each question, the gain of each relevant document's row.
        network: float32[n, D] and float32[q, D], full vectors of both by the bundles' network.
        source: The same by the fp32 source.
        base: float64[q], nDCG@10 of the source's vectors among these documents.
    """

    texts: list[str]
    queries: list[str]
    relevance: list[dict[int, float]]
    network: tuple[Float, Float]
    source: tuple[Float, Float]
    base: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        texts: list[str],
        queries: list[str],
        relevance: list[dict[int, float]],
        *,
        network: tuple[Float, Float],
        source: tuple[Float, Float],
    ) -> Self:
        """Rank by the source's vectors first."""
        base = judge(best(source[1], source[0])[:, :10], relevance).ndcg_at_10
        return cls(texts, queries, relevance, network, source, base)

    def ndcg(self, found: NDArray[np.intp]) -> NDArray[np.float64]:
        """nDCG@10 of each question, from the rows that were found."""
        return judge(found, self.relevance).ndcg_at_10


def main() -> int:
    """Measure, print a table, write bench/results/frontier-stores.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_set_arguments(parser)
    parser.add_argument("--bundle", type=Path, action="append", required=True)
    parser.add_argument("--adapt", action="store_true", help="also adapt each store to its text")
    parser.add_argument(
        "--name", default="frontier-stores", help="file in bench/results (no suffix)"
    )
    args = parser.parse_args()
    folders = args.data or [ROOT.parent / "shared" / "data" / name for name in SETS]
    folders = [folder for folder in folders if (folder / "qrels" / "test.tsv").exists()]
    model = args.model or _installed()
    if not folders or model is None:
        print("stores skipped: give --data FOLDER in BEIR's layout, and --model", file=sys.stderr)
        return 2 if args.data else 0
    with Encoder.open(args.bundle[0]) as encoder:
        sets = {folder.name: _judged(read_set(folder), encoder, model) for folder in folders}
    if len(sets) > 1:
        sets[ALL] = _together(list(sets.values()))
    results: dict[str, Any] = {"full vectors": {name: _by_network(d) for name, d in sets.items()}}
    for bundle in args.bundle:
        for name, data in sets.items():
            with tempfile.TemporaryDirectory() as folder:
                own = args.adapt and name != ALL
                rows = measure(
                    data, bundle, Path(folder) / "s.db", f"{bundle.name}, {name}", own=own
                )
            for row, values in rows.items():
                results.setdefault(row, {})[name] = values
            save(args.name, {"model": model_name(model), "reranked": RERANKED}, results)
        print(table(results, list(sets)))
    return 0


def _installed() -> Path | None:
    from edge_mrl_export.source.location import installed_default

    return installed_default()


def _judged(data: DataSet, encoder: Encoder, model: Path) -> Judged:
    """Cut a set's documents to their first passages, embed these, and rank by the source."""
    rule = PassageRule(PASSAGE, 0)
    texts = []
    for text in data.documents:
        spans = split_passages(encoder, text, rule)
        texts.append(text[: spans[0][1]] if spans else "")
    network = (
        _network_vectors(encoder, texts, "document"),
        _network_vectors(encoder, data.queries, "query"),
    )
    source = (
        source_vectors(model, data.documents, "document", MAX_TOKENS),
        source_vectors(model, data.queries, "query", MAX_TOKENS),
    )
    return Judged.of(texts, data.queries, data.relevance, network=network, source=source)


def _network_vectors(encoder: Encoder, texts: Sequence[str], kind: str) -> Float:
    """float32[n, D] of the bundle's network; kept in build/bench."""
    weights = encoder.manifest.files[WEIGHTS].sha256
    digest = hashlib.sha256("\0".join([weights, kind, *texts]).encode())
    path = CACHE / f"{digest.hexdigest()[:24]}.npy"
    if not path.exists():
        parts = []
        with Progress(f"{kind} vectors", len(texts)) as bar:
            for chunk in encoder.stream(texts, kind=kind):
                assert chunk.full is not None
                parts.append(chunk.full)
                bar.advance(len(chunk))
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(parts))
    vectors: Float = np.load(path)
    return vectors


def _together(sets: Sequence[Judged]) -> Judged:
    """All sets in one index, for the source's vectors too."""
    starts = np.cumsum([0, *(len(s.texts) for s in sets)])[:-1].tolist()
    relevance = [
        {row + start: gain for row, gain in gains.items()}
        for start, s in zip(starts, sets, strict=True)
        for gains in s.relevance
    ]
    return Judged.of(
        [text for s in sets for text in s.texts],
        [query for s in sets for query in s.queries],
        relevance,
        network=_joined([s.network for s in sets]),
        source=_joined([s.source for s in sets]),
    )


def _joined(pairs: Sequence[tuple[Float, Float]]) -> tuple[Float, Float]:
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _by_network(data: Judged) -> dict[str, Any]:
    """The share that the network's full vectors keep, as float32 and without a store."""
    documents, queries = data.network
    ndcg = data.ndcg(best(queries, documents)[:, :10])
    kept = bootstrap_ratio(ndcg, data.base)
    return {
        "bytes": 2 * documents.shape[1],  # of fp16, as a store keeps them
        "ndcg_at_10": round(float(ndcg.mean()), 4),
        "kept": kept,
        "kept_reranked": kept,
    }


def measure(data: Judged, bundle: Path, path: Path, name: str, *, own: bool) -> dict[str, Any]:
    """Rows by code: of the bundle as it is and, adapted, as it fits the store's own text."""
    rows = {}
    with _stored(data, bundle, path) as index:
        label = f"{index.binding.dim} {index.store.binding.packing.kind}"
        rows[f"{label}, {bundle.name}"] = _kept(index, data, name)
        if own:
            start = time.perf_counter()
            try:
                done = adapt(index, output=path.with_name("adapted"))
            except GateError as error:
                rows[f"{label}, adapted"] = {**rows[f"{label}, {bundle.name}"], "why": str(error)}
            else:
                seconds = round(time.perf_counter() - start, 1)
                more = {"head": done.kind, "seconds": seconds}
                rows[f"{label}, adapted"] = _kept(index, data, f"{name}, adapted") | more
    return rows


@contextmanager
def _stored(data: Judged, bundle: Path, path: Path) -> Iterator[Index]:
    """A store of the set's passages, with the codes of a bundle."""
    with Index.open(path, bundle, max_tokens=PASSAGE, overlap=0, keep_full="fp16") as index:
        manifest = index.encoder.manifest
        matrix = read_head(index.encoder.path, manifest)
        codes = bundle_codes(data.network[0], matrix, manifest)
        some = np.linspace(0, len(codes) - 1, COMPARED).astype(int)
        own = index.encoder.encode([data.texts[i] for i in some]).coarse
        apart = np.abs(own.astype(int) - codes[some]).max()
        if apart > 1:
            raise SystemExit(f"{bundle}: its graph's codes are {apart} away from its full vectors'")
        for start in range(0, len(codes), BATCH):
            rows = range(start, min(start + BATCH, len(codes)))
            index.store.put([_entry(data, codes, row) for row in rows])
        yield index


def _entry(data: Judged, codes: NDArray[np.int8], row: int) -> Entry:
    text = data.texts[row]
    some = slice(row, row + 1) if text else slice(0, 0)
    spans = [(0, len(text))] if text else []
    return Entry(Document(f"{row:07}", text), spans, codes[some], data.network[0][some])


def _kept(index: Index, data: Judged, name: str) -> dict[str, Any]:
    """Shares kept by the store's codes alone, and reranked by its full vectors."""
    with Progress(f"{name}: search", 2 * len(data.queries)) as bar:
        codes = index.encoder.encode(data.queries, kind="query").coarse
        alone = np.full((len(codes), 10), -1, np.intp)
        with index.store.reading() as view:
            for row, matches in enumerate(nearest(codes, view.codes, k=10, exact=True)):
                ids = [view.names([match.key])[0] for match in matches]
                alone[row, : len(ids)] = [int(i) for i in ids]
        bar.advance(len(codes))
        packing = index.store.binding.packing
        stages = f"{index.binding.dim}x{CODE_BITS[packing.kind]}:{RERANKED},full"
        again = np.full((len(codes), 10), -1, np.intp)
        for start in range(0, len(codes), BATCH):
            some = data.queries[start : start + BATCH]
            for row, found in enumerate(index.search_many(some, k=10, stages=stages), start):
                again[row, : len(found.hits)] = [int(hit.id) for hit in found.hits]
            bar.advance(len(some))
    first, second = data.ndcg(alone), data.ndcg(again)
    return {
        "bytes": packing.bytes(index.binding.dim),
        "ndcg_at_10": round(float(first.mean()), 4),
        "kept": bootstrap_ratio(first, data.base),
        "kept_reranked": bootstrap_ratio(second, data.base),
    }


def table(results: dict[str, Any], names: Sequence[str]) -> str:
    """By bundle: every set, the mean and the worst, reranked, and the one index."""
    single = [name for name in names if name != ALL]
    ends = ("mean", "worst", "reranked", ALL)
    lines = ["".join(f"{c:>12}" for c in ("bytes", *single, *ends))]
    for row, by_set in results.items():
        kept = [by_set[name]["kept"]["ratio"] for name in single]
        reranked = float(np.mean([by_set[name]["kept_reranked"]["ratio"] for name in single]))
        cells = [f"{value:.1%}" for value in (*kept, np.mean(kept), min(kept), reranked)]
        cells.append(f"{by_set[ALL]['kept']['ratio']:.1%}" if ALL in by_set else "")
        size = str(by_set[single[0]]["bytes"])
        lines.append("".join(f"{c:>12}" for c in (size, *cells)) + f"   {row}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
