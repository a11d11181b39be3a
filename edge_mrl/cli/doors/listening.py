"""Where such a command listens, who may ask, and what it says of that."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import print_json
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.doors import Guard

__all__ = ["add_listening", "announce", "check_port", "guard_of"]

#: Names the token, so that it stands in no list of processes.
TOKEN = "EDGE_MRL_TOKEN"  # noqa: S105 - the variable's name
LEAST_TOKEN_CHARS = 16


def add_listening(parser: argparse.ArgumentParser, *, port: int) -> None:
    """Add --host, --port and --token-file."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="HOST",
        help="address to listen on; where other machines can reach it, a token is needed "
        "(default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=port,
        metavar="N",
        help=f"port to listen on; 0 takes a free one (default: {port})",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"a file with the token that requests must carry (default: the token in {TOKEN}, if it is "
        "set; else none on this machine, and a new one for others)",
    )


def check_port(args: argparse.Namespace) -> None:
    """Check that --port can be one.

    Raises:
        UsageError: It cannot.
    """
    if not 0 <= args.port < 1 << 16:
        raise UsageError(f"--port {args.port}: expected 0 to 65535")


def guard_of(args: argparse.Namespace, *, body_bytes: int) -> Guard:
    """Who may ask: with the token that was given; without one, this machine alone.

    Where other machines can reach the address and no token was given, one is made.

    Raises:
        UsageError: The token is none.
    """
    from edge_mrl.doors import LOOPBACK, Guard

    token = _token(args)
    if token is None and args.host not in LOOPBACK:
        token = secrets.token_urlsafe(24)
    return Guard(token, body_bytes)


def announce(args: argparse.Namespace, url: str, guard: Guard, **facts: object) -> None:
    """Say where it listens, which token is needed if it was made here, and what to be wary of."""
    from edge_mrl.doors import LOOPBACK

    if args.host not in LOOPBACK:
        print(
            "edge-mrl: warning: other machines can reach this address, and it speaks no TLS: put a proxy "
            "that does in front of it",
            file=sys.stderr,
        )
    made = guard.token if _token(args) is None else None
    if args.json:
        print_json({"url": url, **facts, "token": made})
        sys.stdout.flush()
    else:
        print(f"listening on {url}", flush=True)
        if made is not None:
            print(f"requests must carry the token {made}", flush=True)


def _token(args: argparse.Namespace) -> str | None:
    named = args.token_file
    token = os.environ.get(TOKEN) if named is None else Path(named).read_text("utf-8").strip()
    if not token and named is None:
        return None
    if not token or len(token) < LEAST_TOKEN_CHARS or not token.isascii() or " " in token:
        raise UsageError(
            f"the token in {named or TOKEN} is none: expected at least {LEAST_TOKEN_CHARS} ASCII "
            "characters without spaces"
        )
    return token
