"""How an encoder takes different streams of texts: ``python -m bench.encode.streams --bundle DIR``.

Short queries one by one and together, documents of mixed length, long documents together and alone, and
all of them mixed; with batches of 256, 512 (the default) and 1,024 tokens, on one thread, and with the
threads sharing each batch instead of running batches side by side. Rounds are interleaved; medians.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.support.children import ROOT
from bench.support.machine import save
from bench.support.texts import make
from edge_mrl.encode.encoder import BATCH_TOKENS, Encoder
from edge_mrl.encode.graph_session import GraphSession, Outputs, Rows, available_threads

ROUNDS = 5
QUERIES, DOCUMENTS, LONG = 200, 120, 8
SEED = 3
Streams = dict[str, Callable[[Encoder], int]]


class SharedBatches(GraphSession):
    """All threads work on one batch, then on the next: what ONNX Runtime does by itself."""

    def run_all(self, batches: Sequence[Rows]) -> Iterator[Outputs]:
        """Run batches one after the other; outputs in order."""
        wide = self._widened()
        return (self._run(wide, rows) for rows in batches)


def main() -> int:
    """Measure, print a table, write bench/results/streams.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    ways = {
        f"batches of {BATCH_TOKENS} tokens": _open(args.bundle, args.threads, BATCH_TOKENS),
        "batches of 256": _open(args.bundle, args.threads, 256),
        "batches of 1,024": _open(args.bundle, args.threads, 1024),
        "threads share a batch": _open(args.bundle, args.threads, BATCH_TOKENS, SharedBatches),
        "one thread": _open(args.bundle, 1, BATCH_TOKENS),
    }
    work = streams(next(iter(ways.values())))
    results = measure(ways, work, args.rounds)
    print(table(results, list(work)))
    path = save("streams", {"threads": args.threads, "rounds": args.rounds}, results)
    print(f"written to {path.relative_to(ROOT)}")
    return 0


def _open(
    bundle: Path, threads: int, tokens: int, session: type[GraphSession] = GraphSession
) -> Encoder:
    """An encoder as users open it, but for these two choices."""
    with patch.multiple("edge_mrl.encode.encoder", BATCH_TOKENS=tokens, GraphSession=session):
        return Encoder.open(bundle, threads=threads)


def streams(encoder: Encoder) -> Streams:
    """What to encode, by name; each gives the number of its texts."""
    texts = make(DOCUMENTS, QUERIES, tokens=lambda text: len(encoder.tokenize([text])[0]))
    joined = " ".join(texts.documents)
    long = [joined[i * 2000 : (i + 1) * 2000] for i in range(LONG)]  # cut at the bundle's limit
    mixed = [*texts.queries, *texts.documents]
    random.Random(SEED).shuffle(mixed)
    return {
        "queries one by one": partial(_one_by_one, texts.queries),
        "queries together": partial(_together, texts.queries),
        "documents": partial(_together, texts.documents),
        "mixed": partial(_together, mixed),
        "long together": partial(_together, long),
        "long alone": partial(_one_by_one, long),
    }


def _one_by_one(texts: list[str], encoder: Encoder) -> int:
    for text in texts:
        encoder.encode([text])
    return len(texts)


def _together(texts: list[str], encoder: Encoder) -> int:
    return len(encoder.encode(texts))


def measure(ways: dict[str, Encoder], work: Streams, rounds: int) -> dict[str, dict[str, Any]]:
    """Texts a second by way and stream: median, least and most of the rounds."""
    rates: dict[str, dict[str, list[float]]] = {way: {name: [] for name in work} for way in ways}
    for number in range(rounds + 1):
        for name, encode in work.items():
            for way, encoder in ways.items():
                start = time.perf_counter()
                count = encode(encoder)
                if number:  # the first round warms up
                    rates[way][name].append(count / (time.perf_counter() - start))
    return {
        way: {
            name: {
                "texts_per_s": round(statistics.median(values), 1),
                "least": round(min(values), 1),
                "most": round(max(values), 1),
            }
            for name, values in by_stream.items()
        }
        for way, by_stream in rates.items()
    }


def table(results: dict[str, dict[str, Any]], names: list[str]) -> str:
    """A row for each way, a column for each stream."""
    lines = [f"{'texts/s':<24}" + "".join(f"{name:>20}" for name in names)]
    for way, by_stream in results.items():
        cells = "".join(f"{by_stream[name]['texts_per_s']:>20,.1f}" for name in names)
        lines.append(f"{way:<24}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
