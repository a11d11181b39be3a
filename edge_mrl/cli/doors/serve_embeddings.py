"""``edge-mrl serve-embeddings``: a bundle for clients of OpenAI's API."""

from __future__ import annotations

import argparse

from edge_mrl.cli.common.stores import add_bundle, add_threads
from edge_mrl.cli.doors.listening import add_listening, announce, check_port, guard_of

__all__ = ["HELP", "add_arguments", "run"]

HELP = "give embeddings to clients of OpenAI's API, on this machine"
DEFAULT_PORT = 8079
#: 2,048 texts of 250 tokens have about 2.5 MB.
BODY_BYTES = 8 << 20
_EPILOG = """\
The service answers POST /v1/embeddings (input, model, dimensions, encoding_format, input_type, truncate),
GET /v1/models and GET /health. A client needs the address with /v1 and the model's name, which GET
/v1/models lists; docs/embeddings.md has examples.

examples:
  edge-mrl serve-embeddings --bundle minilm
  edge-mrl serve-embeddings --bundle minilm --alias text-embedding-3-small --truncate

exit codes: 0 stopped by a signal; 2 wrong usage, or the bundle cannot be used; 3 a package is missing;
            4 cannot listen
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_bundle(parser, option=True)
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this model's name, too; may be given several times",
    )
    parser.add_argument(
        "--truncate",
        action="store_true",
        help="cut texts of more tokens than the model reads (default: such requests are refused)",
    )
    add_listening(parser, port=DEFAULT_PORT)
    add_threads(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object when it is listening"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from edge_mrl.doors import Guarded, bind, embeddings_app, run_app
    from edge_mrl.encode import Encoder

    check_port(args)
    guard = guard_of(args, body_bytes=BODY_BYTES)
    at = bind(args.host, args.port)
    with (
        at.socket,
        Encoder.open(args.bundle, threads=args.threads, low_memory=args.low_memory) as encoder,
    ):
        app = embeddings_app(encoder, aliases=args.alias, truncate=args.truncate)
        announce(args, f"{at.url}/v1", guard, model=encoder.manifest.name)
        run_app(Guarded(app, guard), at)
    return 0
