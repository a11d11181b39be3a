"""Findings: what a health check saw, how bad it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LEVELS", "Diagnosis", "Finding"]

#: From best to worst. Only "problem" means that something does not work.
LEVELS = ("good", "note", "unknown", "warning", "problem")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: What was checked, in a word or two.
        level: One of LEVELS.
        text: What was seen.
        advice: What to do; empty if nothing needs to be done.
    """

    subject: str
    level: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The results of all checks.

    Attributes:
        findings: The findings, in the order of the checks.
        figures: Measured values by name, with their units in the names.
    """

    findings: tuple[Finding, ...]
    figures: dict[str, float]

    @property
    def healthy(self) -> bool:
        """Whether no finding is a problem; warnings do not count."""
        return all(finding.level != "problem" for finding in self.findings)
