"""``edge-mrl push``: a bundle onto a hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_mrl.cli.common.output import print_json

__all__ = ["HELP", "add_arguments", "run"]

HELP = "publish a bundle on a model hub"
_EPILOG = """\
The bundle's hashes are compared, then its files and a model card go to the hub as one commit, and files
that the former bundle had and this one has not are removed. The repository is made if it is not there. A
card (README.md) that a person wrote or changed is left as it is, and the command says so.

The token is that of HF_TOKEN, or of `hf auth login`. HF_ENDPOINT names another hub. It needs the extra
`hub`.

examples:
  edge-mrl push build/minilm maria/minilm-notes
  edge-mrl push build/minilm maria/minilm-notes --private --license apache-2.0

exit codes: 0 done; 2 wrong usage, or the bundle is damaged: nothing was sent; 3 a package is missing; 4
            the hub cannot be reached, or refuses
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "bundle",
        metavar="BUNDLE",
        help="a bundle's folder, a .zip of one, or the name of an installed one",
    )
    parser.add_argument("name", metavar="OWNER/NAME", help="the repository")
    parser.add_argument(
        "--revision", metavar="BRANCH", help="the branch, made if it is not there (default: main)"
    )
    parser.add_argument(
        "--private", action="store_true", help="make the repository private, if it is made"
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="the hub's name of the weights' licence (default: what the bundle says)",
    )
    parser.add_argument("--message", metavar="TEXT", help="the commit's message")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace a card that a person wrote, and files of a model that is no bundle",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no progress or summary")


def run(args: argparse.Namespace) -> int:
    """Publish it, and say which commit it is."""
    from edge_mrl.bundle import Publication, bundle_folder, push_bundle

    how = Publication(
        private=True if args.private else None,
        message=args.message,
        licence=args.license,
        force=args.force,
    )
    done = push_bundle(
        bundle_folder(Path(args.bundle)), args.name, revision=args.revision, publication=how
    )
    if args.json:
        facts = {"name": str(done.name), "commit": done.commit, "url": done.url}
        print_json({**facts, "card_kept": done.card_kept})
    elif not args.quiet:
        print(f"{done.name} is at {done.commit}: {done.url}")
        if done.card_kept:
            print("README.md is a person's, and was left as it is; --force replaces it")
    return 0
