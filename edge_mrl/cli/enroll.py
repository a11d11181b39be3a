"""``edge-mrl enroll``: connect a store to a server, as one of its devices."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from edge_mrl.cli.common.output import count, print_json
from edge_mrl.cli.common.stores import add_store, key_of
from edge_mrl.errors import UsageError, reason

__all__ = ["HELP", "add_arguments", "run"]

#: Where an invitation is looked for that no option gives.
VARIABLE = "EDGE_MRL_INVITATION"
MAX_CHARS = 4_096
HELP = "connect a store to a server, as one of its devices"
_EPILOG = """\
The invitation is a one-time secret from the server's administrator (`edge-mrl admin invitations create
TENANT`). Everybody on this machine can see a command's arguments, so give it on standard input
(--invitation -), in a file that only you can read (--invitation-file), or in the environment variable
EDGE_MRL_INVITATION. The server exchanges it for a token, which is kept in STORE-sync.json; only you can
read that file. All documents of the store are queued; `edge-mrl sync` sends them. With --bundle, a
device without a store gets an empty one, which receives what other devices wrote.

If the command is interrupted, run it again with the same invitation: the same device gets the same token.

By default only vectors are sent, not text. Vectors are not anonymous: text can be reconstructed from them
(see docs/sync.md).

examples:
  edge-mrl enroll --server https://search.example.org --invitation - --store notes.db
  edge-mrl enroll --server https://search.example.org --invitation-file invitation.txt --store notes.db

exit codes: 0 done; 2 wrong usage, or the store or its bundle cannot be used; 4 the server cannot be
reached, or refuses the invitation
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--server", required=True, metavar="URL", help="the server's address")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument(
        "--invitation",
        metavar="TEXT|-",
        help="the one-time secret from the server's administrator; -: read it from standard input "
        "(default: the environment variable EDGE_MRL_INVITATION)",
    )
    secret.add_argument(
        "--invitation-file", type=Path, metavar="FILE", help="read the one-time secret from a file"
    )
    # The former name of --invitation; it goes with the next minor version.
    secret.add_argument("--code", help=argparse.SUPPRESS)
    add_store(parser)
    parser.add_argument(
        "--bundle", metavar="DIR", help="the bundle's folder; makes an empty store if there is none"
    )
    parser.add_argument(
        "--name", help="a name of this device for people (default: the machine's host name)"
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="a file of certificates to trust instead of the system's"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow http:// to other machines; anybody on the network can then read everything",
    )
    parser.add_argument(
        "--with-text", action="store_true", help="send text and metadata too, not only vectors"
    )
    parser.add_argument(
        "--max-queue",
        type=int,
        metavar="BYTES",
        help="keep at most BYTES of vectors until they are sent (default: 268435456); further documents "
        "are embedded again when they are sent",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no summary")


def _invitation(args: argparse.Namespace) -> str:
    """The invitation, from wherever it is given.

    Raises:
        UsageError: It is not given, or what should have it has none.
    """
    if args.code is not None:
        return str(args.code)
    if args.invitation_file is not None:
        try:
            text = args.invitation_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--invitation-file {args.invitation_file}: {reason(error)}"
            ) from error
        return _one_line(text, f"--invitation-file {args.invitation_file}")
    if args.invitation == "-":
        if sys.stdin.isatty():
            import getpass

            return _one_line(getpass.getpass("invitation: "), "--invitation -")
        return _one_line(sys.stdin.readline(MAX_CHARS), "--invitation -")
    if args.invitation is not None:
        return str(args.invitation)
    text = os.environ.get(VARIABLE, "")
    if not text:
        raise UsageError(
            f"an invitation is needed: --invitation -, --invitation-file FILE, or {VARIABLE} in the "
            "environment"
        )
    return _one_line(text, VARIABLE)


def _one_line(text: str, where: str) -> str:
    lines = text.split()
    if len(lines) != 1:
        raise UsageError(f"{where}: expected one invitation, found {len(lines)} words")
    return lines[0]


def run(args: argparse.Namespace) -> int:
    """Enroll, and print what waits to be sent."""
    from edge_mrl.store import MAX_QUEUE_BYTES, Store
    from edge_mrl.sync import enroll

    most = MAX_QUEUE_BYTES if args.max_queue is None else args.max_queue
    if most < 0:
        raise UsageError(f"--max-queue {most}: expected a number of bytes, 0 or more")
    if args.code is not None:
        print("edge-mrl: warning: --code is now --invitation", file=sys.stderr)
    if args.bundle is not None:
        from edge_mrl.index import Index

        Index.open(args.store, args.bundle, key=key_of(args)).close()
    with Store.open(args.store, key=key_of(args)) as store:
        status = enroll(
            store,
            args.server,
            _invitation(args),
            name=args.name,
            ca=args.ca,
            insecure=args.insecure,
            with_text=args.with_text,
            max_queue=most,
        )
    if args.json:
        print_json(
            {
                "server": status.server,
                "tenant": status.tenant,
                "device": status.device,
                "queued": status.queue.items,
            }
        )
    elif not args.quiet:
        print(
            f"device {status.device} of {status.tenant} at {status.server}; "
            f"{count(status.queue.items, 'document')} queued: run `edge-mrl sync --store "
            f"{args.store}` to send them"
        )
    return 0
