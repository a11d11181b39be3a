"""Checks of the packages that edge-mrl needs, each loaded in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

from edge_mrl.diagnose import probe
from edge_mrl.diagnose.findings import Finding
from edge_mrl.errors import EdgeMrlError, reason
from edge_mrl.machine import Requirement, facts
from edge_mrl.store import full_text_problem

__all__ = ["check_packages", "check_reports", "check_sqlite", "import_problems"]


def import_problems() -> dict[str, str | None]:
    """For each package, why it cannot be loaded, or None; each is tried in a process of its own."""
    return {name: _import_problem(name) for name in facts.PACKAGES}


def _import_problem(name: str) -> str | None:
    try:
        found: str | None = probe.run_step("load", {"name": name})
    except EdgeMrlError as error:
        return reason(error)
    return found


def check_packages(
    requirements: list[Requirement] | None, problems: dict[str, str | None]
) -> Iterator[Finding]:
    """Whether the packages that edge-mrl needs are installed, new enough, and can be loaded here.

    Args:
        requirements: The packages, with the versions that are needed; None if edge-mrl is not installed.
        problems: For each package, why it cannot be loaded, or None.
    """
    needed = requirements
    if needed is None:
        yield Finding(
            "packages",
            "unknown",
            "edge-mrl runs from a folder and is not installed, so the versions that it needs are unknown",
        )
        needed = [Requirement(name, None, version) for name, version in facts.versions().items()]
    for package in needed:
        least = f" (at least {package.minimum})" if package.minimum else ""
        line = f'pip install "{package.name}{f">={package.minimum}" if package.minimum else ""}"'
        problem = problems.get(package.name)
        if package.installed is None:
            yield Finding("packages", "problem", f"{package.name}{least} is not installed", line)
        elif not package.met:
            text = f"{package.name} {package.installed} is too old{least}"
            yield Finding("packages", "problem", text, line)
        elif problem is not None:
            text = f"{package.name} {package.installed} cannot be loaded: {problem}"
            yield Finding("packages", "problem", text, "install another version of it")
        else:
            yield Finding("packages", "good", f"{package.name} {package.installed}{least}")


def check_sqlite() -> Iterator[Finding]:
    """Whether Python's SQLite has all that a store needs."""
    try:
        import sqlite3
    except ImportError as error:
        text = f"this Python has no sqlite3 ({reason(error)})"
        yield Finding("SQLite", "problem", text, "use a Python with sqlite3")
        return
    version, problem = sqlite3.sqlite_version, full_text_problem()
    if problem is None:
        yield Finding("SQLite", "good", f"{version} with FTS5")
    else:
        text = f"{version} has no FTS5 ({problem}): stores cannot be created"
        yield Finding("SQLite", "problem", text, "use a Python whose SQLite has FTS5")


def check_reports() -> Iterator[Finding]:
    """Whether ONNX Runtime sends reports of its use to its maker."""
    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        yield Finding("reports", "good", "ONNX Runtime's usage reports are switched off")
    else:
        yield Finding(
            "reports",
            "note",
            "ONNX Runtime's usage reports are not switched off here",
            "unset ORT_DISABLE_TELEMETRY, and edge-mrl switches them off",
        )
