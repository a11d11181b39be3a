"""``edge-mrl rekey``: give an encrypted store another key."""

from __future__ import annotations

import argparse

from edge_mrl.cli.common.stores import add_key, add_store, key_of, new_key_of
from edge_mrl.cli.keys.common import EXIT_CODES, add_output, change
from edge_mrl.errors import UsageError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "give an encrypted store another key"
_EPILOG = (
    """\
No program may have the store open. Everything is encrypted anew, so whoever had the old key cannot
read the file from then on. If the command is interrupted, the store has the old key or the new one: try
both.
"""
    + EXIT_CODES
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    add_key(parser, new=True)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Change the key."""
    key = key_of(args)
    if key is None:
        raise UsageError("no key was given: name the store's with --key-file or --key-fd")
    return change(args, key=key, new_key=new_key_of(args), done="has the new key")
