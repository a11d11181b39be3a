"""``edge-mrl admin``: tenants, invitations, devices and tombstones of a server's database."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl_server.storage import Database

__all__ = ["HELP", "add_arguments", "run"]

HELP = "manage a server's tenants, devices and tokens"
DAY_MS = 86_400_000
_EPILOG = """\
examples:
  edge-mrl admin tenants create acme
  edge-mrl admin tenants limit acme documents=1000000 devices=50
  edge-mrl admin invitations create acme --hours 2
  edge-mrl admin devices list acme
  edge-mrl admin tokens revoke acme 1f0c9a7be2d4c853
  edge-mrl admin purge acme --days 90
  edge-mrl admin restored
  edge-mrl admin index create --database postgresql://edge@db.example/edge

exit codes: 0 done, 1 there was no device to revoke, 2 wrong usage or database, 3 a missing package,
            4 the database cannot be reached
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    subjects = _Subjects(parser)
    _add_tenants(subjects)
    _add_devices(subjects)
    purge = subjects.alone("purge", "forget that documents were deleted long ago")
    purge.add_argument("tenant", metavar="TENANT", help="name of the tenant")
    purge.add_argument(
        "--days",
        type=float,
        required=True,
        metavar="N",
        help="forget deletions that are older than N days",
    )
    subjects.alone(
        "restored",
        "tell the server that its database was restored from a copy: devices send what it lacks",
    )
    index = subjects.add("index", "PostgreSQL's index over vectors, for tenants with many of them")
    index("create", "make the index (takes minutes; devices can go on)", tenant=False)
    index("drop", "drop the index", tenant=False)


class _Verb(Protocol):
    def __call__(self, name: str, text: str, *, tenant: bool = True) -> argparse.ArgumentParser: ...


