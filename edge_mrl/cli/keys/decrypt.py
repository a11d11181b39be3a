"""``edge-mrl decrypt``: make an encrypted store a plain one."""

from __future__ import annotations

import argparse

from edge_mrl.cli.common.stores import add_store, key_of
from edge_mrl.cli.keys.common import EXIT_CODES, add_output, change
from edge_mrl.errors import UsageError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "make an encrypted store a plain one"
_EPILOG = (
    """\
No program may have the store open. Its texts, vectors and token are on the disk in the clear
afterwards. If the command is interrupted, the store is encrypted as before, or plain.
"""
    + EXIT_CODES
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Decrypt the store."""
    key = key_of(args)
    if key is None:
        raise UsageError("no key was given: name the store's with --key-file or --key-fd")
    return change(args, key=key, new_key=None, done="is not encrypted any more")
