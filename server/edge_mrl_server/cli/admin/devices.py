"""``edge-mrl admin devices`` and ``tokens``: devices, and what they identify themselves with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edge_mrl_server.cli.admin.common import Actions, Outcome, Subjects

if TYPE_CHECKING:
    from edge_mrl_server.storage import Database

__all__ = ["ACTIONS", "add"]


def add(subjects: Subjects) -> None:
    """Describe the nouns' arguments."""
    devices = subjects.add("devices", "devices that a tenant has enrolled")
    devices("list", "list a tenant's devices, and how many documents each is behind")
    remove = devices("remove", "forget a device and its tokens; its documents stay")
    remove.add_argument("device", metavar="DEVICE", help="id of the device")
    tokens = subjects.add("tokens", "secrets that devices identify themselves with")
    revoke = tokens("revoke", "revoke a device's tokens for good")
    revoke.add_argument(
        "device", metavar="DEVICE", help="id of the device, as `admin devices list` shows it"
    )


def _list_devices(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts

    with database.read() as transaction:
        devices = accounts.list_devices(transaction, args.tenant)
    lines = []
    for device in devices:
        device["read_only"] = bool(device["read_only"])
        seen = max(device["pushed_ms"] or 0, device["pulled_ms"] or 0)
        name = "".join(c if c.isprintable() else "?" for c in device["name"])
        lines.append(f"{device['device']}  {name:<20} seen {_time(seen)}  {_said(device)}")
    return 0, {"tenant": args.tenant, "devices": devices}, lines or ["no devices"]


def _said(device: Mapping[str, Any]) -> str:
    """What an operator should know of a device."""
    notes = [_state(device)]
    if device["read_only"]:
        notes.append("read-only")
    if device["cloned_ms"]:
        notes.append(f"its store was copied (seen {_time(device['cloned_ms'])})")
    if device["doubts"]:
        notes.append(f"said {device['doubts']} times without proof that the server was restored")
    return "; ".join(notes)


def _state(device: Mapping[str, Any]) -> str:
    from edge_mrl_server.storage import accounts

    if device["revoked_ms"]:
        return "revoked"
    if device["pulled_ms"] is None:
        return "has never pulled"
    if device["anew"]:
        return "pulls everything when it comes back"
    if not device["behind"]:
        return "in sync"
    plus = "+" if device["behind"] >= accounts.MOST_BEHIND else ""
    return f"{device['behind']:,}{plus} documents behind"


def _revoke(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts

    with database.write() as transaction:
        done = accounts.revoke(transaction, args.tenant, args.device)
    result = {"tenant": args.tenant, "device": args.device, "revoked": done}
    words = "revoked" if done else "no such device, or it was revoked before"
    return 0 if done else 1, result, [f"{args.device}: {words}"]


def _time(ms: int) -> str:
    if not ms:
        return "never"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")


def _remove(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import removal

    with database.write() as transaction:
        done = removal.remove_device(transaction, args.tenant, args.device)
    result = {"tenant": args.tenant, "device": args.device, "removed": done}
    words = "removed; its documents stay" if done else "no such device"
    return 0 if done else 1, result, [f"{args.device}: {words}"]


ACTIONS: Actions = {
    ("devices", "remove"): _remove,
    ("devices", "list"): _list_devices,
    ("tokens", "revoke"): _revoke,
}
