"""Headings in the vectors of passages, or not: ``python -m bench.quality.headings --bundle DIR``.

On folders in BEIR's layout whose documents have titles. Each becomes a Markdown file, its title a heading
and its text one paragraph a sentence, and is split and embedded as a store does. A document is as good as
its best passage. Of large sets, all judged documents and some others are read.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality.metrics import QueryMetrics, bootstrap_ratio, evaluate
from bench.quality.retrieval import ROOT
from bench.support.machine import save
from edge_mrl.cli.common.progress import Progress
from edge_mrl.documents import Document, PassageRule
from edge_mrl.encode import Encoder, embedded_texts, split_document

SETS = ("scifact", "cranfield", "squad2-dev")
#: Longest passages, in tokens: of a small bundle's default, and of short ones.
LENGTHS = (247, 64)
SPLITTERS = ("markdown", "markdown+headings")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Titled:
    """A set with judgements: for each query, the gain of each relevant document's row."""

    documents: list[Document]
    queries: list[str]
    relevance: list[dict[int, float]]


def main() -> int:
    """Measure, print a table, write bench/results/headings.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, action="append", help="folder, repeatable")
    parser.add_argument("--most", type=int, default=2000, help="documents of a set (default: 2000)")
    args = parser.parse_args()
    folders = args.data or [ROOT.parent / "shared" / "data" / name for name in SETS]
    folders = [folder for folder in folders if (folder / "qrels" / "test.tsv").exists()]
    if not folders:
        print("headings skipped, no data: give --data FOLDER in BEIR's layout", file=sys.stderr)
        return 2 if args.data else 0
    with Encoder.open(args.bundle) as encoder:
        found = {
            folder.name: measure(read_titled(folder, args.most), encoder) for folder in folders
        }
        settings = {"model": encoder.manifest.source.model, "most_documents": args.most}
    path = save("headings", settings, found)
    for name, rows in found.items():
        for row in rows:
            print(f"{name:12} {row['tokens']:4} {row['splitter']:18} {row['ndcg_at_10']:.4f}")
    print(f"written to {path.relative_to(ROOT)}")
    return 0


def read_titled(folder: Path, most: int) -> Titled:
    """Read a set; its documents as Markdown."""
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = {e["_id"]: e["text"] for e in map(json.loads, (folder / "queries.jsonl").open("rb"))}
    judged: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, gain = line.split("\t")
        if float(gain) > 0:
            judged.setdefault(query, {})[document] = float(gain)
    needed = {name for gains in judged.values() for name in gains}
    others = [entry for entry in corpus if entry["_id"] not in needed]
    kept = [entry for entry in corpus if entry["_id"] in needed]
    kept += random.Random(0).sample(others, min(len(others), max(most - len(kept), 0)))
    rows = {entry["_id"]: row for row, entry in enumerate(kept)}
    gains = [{rows[name]: gain for name, gain in one.items()} for one in judged.values()]
    return Titled([_markdown(one) for one in kept], [texts[query] for query in judged], gains)


def _markdown(entry: dict[str, Any]) -> Document:
    body = "\n\n".join(_SENTENCE.split(entry["text"].strip()))
    title = " ".join((entry.get("title") or "").split())
    return Document(f"{entry['_id']}.md", f"# {title}\n\n{body}\n" if title else body)


def measure(data: Titled, encoder: Encoder) -> list[dict[str, Any]]:
    """nDCG@10 by full vectors, for each length and splitter, with its share of the plain one."""
    queries = encoder.encode(data.queries, kind="query").full
    if queries is None:
        raise SystemExit("the bundle gives no full vectors")
    rows = []
    for tokens in LENGTHS:
        base: QueryMetrics | None = None
        for splitter in SPLITTERS:
            rule = PassageRule(tokens, tokens // 8, splitter)
            owners, vectors = _passages(data.documents, encoder, rule)
            metrics = evaluate(_best(queries @ vectors.T, owners, data), data.relevance)
            base = metrics if base is None else base
            rows.append(
                {
                    "tokens": tokens,
                    "splitter": splitter,
                    "passages": len(owners),
                    **metrics.means(),
                    "retention": bootstrap_ratio(metrics.ndcg_at_10, base.ndcg_at_10),
                }
            )
    return rows


def _passages(
    documents: list[Document], encoder: Encoder, rule: PassageRule
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Rows of the documents that passages are of, and float32[passages, D]."""
    owners: list[int] = []
    texts: list[str] = []
    for row, document in enumerate(documents):
        spans = split_document(encoder, document, rule)
        texts += embedded_texts(encoder, document, spans, rule)
        owners += [row] * len(spans)
    parts = []
    with Progress(f"{rule.splitter} {rule.max_tokens}", len(texts)) as bar:
        for chunk in encoder.stream(texts, kind="document"):
            parts += [] if chunk.full is None else [chunk.full]
            bar.advance(len(chunk))
    return np.array(owners, np.intp), np.concatenate(parts)


def _best(
    scores: NDArray[np.float32], owners: NDArray[np.intp], data: Titled
) -> NDArray[np.float32]:
    """float32[queries, documents]: the score of each document's best passage."""
    best = np.full((len(scores), len(data.documents)), -np.inf, np.float32)
    for column, owner in enumerate(owners):
        np.maximum(best[:, owner], scores[:, column], out=best[:, owner])
    return best


if __name__ == "__main__":
    sys.exit(main())
