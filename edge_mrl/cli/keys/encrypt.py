"""``edge-mrl encrypt``: encrypt a store."""

from __future__ import annotations

import argparse

from edge_mrl.cli.common.stores import add_store, key_of
from edge_mrl.cli.keys.common import EXIT_CODES, add_output, change
from edge_mrl.errors import UsageError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "encrypt a store"
_EPILOG = (
    """\
The key is 32 random bytes that you keep: `openssl rand -hex 32` makes one. Without it nobody can read
the store, you included. It comes from --key-file or --key-fd, from the systemd credential edge-mrl-key,
or from the environment variable EDGE_MRL_KEY. From then on, each command on the store needs it.

No program may have the store open. The encrypted store is written beside the old one and renamed over
it: if the command is interrupted, the store is as it was, or encrypted with this key. The old file is
then overwritten. Flash media, snapshots and backups may keep its bytes, so encrypt early.
"""
    + EXIT_CODES
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Encrypt the store."""
    key = key_of(args)
    if key is None:
        raise UsageError("no key was given: name it with --key-file or --key-fd")
    return change(args, key=None, new_key=key, done="is encrypted")
