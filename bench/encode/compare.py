"""Text encoders on the same weights, side by side: ``python -m bench.encode.compare --bundle DIR``.

all-MiniLM-L6-v2 from the installed package, run by edge-mrl and by its peers, each in an environment of
its own with as many threads; 2,000 documents of 20 to 200 words and 300 short queries
(bench/support/texts.py). Query latency, documents a second, cold start,
memory, sizes, and how near the vectors are to fp32's.

With ``--ratchet``, only memory after ever more documents in one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.encode.engines import ENGINES
from bench.encode.models import CACHE, MODELS, WEIGHTS
from bench.encode.models import prepare as prepare_model
from bench.encode.peak import Transformer
from bench.encode.report import Work, chart, ratchet_table, summary, tables
from bench.encode.rounds import ALONE, BEST_SHARE, TRIED, Job, Lab
from bench.support.children import ROOT, ChildError
from bench.support.environments import PEERS, Environment
from bench.support.environments import prepare as prepare_environment
from bench.support.machine import RESULTS, save
from bench.support.texts import MOST_TOKENS, Texts, make

#: Its vectors are what the others' are compared with.
REFERENCE = "sentence-transformers, torch"
#: The model that --static-bundle takes the place of.
STATIC = "edge-mrl-static"
#: Memory is read after so many documents in one process; slower peers stop before.
RATCHET = (1_000, 10_000, 100_000)
RATCHET_MOST = {
    "edge-mrl": 100_000,
    "edge-mrl, low memory": 10_000,
    "light-embed, int8": 10_000,
    "fastembed, int8": 3_000,
}


def main() -> int:
    """Measure, print tables, write bench/results/encoder.json and encoder.svg."""
    args = _arguments()
    source: Path = args.model
    names = _chosen(args)
    wanted = [*names, REFERENCE] if not args.ratchet else names
    ready = _environments(wanted, args)
    jobs = {name: _job(name, source, ready, args) for name in dict.fromkeys(wanted)}
    count = _counter(source)
    texts = make(args.documents, args.queries, tokens=count)
    lengths = tuple([count(text) for text in some] for some in (texts.documents, texts.queries))
    product = None if args.ratchet else _product(source, ready)
    lab = Lab(texts, rounds=args.rounds, threads=args.threads, product=product)
    measured = [jobs[name] for name in names]
    settings = _settings(args, texts, lengths, ready)
    if args.ratchet:
        return _ratchet(lab, measured, settings, args)
    reference = _reference(lab, jobs[REFERENCE], texts, source)
    lab.cold_starts(measured)
    lab.default_rounds(measured)
    lab.best_rounds(measured)
    peak = max(lab.peaks, default=None)
    work = Work(Transformer.read(source / "config.json"), lengths[0], lengths[1], peak)
    results = {job.name: summary(job, work, reference) for job in measured}
    settings["integer_peak_gmac_per_s"] = {
        "most": None if peak is None else round(peak, 1),
        "rounds": [round(value, 1) for value in lab.peaks],
    }
    return _written(results, settings, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="exported from --model")
    parser.add_argument(
        "--static-bundle",
        type=Path,
        help="of a static model (default: of the one that model2vec runs)",
    )
    parser.add_argument("--model", type=Path, help="source folder (default: the installed MiniLM)")
    parser.add_argument("--documents", type=int, default=2000, help="default: 2000")
    parser.add_argument("--queries", type=int, default=300, help="default: 300")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--threads", type=int, default=2, help="of each engine (default: 2)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"all whose name starts so: {'; '.join(ENGINES)}",
    )
    parser.add_argument(
        "--ratchet",
        type=int,
        nargs="*",
        metavar="COUNT",
        help=f"only memory after so many documents (default: {' '.join(map(str, RATCHET))})",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    args = parser.parse_args()
    args.ratchet = None if args.ratchet is None else sorted(args.ratchet) or list(RATCHET)
    least = min(args.rounds, args.threads, *(args.ratchet or ()))
    if least < 1 or min(args.documents, args.queries) < args.rounds:
        parser.error("numbers must be at least 1, with a document and a query for each round")
    args.model = args.model or _installed()
    if args.model is None:
        parser.error("no source model: give --model FOLDER")
    if not _chosen(args):
        parser.error(f"no such engine; there are {'; '.join(ENGINES)}")
    return args


def _installed() -> Path | None:
    from edge_mrl_export.source.location import installed_default

    return installed_default()


def _chosen(args: argparse.Namespace) -> list[str]:
    """Names of the engines that are asked for, in the order of ENGINES."""
    names = RATCHET_MOST if args.ratchet else ENGINES
    return [name for name in names if args.only is None or name.startswith(tuple(args.only))]


def _environments(names: Sequence[str], args: argparse.Namespace) -> dict[str, Environment]:
    """Those that the engines run in, and that their models are made in."""
    models = {ENGINES[name].model for name in names} - {None}
    if not args.ratchet:
        models.add("product")
    needed = {*models, *(other for name in models if name for other in MODELS[name].needs)}
    environments = {ENGINES[name].environment for name in names}
    environments |= {MODELS[name].environment for name in needed if name}
    ready = {}
    for name in sorted(environments):
        _say(f"environment {name}")
        ready[name] = prepare_environment(name)
    return ready


def _job(name: str, source: Path, ready: dict[str, Environment], args: argparse.Namespace) -> Job:
    """An engine with its model; one that has a problem is not measured."""
    engine = ENGINES[name]
    environment = ready[engine.environment]
    given = {None: args.bundle, STATIC: args.static_bundle}.get(engine.model)
    path = CACHE / "models" / str(engine.model) if given is None else given.resolve()
    job = Job(name, environment, path, problem=environment.problem)
    job.log.unlink(missing_ok=True)
    if given is None and engine.model is not None and job.problem is None:
        try:
            prepare_model(engine.model, source, ready)
        except ChildError as error:
            job.problem = str(error)
    return job


def _counter(source: Path) -> Callable[[str], int]:
    """Counts a text's tokens, special ones included, none cut."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


