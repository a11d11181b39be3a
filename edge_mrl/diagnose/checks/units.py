"""The systemd units that index and sync in the background, where a machine has them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from edge_mrl.diagnose.findings import Finding
from edge_mrl.errors import ServerError

__all__ = ["check_units"]

#: As packaging/systemd names them.
PATTERN = "edge-mrl-*"
TIMEOUT_S = 20.0
_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
)
#: What the exit codes of a unit's command mean (docs/cli.md).
_MEANINGS = {
    1: "a check stopped it",
    2: "it is not enrolled, or its store or bundle cannot be used",
    3: "a package is missing",
    4: "the network or a server failed",
    ServerError.refused_exit_code: "its server refuses it until a person changes something",
}


def check_units() -> Iterator[Finding]:
    """Whether the units that this machine has are well; nothing where there is no systemd, or none."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return
    for unit in _units(systemctl):
        yield _finding(unit)


def _units(systemctl: str) -> list[dict[str, str]]:
    """Properties of each unit that is loaded, by their names."""
    listed = _call([systemctl, "list-units", "--all", "--plain", "--no-legend", "--full", PATTERN])
    names = [line.split()[0] for line in listed.splitlines() if line.split()]
    if not names:
        return []
    shown = _call([systemctl, "show", f"--property={','.join(_PROPERTIES)}", *names])
    blocks = (block.splitlines() for block in shown.strip().split("\n\n"))
    return [dict(line.split("=", 1) for line in block if "=" in line) for block in blocks]


def _call(command: list[str]) -> str:
    """What systemctl prints; nothing where systemd does not run, as in a container."""
    try:
        done = subprocess.run(  # noqa: S603 - systemctl, with our own words
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _finding(unit: dict[str, str]) -> Finding:
    name, state = unit.get("Id", "?"), unit.get("ActiveState", "")
    log = f"`sudo journalctl -u {name} -e` says why"
    code = int(unit["ExecMainStatus"]) if unit.get("ExecMainStatus", "").isdecimal() else 0
    ended = (
        f"exit code {code}: {_MEANINGS.get(code, 'unknown')}" if code else unit.get("Result", "")
    )
    restarts = unit.get("NRestarts", "0")
    if state == "failed":
        again = f"then `sudo systemctl restart {name}`"
        return Finding("units", "problem", f"{name} has failed ({ended})", f"{log}; {again}")
    if unit.get("SubState") == "auto-restart":
        text = f"{name} ends and is started again ({ended}; {restarts} times so far)"
        return Finding("units", "problem", text, log)
    if name.endswith(".timer") and state != "active":
        advice = f"`sudo systemctl enable --now {name}` starts it"
        return Finding("units", "warning", f"{name} is not running", advice)
    return Finding("units", "good", f"{name}: {state} ({unit.get('SubState', '')})")
