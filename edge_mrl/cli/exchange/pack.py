"""``edge-mrl pack``: a bundle as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_mrl.cli.common.output import print_json, size
from edge_mrl.cli.common.stores import add_bundle
from edge_mrl.errors import UsageError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "write a bundle as one .zip file"
_EPILOG = """\
The bundle's hashes are compared, then its files are written one behind the other, not compressed. Every
command that takes a bundle's folder takes the .zip too, and unpacks it once, into the user's cache. The
same bundle gives the same bytes; a signature goes with it.

examples:
  edge-mrl pack minilm -o minilm.zip
  edge-mrl index notes/ --store notes.db --bundle minilm.zip

exit codes: 0 done; 2 wrong usage, or the bundle is damaged
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_bundle(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .zip to write")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print nothing")


def run(args: argparse.Namespace) -> int:
    """Pack, and say how large it is."""
    from edge_mrl.bundle import bundle_folder, pack_bundle

    target = Path(args.output)
    if target.suffix.lower() != ".zip" or target.is_dir():
        raise UsageError(f"output {args.output}: expected a name ending in .zip")
    size_bytes = pack_bundle(bundle_folder(Path(args.bundle)), target)
    if args.json:
        print_json({"output": args.output, "size_bytes": size_bytes})
    elif not args.quiet:
        print(f"{args.output}: {size(size_bytes)}")
    return 0
