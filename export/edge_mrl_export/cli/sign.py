"""``edge-mrl sign``, found by the runtime's command line through its entry point."""

from __future__ import annotations

import argparse
import json
from typing import Any

__all__ = ["HELP", "add_arguments", "run"]

HELP = "sign a bundle, or make a key to sign with"
_EPILOG = """\
examples:
  edge-mrl sign --new-key fleet.key         fleet.key is secret; devices get fleet.key.pub
  edge-mrl sign minilm --key fleet.key
  edge-mrl search "..." --store notes.db --trust fleet.key.pub

exit codes: 0 done, 2 wrong usage or a damaged bundle, 3 a package is missing
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("bundle", nargs="?", metavar="DIR", help="the bundle's folder")
    parser.add_argument(
        "--key", metavar="FILE", help="the private key, Ed25519 in PEM, to sign the bundle with"
    )
    parser.add_argument(
        "--new-key",
        metavar="FILE",
        help="make a key pair: the private key in FILE, the public one in FILE.pub",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make a key, or check a bundle's hashes and sign it."""
    from edge_mrl.bundle import check_files, make_key, read_manifest, sign_bundle
    from edge_mrl.errors import UsageError

    if (args.new_key is None) == (args.bundle is None) or (args.bundle is None) != (
        args.key is None
    ):
        raise UsageError(
            "expected `edge-mrl sign DIR --key FILE` or `edge-mrl sign --new-key FILE`"
        )
    found: dict[str, Any]
    if args.new_key is not None:
        key, public = make_key(args.new_key)
        found = {"key": key, "private": args.new_key, "public": str(public)}
        text = f"key {key}: keep {args.new_key} secret, give {public} to devices"
    else:
        check_files(args.bundle, read_manifest(args.bundle, trust=""), hashes=True)
        key = sign_bundle(args.bundle, args.key)
        found = {"key": key, "bundle": args.bundle}
        text = f"{args.bundle} is signed with key {key}"
    print(json.dumps(found) if args.json else text)
    return 0
