"""``edge-mrl serve``, found by the runtime's command line through its entry point."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from edge_mrl.errors import NetworkError, UsageError

if TYPE_CHECKING:
    from edge_mrl_server.settings import Settings

__all__ = ["DEFAULT_PORT", "HELP", "add_arguments", "run"]

HELP = "run a server that devices sync with"
DEFAULT_PORT = 8077
MAX_WORKERS = 256
#: A SQLite file of up to this size is read before the server listens, a larger one while it serves.
CHECKED_BYTES = 256 << 20
_EPILOG = """\
examples:
  edge-mrl serve                                      SQLite, this machine alone
  edge-mrl serve --host 0.0.0.0 --database /var/lib/edge-mrl/server.db
  edge-mrl serve --database postgresql://edge@db.example/edge

An empty database gets the tenant "default", and an invitation for the first device is printed. Put a
proxy that speaks TLS in front of the server: tokens must not travel unencrypted (docs/server.md).

exit codes: 0 stopped by a signal, 2 wrong usage or database, 3 a missing package,
            4 the database cannot be reached
"""
#: Name, default, unit and meaning.
_LIMITS = (
    ("--device-rate", 100.0, "N", "requests a second from one device"),
    ("--tenant-rate", 2_000.0, "N", "requests a second from all devices of a tenant"),
    ("--failure-rate", 20.0, "N", "requests a second without a valid token from one address"),
    ("--connections", 4_000.0, "N", "open connections; fewer where the system allows fewer files"),
    ("--address-connections", 256.0, "N", "open connections from one address"),
    ("--in-flight-mb", 128.0, "MIB", "requests and answers in memory at once, in MiB"),
    ("--cache-mb", 2_048.0, "MIB", "snapshots on the disk, in MiB"),
    ("--log-rate", 100.0, "N", "lines a second in the log about the requests of a tenant"),
    ("--write-timeout", 20.0, "S", "seconds that a device waits for a commit, standbys included"),
    (
        "--body-timeout",
        20.0,
        "S",
        "seconds without a byte after which a slow client is disconnected",
    ),
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
        "--host",
        default="127.0.0.1",
        metavar="HOST",
        help="address to listen on (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        metavar="N",
        help=f"port to listen on; 0 takes a free one (default: {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--admin-port",
        type=int,
        metavar="N",
        help="port of the operator's page and of /metrics, on 127.0.0.1 only; 0 takes a free one "
        "(default: no such page)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that answer requests; more than one helps with PostgreSQL only (default: 1)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for snapshots (default: a temporary folder)",
    )
    _add_proxies(parser)
    _add_limits(parser.add_argument_group("limits"))
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object when the server is listening"
    )
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")


def _add_proxies(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--behind-proxy",
        action="store_true",
        help="take a client's address from the last entry of X-Forwarded-For, which your proxy sets",
    )
    parser.add_argument(
        "--proxies",
        metavar="LIST",
        help="addresses and networks of your proxies, with commas between: X-Forwarded-For is believed "
        "from them alone, and the limit of connections from one address is not theirs",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    for name, default, unit, text in _LIMITS:
        group.add_argument(
            name,
            type=_positive,
            default=default,
            metavar=unit,
            help=f"{text} (default: {default:g})",
        )
    group.add_argument(
        "--grace-days",
        type=_not_negative,
        default=365.0,
        metavar="N",
        help="days after its last contact in which a device may renew a token that has expired; 0: never "
        "(default: 365)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    # Before numpy is loaded: its products are small here, and the threads belong to requests.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _check(args)
    # Until there are requests to finish, a signal ends this at once, and in order.
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, _leave)
    with tempfile.TemporaryDirectory(prefix="edge-mrl-metrics-") as folder:
        # Read when prometheus_client is loaded: all processes count into files of this folder.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        return _run(args)


def _check(args: argparse.Namespace) -> None:
    for name, port in (("--port", args.port), ("--admin-port", args.admin_port or 0)):
        if not 0 <= port < 65_536:
            raise UsageError(f"{name} {port}: expected 0 to 65535")
    if not 1 <= args.workers <= MAX_WORKERS:
        raise UsageError(f"--workers {args.workers}: expected 1 to {MAX_WORKERS}")
    _check_proxies(args)
    if not hasattr(os, "fork") and (args.workers > 1 or args.admin_port is not None):
        raise UsageError("--workers and --admin-port need Linux or macOS")


def _check_proxies(args: argparse.Namespace) -> None:
    if not args.proxies:
        return
    from edge_mrl_server.http import Proxies

    try:
        Proxies(args.proxies.split(","))
    except ValueError as error:
        raise UsageError(f"--proxies: {error}; expected 10.0.0.1 or 10.0.0.0/8") from error


def _leave(sign: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise SystemExit(0)


def _run(args: argparse.Namespace) -> int:
    from prometheus_client import multiprocess

    from edge_mrl_server.logs import configure
    from edge_mrl_server.process import listen, serve_devices, serve_operator, supervise
    from edge_mrl_server.storage import hold_database

    configure(quiet=args.quiet)
    settings = _settings(args)
    with ExitStack() as stack:
        stack.enter_context(hold_database(args.database))
        invitation, checked = _open_first(args.database)
        try:
            sock = stack.enter_context(listen(args.host, args.port, patience_s=args.body_timeout))
            own = None
            if args.admin_port is not None:
                own = stack.enter_context(listen("127.0.0.1", args.admin_port))
        except OSError as error:
            raise NetworkError(f"cannot listen: {error.strerror or error}") from error
        _announce(args, sock.getsockname()[1], own.getsockname()[1] if own else None, invitation)
        jobs = [partial(serve_devices, settings, sock)] * args.workers
        if not checked:
            jobs[0] = partial(serve_devices, settings, sock, check=True)
        if own is not None:
            jobs.append(partial(serve_operator, settings, own))
        if len(jobs) == 1:
            jobs[0]()
        else:
            supervise(jobs, on_end=multiprocess.mark_process_dead)
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from edge_mrl_server.settings import Settings

    return Settings(
        database=args.database,
        cache=args.cache,
        cache_bytes=int(args.cache_mb * (1 << 20)) // args.workers,
        device_rate=args.device_rate,
        tenant_rate=args.tenant_rate,
        in_flight_bytes=int(args.in_flight_mb * (1 << 20)),
        body_timeout_s=args.body_timeout,
        write_timeout_s=args.write_timeout,
        failure_rate=args.failure_rate,
        grace_days=args.grace_days,
        proxies=tuple(args.proxies.split(",")) if args.proxies else ("*",) * args.behind_proxy,
        connections=int(args.connections),
        address_connections=int(args.address_connections),
        log_rate=args.log_rate,
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError(text)
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise ValueError(text)
    return value


def _open_first(url: str) -> tuple[str | None, bool]:
    """Make or migrate the database, and check it if that takes no more than some seconds.

    Returns:
        An invitation if it had no tenant yet, and whether it was checked.
    """
    from edge_mrl_server.logs import LOGGER
    from edge_mrl_server.storage import accounts, clock_behind_ms, open_database

    with open_database(url, connections=1) as database:
        checked = database.check(most_bytes=CHECKED_BYTES)
        behind_ms = clock_behind_ms(database)
        if behind_ms:
            LOGGER.warning("clock behind", extra={"fields": {"seconds": behind_ms // 1000}})
        with database.read() as transaction:
            if accounts.list_tenants(transaction, limit=1):
                return None, checked
        with database.write() as transaction:
            # Several servers may start at once: one of them makes it.
            if not accounts.ensure_tenant(transaction, "default"):
                return None, checked
            return accounts.create_invitation(transaction, "default"), checked


def _announce(
    args: argparse.Namespace, port: int, admin_port: int | None, invitation: str | None
) -> None:
    host = f"[{args.host}]" if ":" in args.host else args.host
    url = f"http://{host}:{port}"
    page = f"http://127.0.0.1:{admin_port}" if admin_port else None
    if args.json:
        said = {
            "url": url,
            "admin_url": page,
            "tenant": invitation and "default",
            "invitation": invitation,
            "code": invitation,  # its old name, which goes with the next minor version
        }
        print(json.dumps(said), flush=True)
        return
    print(f"listening on {url}", flush=True)
    if page is not None:
        print(f"operator's page on {page}, for this machine only", flush=True)
    if invitation is not None:
        everywhere = args.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on
        address = f"http://127.0.0.1:{port}" if everywhere else url
        print(
            "this enrolls the first device of the tenant default, within a day:\n"
            f"  edge-mrl enroll --server {address} --invitation {invitation} --store notes.db",
            flush=True,
        )
        if everywhere:
            print(
                "that is for this machine; for others name your proxy, as https://NAME "
                "(or, for a try in a network of your own, http://ADDRESS:PORT with --insecure)",
                flush=True,
            )
    if args.host not in ("127.0.0.1", "localhost", "::1"):
        print(
            "edge-mrl: warning: other machines can reach this address, and it speaks no TLS: "
            "put a proxy that does in front of it (docs/server.md)",
            file=sys.stderr,
        )
