"""``edge-mrl serve``, found by the runtime's command line through its entry point."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.errors import NetworkError, UsageError

if TYPE_CHECKING:
    from edge_mrl_server.settings import Settings

__all__ = ["DEFAULT_PORT", "HELP", "add_arguments", "run"]

HELP = "serve the devices of one or many tenants"
DEFAULT_PORT = 8077
_EPILOG = """\
examples:
  edge-mrl serve                                      SQLite, this machine alone
  edge-mrl serve --host 0.0.0.0 --database /var/lib/edge-mrl/server.db
  edge-mrl serve --database postgresql://edge@db.example/edge

An empty database gets the tenant "default", and a code that enrols the first device. Put a proxy that
speaks TLS before it: tokens must not travel in the clear (docs/server.md).

exit codes: 0 stopped by a signal, 2 wrong usage or database, 3 a missing package,
            4 the database cannot be reached
"""
#: Name, default, unit and meaning.
_LIMITS = (
    ("--device-rate", 100.0, "N", "requests a second of one device"),
    ("--tenant-rate", 2_000.0, "N", "requests a second of one tenant"),
    ("--in-flight-mb", 128.0, "MIB", "bodies being received at once"),
    ("--body-timeout", 20.0, "S", "seconds without a byte after which a slow client is left"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--database",
        default="edge-mrl-server.db",
        metavar="FILE|URL",
        help="SQLite file, or postgresql://... (default: edge-mrl-server.db)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="HOST", help="address (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        metavar="N",
        help=f"port; 0 takes a free one (default: {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder for snapshots (default: a temporary one)"
    )
    limits = parser.add_argument_group("limits")
    for name, default, unit, text in _LIMITS:
        limits.add_argument(
            name,
            type=_positive,
            default=default,
            metavar=unit,
            help=f"{text} (default: {default:g})",
        )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object when it is listening"
    )
    parser.add_argument("--quiet", action="store_true", help="log warnings and errors alone")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    from edge_mrl_server.logs import configure
    from edge_mrl_server.process import Process, listen

    if not 0 <= args.port < 65_536:
        raise UsageError(f"port {args.port}: expected 0 to 65535")
    configure(quiet=args.quiet)
    code = _first_code(args.database)
    try:
        sock = listen(args.host, args.port)
    except OSError as error:
        raise NetworkError(f"{args.host}:{args.port}: {error.strerror or error}") from error
    with sock:
        _announce(args, sock.getsockname()[1], code)
        Process(_settings(args)).run([sock])
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from edge_mrl_server.settings import Settings

    return Settings(
        database=args.database,
        cache=args.cache,
        device_rate=args.device_rate,
        tenant_rate=args.tenant_rate,
        in_flight_bytes=int(args.in_flight_mb * (1 << 20)),
        body_timeout_s=args.body_timeout,
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value


def _first_code(url: str) -> str | None:
    """Make or migrate the database; a code for the first device where there is no tenant yet."""
    from edge_mrl_server.storage import accounts, open_database

    with open_database(url, connections=1) as database:
        with database.read() as session:
            if accounts.list_tenants(session, limit=1):
                return None
        with database.write() as session:
            # Several servers may start at once: one of them makes it.
            if not accounts.ensure_tenant(session, "default"):
                return None
            return accounts.create_code(session, "default")


def _announce(args: argparse.Namespace, port: int, code: str | None) -> None:
    host = f"[{args.host}]" if ":" in args.host else args.host
    url = f"http://{host}:{port}"
    if args.json:
        print(json.dumps({"url": url, "tenant": code and "default", "code": code}), flush=True)
        return
    print(f"listening on {url}", flush=True)
    if code is not None:
        print(
            "enrol the first device of tenant default within a day:\n"
            f"  edge-mrl enroll --server {url} --code {code} --store notes.db",
            flush=True,
        )
    if args.host not in ("127.0.0.1", "localhost", "::1"):
        print(
            "edge-mrl: warning: this address can be reached from elsewhere and speaks no TLS: "
            "put a proxy before it (docs/server.md)",
            file=sys.stderr,
        )
