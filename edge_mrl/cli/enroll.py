"""``edge-mrl enroll``: make a store a device of a server."""

from __future__ import annotations

import argparse

from edge_mrl.cli.stores import add_store

__all__ = ["HELP", "add_arguments", "run"]

HELP = "connect a store to a server, as one of its devices"
_EPILOG = """\
The code comes from the server's administrator and works once. The token that the server gives in return
is kept in STORE-sync.json, readable by you alone. Every document of the store is queued; `edge-mrl sync`
sends them.

Vectors alone are sent. They are not anonymous: text can be guessed from them (docs/sync.md).

example:
  edge-mrl enroll --server https://search.example.org --code K7QM-9T2X --store notes.db

exit codes: 0 done; 2 wrong usage, or an unusable store or bundle; 4 the server cannot be reached, or
refuses the code
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--server", required=True, metavar="URL", help="the server's address")
    parser.add_argument("--code", required=True, help="the one-time code")
    add_store(parser)
    parser.add_argument(
        "--name", help="what the device is called there (default: this machine's name)"
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="certificates to trust instead of the system's"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="allow http:// to other machines: no secrecy at all"
    )
    parser.add_argument(
        "--with-text", action="store_true", help="send text and metadata too, not vectors alone"
    )
    parser.add_argument(
        "--max-queue",
        type=int,
        metavar="BYTES",
        help="most bytes of vectors that wait in the store (default: 268435456); beyond it they are "
        "embedded again when it is their turn",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no summary")


def run(args: argparse.Namespace) -> int:
    """Enroll and say what waits."""
    from edge_mrl.cli.output import count, print_json
    from edge_mrl.errors import UsageError
    from edge_mrl.store import MAX_QUEUE_BYTES, Store
    from edge_mrl.sync import enroll

    most = MAX_QUEUE_BYTES if args.max_queue is None else args.max_queue
    if most < 0:
        raise UsageError(f"--max-queue {most}: expected bytes, 0 or more")
    with Store.open(args.store) as store:
        status = enroll(
            store,
            args.server,
            args.code,
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
            f"{count(status.queue.items, 'document')} queued: `edge-mrl sync --store {args.store}`"
        )
    return 0
