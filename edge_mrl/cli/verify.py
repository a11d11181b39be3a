"""``edge-mrl verify``: check a bundle on the machine that will use it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.cli.common.stores import add_bundle, add_trust

if TYPE_CHECKING:
    from edge_mrl.encode import Verification

__all__ = ["HELP", "add_arguments", "run"]

HELP = "check a bundle's files and its vectors on this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "exit codes: 0 all checks passed, 1 vectors differ on this machine, 2 the bundle is damaged"
    )
    add_bundle(parser)
    add_trust(parser)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="use at most N threads (default: one per core)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Verify the bundle and print the result; damage is raised as a BundleError."""
    from edge_mrl.bundle import bundle_folder, signers
    from edge_mrl.encode import verify

    folder = bundle_folder(Path(args.bundle))
    result = verify(folder, threads=args.threads)
    keys = signers(folder)
    if args.json:
        print(json.dumps({**dataclasses.asdict(result), "signed_by": keys}))
    else:
        print(_text(result, keys))
    for line in result.warnings:
        print(f"edge-mrl: warning: {line}", file=sys.stderr)
    for line in result.failures:
        print(f"edge-mrl: failed: {line}", file=sys.stderr)
    return 0 if result.passed else 1


def _text(result: Verification, keys: list[str]) -> str:
    rows = [
        ("files", f"{result.files} with the expected SHA-256"),
        ("token ids", f"{'equal' if result.same_ids else 'DIFFERENT'} over {result.texts} texts"),
        ("codes", f"{result.equal_codes:.1%} equal, cosine {result.coarse_cosine_min:.5f} min"),
        ("alone or batched", f"cosine {result.batch_cosine_min:.6f} min"),
    ]
    if result.full_cosine_mean is not None and result.source_cosine_mean is not None:
        full = f"cosine {result.full_cosine_mean:.5f} mean, {result.full_cosine_min:.5f} min"
        source = f"cosine {result.source_cosine_mean:.5f} mean, {result.source_cosine_min:.5f} min"
        rows[2:2] = [("to the exporter's machine", full), ("to the fp32 source", source)]
    if result.engine != "onnxruntime":
        rows.append(("engine", result.engine))
    if result.other_engine is not None:
        mean, least = result.engines_cosine_mean, result.engines_cosine_min
        rows.append((f"to {result.other_engine} here", f"cosine {mean:.5f} mean, {least:.5f} min"))
    if keys:
        rows.append(("signed by", ", ".join(keys)))
    rows.append(("result", "good" if result.passed else "FAILED"))
    return "\n".join(f"{name:<27}{value}" for name, value in rows)
