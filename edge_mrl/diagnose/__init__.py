"""What this machine does with a bundle and a store: health checks and measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.diagnose.bench import (
        ROUNDS,
        STEPS,
        Change,
        Figure,
        Report,
        Setup,
        compare,
        differences,
        measure,
        parse_report,
    )
    from edge_mrl.diagnose.doctor import Diagnosis, Finding, Subjects, diagnose
    from edge_mrl.diagnose.samples import Sample, built_in, own

__all__ = [
    "ROUNDS",
    "STEPS",
    "Change",
    "Diagnosis",
    "Figure",
    "Finding",
    "Report",
    "Sample",
    "Setup",
    "Subjects",
    "built_in",
    "compare",
    "diagnose",
    "differences",
    "measure",
    "own",
    "parse_report",
]

__getattr__ = lazily(
    __name__,
    {
        "bench": (
            "ROUNDS",
            "STEPS",
            "Change",
            "Figure",
            "Report",
            "Setup",
            "compare",
            "differences",
            "measure",
            "parse_report",
        ),
        "doctor": ("Diagnosis", "Finding", "Subjects", "diagnose"),
        "samples": ("Sample", "built_in", "own"),
    },
)