def _product(source: Path, ready: dict[str, Environment]) -> tuple[Path, Path] | None:
    """What measures the integer peak; None if it could not be made."""
    runtime = ready.get("edge-mrl-runtime") or ready.get("sentence-transformers-onnx")
    if runtime is None or runtime.problem is not None:
        return None
    try:
        return runtime.python, prepare_model("product", source, ready) / "product.onnx"
    except (ChildError, KeyError) as error:
        _say(f"no integer peak: {error}")
        return None


def _reference(lab: Lab, job: Job, texts: Texts, source: Path) -> NDArray[np.float32] | None:
    """float32[documents, D] of the fp32 model, kept for the next run; None if it cannot run."""
    weights = hashlib.sha256((source / WEIGHTS).read_bytes()).hexdigest()
    parts = (texts.key, weights, *PEERS[job.environment.name])
    path = CACHE / f"reference-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        _say("fp32 vectors to compare with")
        try:
            lab.vectors(job).replace(path)
        except ChildError as error:
            _say(f"nothing to compare with: {error}")
            return None
    found: NDArray[np.float32] = np.load(path)
    return found


def _settings(
    args: argparse.Namespace,
    texts: Texts,
    lengths: Sequence[Sequence[int]],
    ready: dict[str, Environment],
) -> dict[str, Any]:
    from edge_mrl.bundle.manifest import read_manifest

    manifest = read_manifest(args.bundle)
    return {
        "model": manifest.source.model,
        "bundle": {
            "manifest_sha256": manifest.manifest_sha256,
            "dim": manifest.dim,
            "precision": dataclasses.asdict(manifest.precision),
        },
        "threads": args.threads,
        "rounds": args.rounds,
        "texts": {
            "key": texts.key,
            "documents": len(texts.documents),
            "words_mean": round(float(np.mean([len(t.split()) for t in texts.documents])), 1),
            "tokens_mean": round(float(np.mean(lengths[0])), 1),
            "tokens_most": MOST_TOKENS,
            "queries": len(texts.queries),
            "query_tokens_mean": round(float(np.mean(lengths[1])), 1),
        },
        "best_batch": {"tried_on": TRIED, "share_of_documents": BEST_SHARE},
        "alone_texts": ALONE,
        "installed": "files in site-packages with compiled ones, without pip and setuptools",
        "versions": {name: found.versions for name, found in ready.items() if found.versions},
    }


def _written(results: dict[str, Any], settings: dict[str, Any], args: argparse.Namespace) -> int:
    path = save("encoder", settings, results)
    plot = RESULTS / "encoder.svg"
    plot.write_text(chart(results, threads=args.threads), encoding="utf-8")
    if args.json:
        print(json.dumps({"settings": settings, "results": results}, indent=1))
    else:
        print(tables(results))
        print(f"written to {path.relative_to(ROOT)} and {plot.relative_to(ROOT)}")
    return 0


def _ratchet(
    lab: Lab, jobs: Sequence[Job], settings: dict[str, Any], args: argparse.Namespace
) -> int:
    """Memory after ever more documents, an engine after the other; bench/results/encoder_ratchet.json."""
    results: dict[str, Any] = {}
    for job in jobs:
        counts = [count for count in args.ratchet if count <= RATCHET_MOST[job.name]]
        if job.problem is not None:
            results[job.name] = {"problem": job.problem}
            continue
        try:
            results[job.name] = [_rounded(point) for point in lab.ratchet(job, counts)]
        except ChildError as error:
            results[job.name] = {"problem": str(error)}
    path = save("encoder_ratchet", settings, results)
    if args.json:
        print(json.dumps({"settings": settings, "results": results}, indent=1))
    else:
        print(ratchet_table(results))
        print(f"written to {path.relative_to(ROOT)}")
    return 0


def _rounded(point: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in point.items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
