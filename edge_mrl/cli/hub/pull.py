"""``edge-mrl pull``: a bundle from a hub."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import print_json, size, table
from edge_mrl.cli.common.stores import add_trust

if TYPE_CHECKING:
    from edge_mrl.bundle import Pulled

__all__ = ["HELP", "add_arguments", "run"]

HELP = "fetch a bundle from a model hub, and check it"
_EPILOG = """\
The bundle's own files alone are fetched, into the hub's cache, and every hash is compared. Commands take
it as --bundle hf://OWNER/NAME, and fetch it themselves if it is not there. What is there is used without
a request; --update asks where the branch is now. An interrupted download goes on with the files that are
missing.

HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE are honoured. It needs the extra `hub`, unless the cache
has the bundle.

examples:
  edge-mrl pull maria/minilm-notes
  edge-mrl index notes/ --store notes.db --bundle hf://maria/minilm-notes
  edge-mrl pull maria/minilm-notes --revision v2 -o minilm-v2

exit codes: 0 done; 2 wrong usage, or no sound bundle is there; 3 a package is missing; 4 the hub cannot
            be reached, or refuses
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "name", metavar="OWNER/NAME", help="the bundle's name; hf:// before it may be left out"
    )
    parser.add_argument(
        "--revision", metavar="REV", help="a branch, a tag or a commit (default: main)"
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="ask for the branch's newest commit, even if one is there",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="also copy it into this new folder, without links, to be passed on",
    )
    add_trust(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no progress or summary")


def run(args: argparse.Namespace) -> int:
    """Fetch it, copy it if asked to, and say which commit it is."""
    from edge_mrl.bundle import copy_bundle, hub_name, pull_bundle, require_new_folder

    wanted = hub_name(args.name, args.revision)
    if args.output is not None:
        require_new_folder(args.output)
    found = pull_bundle(wanted, update=args.update)
    if args.output is not None:
        copy_bundle(found.folder, args.output)
    if args.json:
        print_json(
            {
                "name": str(replace(found.name, revision="main")),
                "revision": found.name.revision,
                "commit": found.commit,
                "folder": str(found.folder),
                "output": args.output,
                "size_bytes": found.size_bytes,
                "downloaded": found.downloaded,
            }
        )
    elif not args.quiet:
        _print(found, args.output)
    return 0


def _print(found: Pulled, output: str | None) -> None:
    from edge_mrl.bundle import read_manifest

    manifest = read_manifest(found.folder, trust="")
    state = "fetched, every hash compared" if found.downloaded else "was there, every hash compared"
    rows = [
        ("name", str(found.name)),
        ("commit", found.commit),
        ("bundle", f"{manifest.name}, {manifest.dim} dimensions, {size(found.size_bytes)}"),
        ("state", state),
        ("folder", str(output or found.folder)),
    ]
    print(table(rows))
    print(f"use it with --bundle {output or found.name}; this very commit is {found.pinned}")
