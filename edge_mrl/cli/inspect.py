"""``edge-mrl inspect``: show what a bundle contains."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from edge_mrl.bundle import Manifest, Precision, bundle_folder, check_files, read_manifest, signers
from edge_mrl.cli.common.stores import add_bundle, add_trust

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show what a bundle contains"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    add_bundle(parser)
    add_trust(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the manifest. The files' presence and sizes are checked, not their hashes (see verify)."""
    folder = bundle_folder(Path(args.bundle))
    manifest = read_manifest(folder)
    check_files(folder, manifest, hashes=False)
    keys = signers(folder)
    if args.json:
        print(json.dumps({**_data(manifest), "signed_by": keys}, ensure_ascii=False))
    else:
        print(_text(manifest, keys))
    return 0


def _data(manifest: Manifest) -> dict[str, Any]:
    passage = manifest.code.packing.bytes(manifest.dim)
    sizes = {"size_bytes": manifest.size_bytes, "passage_bytes": passage}
    return {**dataclasses.asdict(manifest), **sizes}


def _text(manifest: Manifest, keys: list[str]) -> str:
    source, precision, quality = manifest.source, manifest.precision, manifest.quality
    code, width = manifest.code, manifest.full_dim
    full = "none (codes only)" if width is None else f"float32, {width} dimensions"
    fidelity = f"{quality['cosine_mean']:.4f} mean, {quality['cosine_min']:.4f} min"
    rows = [
        ("name", manifest.name),
        ("source", f"{source.model} ({source.architecture}, licence {source.licence})"),
        ("coarse", f"int8, {manifest.dim} dimensions, {manifest.dim} B per vector"),
        ("stored", f"{code.stored}, {code.packing.bytes(manifest.dim)} B per passage"),
        ("full", full),
        ("head", manifest.head.kind + (" after layer norm" if manifest.head.layer_norm else "")),
        ("max tokens", f"{manifest.max_tokens:,}"),
        *((f"{kind} prompt", repr(text)) for kind, text in manifest.prompts.items() if text),
        ("precision", f"{precision.weights} weights, {precision.activations} activations"),
        ("products", _products(precision)),
        ("fidelity", f"cosine {fidelity} to the fp32 source"),
        ("space", manifest.space_id),
        ("code", manifest.code_id),
        ("signed by", ", ".join(keys) or "nobody"),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())),
    ]
    files = [(name, f"{entry.size_bytes / 1e6:9.3f} MB") for name, entry in manifest.files.items()]
    rows += [*files, ("total", f"{manifest.size_bytes / 1e6:9.3f} MB")]
    return "\n".join(f"{name:<18}{value}" for name, value in rows)


def _products(precision: Precision) -> str:
    """The integer products of the graph; a static model has none, because its weights are a table."""
    if not precision.integer_products:
        return "none on integers"
    return f"{precision.integer_products} on integers, {precision.smoothed_products} smoothed"
