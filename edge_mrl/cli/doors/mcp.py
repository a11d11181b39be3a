"""``edge-mrl mcp``: a store for agents."""

from __future__ import annotations

import argparse
import sys

from edge_mrl.cli.common.stores import add_store, add_threads, open_existing
from edge_mrl.cli.doors.listening import add_listening, announce, check_port, guard_of

__all__ = ["HELP", "add_arguments", "run"]

HELP = "let agents search a store, by the Model Context Protocol"
DEFAULT_PORT = 8078
#: A document that is put; far above what an agent writes.
BODY_BYTES = 4 << 20
_EPILOG = """\
An agent starts this command itself and speaks to it by standard input and output; it ends when the agent
closes them. docs/agents.md has the settings of common agents. With --http it listens instead, at /mcp.

Agents get the tools search, get, fetch and status, and with --write put and delete.

examples:
  edge-mrl mcp --store notes.db
  edge-mrl mcp --store notes.db --write
  edge-mrl mcp --store notes.db --http --port 8078

exit codes: 0 the agent has gone, or stopped by a signal with --http; 2 wrong usage, or the store cannot
            be used; 3 a package is missing; 4 cannot listen
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser, bundle=True)
    parser.add_argument(
        "--write", action="store_true", help="let agents store and delete documents, too"
    )
    parser.add_argument(
        "--http", action="store_true", help="listen for agents, instead of being started by one"
    )
    add_listening(parser, port=DEFAULT_PORT)
    add_threads(parser)
    parser.add_argument(
        "--json", action="store_true", help="with --http, print one JSON object when it listens"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until the agent has gone, or a signal comes."""
    from edge_mrl.doors import StoreTools, bind, serve_agents

    check_port(args)
    options = {"threads": args.threads, "low_memory": args.low_memory}
    with open_existing(args, **options) as index:
        tools = StoreTools(index, write=args.write)
        if not args.http:
            if sys.stdin.isatty():
                print(
                    "waiting for an agent's messages: agents start this command themselves "
                    "(docs/agents.md)",
                    file=sys.stderr,
                )
            serve_agents(tools)
            return 0
        guard = guard_of(args, body_bytes=BODY_BYTES)
        at = bind(args.host, args.port)
        announce(args, f"{at.url}/mcp", guard, write=args.write)
        serve_agents(tools, at=at, guard=guard)
    return 0
