"""``edge-mrl admin tenants``: groups of devices that share documents."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_mrl.errors import UsageError
from edge_mrl_server.cli.admin.common import Actions, Outcome, Subjects

if TYPE_CHECKING:
    from edge_mrl_server.storage import Database

__all__ = ["ACTIONS", "add"]


def add(subjects: Subjects) -> None:
    """Describe the noun's arguments."""
    tenants = subjects.add("tenants", "groups of devices that share documents")
    tenants("list", "list all tenants", tenant=False)
    tenants("create", "make a tenant")
    limit = tenants("limit", "limit a tenant's documents, devices or requests")
    limit.add_argument(
        "limits",
        nargs="+",
        metavar="NAME=N",
        help="documents, devices, device_requests_per_s, tenant_requests_per_s, or grace_days (days "
        "after its last contact in which a device may renew an expired token); NAME= for no limit",
    )
    delete = tenants("delete", "delete a tenant with all its documents and devices, for good")
    delete.add_argument("--yes", action="store_true", help="really delete it")
    tenants("reset", "let a tenant without documents take vectors of another space")
    restamp = subjects.alone(
        "restamp", "bring stamps that are ahead of this machine's clock back to it"
    )
    restamp.add_argument("tenant", metavar="TENANT", help="name of the tenant")
    restamp.add_argument(
        "--dry-run", action="store_true", help="say what would be changed, and change nothing"
    )


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


def _delete_tenant(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts, removal

    with database.read() as transaction:
        tenant = accounts.require_tenant(transaction, args.tenant)
        devices = len(accounts.list_devices(transaction, args.tenant))
    if not args.yes:
        raise UsageError(
            f"tenant {tenant.name} has {tenant.documents:,} documents and {devices:,} devices: pass "
            "--yes to delete them for good"
        )
    count = removal.delete_tenant(database, args.tenant)
    result = {"tenant": args.tenant, "documents": count, "devices": devices}
    return 0, result, [f"deleted tenant {args.tenant}: {count:,} documents, {devices:,} devices"]


def _reset_tenant(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import removal

    with database.write() as transaction:
        space = removal.reset_space(transaction, args.tenant)
    words = f"was bound to space {space[:12]}" if space else "was bound to no space"
    return 0, {"tenant": args.tenant, "space": space}, [f"{args.tenant} {words}, and is free now"]


def _restamp(database: Database, args: argparse.Namespace) -> Outcome:
    from dataclasses import asdict
    from datetime import UTC, datetime

    from edge_mrl_server.storage import restamp

    done = restamp(database, args.tenant, dry_run=args.dry_run)
    result = {"tenant": args.tenant, "dry_run": args.dry_run, **asdict(done)}
    if not done.documents and done.before_ms == done.after_ms:
        return 0, result, [f"{args.tenant}: no stamp is more than five minutes ahead of this clock"]
    before, after = (
        datetime.fromtimestamp(min(ms, 253_402_300_799_000) / 1000, UTC).isoformat(" ", "seconds")
        for ms in (done.before_ms, done.after_ms)
    )
    verb = "would be" if args.dry_run else "were"
    lines = [f"{done.documents:,} versions {verb} restamped: the newest from {before} to {after}"]
    if not args.dry_run:
        lines.append("each device will pull everything once")
    return 0, result, lines


ACTIONS: Actions = {
    ("restamp", None): _restamp,
    ("tenants", "delete"): _delete_tenant,
    ("tenants", "reset"): _reset_tenant,
    ("tenants", "list"): _list_tenants,
    ("tenants", "create"): _create_tenant,
    ("tenants", "limit"): _limit_tenant,
}