class _Subjects:
    """What can be administered, and what can be done with it; each takes the options of all."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument(
            "--database",
            default="edge-mrl-server.db",
            metavar="FILE|URL",
            help="SQLite file, or postgresql://... (default: edge-mrl-server.db)",
        )
        self._common.add_argument(
            "--json", action="store_true", help="print one JSON object instead of text"
        )

    def alone(self, name: str, text: str) -> argparse.ArgumentParser:
        """A subject without verbs."""
        return self._subjects.add_parser(name, help=text, parents=[self._common])

    def add(self, name: str, text: str | None) -> _Verb:
        """A subject, listed if it has a text; returns what adds a verb to it."""
        made = (
            self._subjects.add_parser(name, help=text) if text else self._subjects.add_parser(name)
        )
        verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")

        def verb(name: str, text: str, *, tenant: bool = True) -> argparse.ArgumentParser:
            parser = verbs.add_parser(name, help=text, parents=[self._common])
            if tenant:
                parser.add_argument("tenant", metavar="TENANT", help="name of the tenant")
            return parser

        return verb


def _add_tenants(subjects: _Subjects) -> None:
    tenants = subjects.add("tenants", "groups of devices that share documents")
    tenants("list", "list all tenants", tenant=False)
    tenants("create", "make a tenant")
    limit = tenants("limit", "limit a tenant's documents, devices or requests")
    limit.add_argument(
        "limits",
        nargs="+",
        metavar="NAME=N",
        help="documents, devices, device_requests_per_s or tenant_requests_per_s; NAME= for no limit",
    )


def _add_devices(subjects: _Subjects) -> None:
    # The old name goes with the next minor version. Without a help text it is not listed.
    for name, text in (
        ("invitations", "one-time secrets that enroll devices"),
        ("codes", None),
    ):
        invitation = subjects.add(name, text)(
            "create", "make an invitation for one device; it is shown once"
        )
        invitation.add_argument(
            "--hours",
            type=float,
            default=24.0,
            metavar="N",
            help="hours for which it is valid (default: 24)",
        )
    devices = subjects.add("devices", "devices that a tenant has enrolled")
    devices("list", "list a tenant's devices, and how many changes they are behind")
    tokens = subjects.add("tokens", "secrets that devices identify themselves with")
    revoke = tokens("revoke", "revoke a device's tokens for good")
    revoke.add_argument(
        "device", metavar="DEVICE", help="id of the device, as `admin devices list` shows it"
    )


def run(args: argparse.Namespace) -> int:
    """Run one action on the database, and print its result."""
    from edge_mrl.cli import print_json
    from edge_mrl_server.storage import open_database

    if args.subject == "codes":
        print(
            "edge-mrl: warning: `admin codes` is called `admin invitations` now; the old name goes with "
            "the next minor version",
            file=sys.stderr,
        )
    action = _ACTIONS[args.subject, getattr(args, "verb", None)]
    with open_database(args.database, connections=1) as database:
        code, result, lines = action(database, args)
    if args.json:
        print_json(result)
    else:
        print("\n".join(lines))
    return code


Outcome = tuple[int, dict[str, Any], list[str]]


def _list_tenants(database: Database, args: argparse.Namespace) -> Outcome:  # noqa: ARG001
    from dataclasses import asdict

    from edge_mrl_server.storage import accounts

    with database.read() as transaction:
        tenants = accounts.list_tenants(transaction)
    lines = [
        f"{t.name:<20} {t.documents:>12,} documents {t.passages:>12,} passages  change {t.change:,}"
        + (f"  limits {t.limits}" if t.limits != "{}" else "")
        for t in tenants
    ]
    return 0, {"tenants": [asdict(tenant) for tenant in tenants]}, lines or ["no tenants"]


def _create_tenant(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts

    with database.write() as transaction:
        accounts.create_tenant(transaction, args.tenant)
    return 0, {"tenant": args.tenant}, [f"made tenant {args.tenant}"]


def _limit_tenant(database: Database, args: argparse.Namespace) -> Outcome:
    import json

    from edge_mrl_server.storage import accounts

    limits: dict[str, float | None] = {}
    for text in args.limits:
        name, equals, value = text.partition("=")
        try:
            limits[name] = float(value) if value else None
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(f"{text!r}: expected NAME=N, or NAME= for no limit")
    with database.write() as transaction:
        tenant = accounts.set_limits(transaction, args.tenant, limits)
    now = json.loads(tenant.limits)
    text = ", ".join(f"{name}={value:.15g}" for name, value in now.items())
    return 0, {"tenant": tenant.name, "limits": now}, [f"limits of {tenant.name}: {text or 'none'}"]


def _create_invitation(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts

    if not 0 < args.hours <= 24 * 365:
        raise UsageError(f"--hours {args.hours}: expected more than 0, and at most a year (8760)")
    with database.write() as transaction:
        life_ms = int(args.hours * 3_600_000)
        invitation = accounts.create_invitation(transaction, args.tenant, life_ms=life_ms)
    lines = [
        invitation,
        f"  edge-mrl enroll --server URL --invitation {invitation} --store notes.db",
    ]
    # "code" is its old name, which goes with the next minor version.
    return 0, {"tenant": args.tenant, "invitation": invitation, "code": invitation}, lines


def _list_devices(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts

    with database.read() as transaction:
        tenant = accounts.require_tenant(transaction, args.tenant)
        devices = accounts.list_devices(transaction, args.tenant)
    lines = []
    for device in devices:
        device["behind"] = tenant.change - device["pulled"]
        state = "revoked" if device["revoked_ms"] else f"{device['behind']:,} changes behind"
        seen = max(device["pushed_ms"] or 0, device["pulled_ms"] or 0)
        name = "".join(c if c.isprintable() else "?" for c in device["name"])
        lines.append(f"{device['device']}  {name:<20} seen {_time(seen)}  {state}")
    return 0, {"tenant": args.tenant, "devices": devices}, lines or ["no devices"]


def _revoke(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts

    with database.write() as transaction:
        done = accounts.revoke(transaction, args.tenant, args.device)
    result = {"tenant": args.tenant, "device": args.device, "revoked": done}
    words = "revoked" if done else "no such device, or it was revoked before"
    return 0 if done else 1, result, [f"{args.device}: {words}"]


def _purge(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl.wire import now_ms
    from edge_mrl_server.storage import purge

    if not args.days >= 0:
        raise UsageError(f"--days {args.days}: expected 0 or more")
    before = now_ms() - int(args.days * DAY_MS)
    count, fence = purge(database, args.tenant, before_ms=before)
    result = {"tenant": args.tenant, "forgotten": count, "fence": fence}
    return 0, result, [f"{count:,} tombstones forgotten; fence {fence:,}"]


def _restored(database: Database, args: argparse.Namespace) -> Outcome:  # noqa: ARG001
    from edge_mrl_server.storage import accounts

    with database.write() as transaction:
        count = accounts.renew_epochs(transaction)
    words = (
        f"{count:,} tenants: each device will pull everything once, and send what the server lacks"
    )
    return 0, {"tenants": count}, [words]


def _index(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import PostgresDatabase

    if not isinstance(database, PostgresDatabase):
        raise UsageError(
            "SQLite has no such index: the server keeps one bit of each dimension in memory instead"
        )
    if args.verb == "create":
        database.make_index()
    else:
        database.drop_index()
    return 0, {"index": args.verb}, [f"index: {args.verb} done"]


_ACTIONS = {
    ("tenants", "list"): _list_tenants,
    ("tenants", "create"): _create_tenant,
    ("tenants", "limit"): _limit_tenant,
    ("invitations", "create"): _create_invitation,
    ("codes", "create"): _create_invitation,
    ("devices", "list"): _list_devices,
    ("tokens", "revoke"): _revoke,
    ("purge", None): _purge,
    ("restored", None): _restored,
    ("index", "create"): _index,
    ("index", "drop"): _index,
}


def _time(ms: int) -> str:
    if not ms:
        return "never"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
