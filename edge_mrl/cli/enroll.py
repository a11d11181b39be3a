"""``edge-mrl enroll``: connect a store to a server, as one of its devices."""

from __future__ import annotations

import argparse
import sys

from edge_mrl.cli.common.output import count, print_json
from edge_mrl.cli.common.stores import add_store
from edge_mrl.errors import UsageError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "connect a store to a server, as one of its devices"
_EPILOG = """\
The invitation is a one-time secret from the server's administrator (`edge-mrl admin invitations create
TENANT`). The server exchanges it for a token, which is kept in STORE-sync.json; only you can read that
file. All documents of the store are queued; `edge-mrl sync` sends them. With --bundle, a device without
a store gets an empty one, which receives what other devices wrote.

By default only vectors are sent, not text. Vectors are not anonymous: text can be reconstructed from them
(see docs/sync.md).

example:
  edge-mrl enroll --server https://search.example.org --invitation K7QM-9T2X --store notes.db

exit codes: 0 done; 2 wrong usage, or the store or its bundle cannot be used; 4 the server cannot be
reached, or refuses the invitation
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--server", required=True, metavar="URL", help="the server's address")
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument(
        "--invitation", metavar="TEXT", help="the one-time secret from the server's administrator"
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

        Index.open(args.store, args.bundle).close()
    with Store.open(args.store) as store:
        status = enroll(
            store,
            args.server,
            args.code if args.invitation is None else args.invitation,
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
