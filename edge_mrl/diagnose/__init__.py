"""Health checks and benchmarks of a bundle and a store on this machine."""

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
    from edge_mrl.diagnose.doctor import Subjects, diagnose
    from edge_mrl.diagnose.findings import Diagnosis, Finding
    from edge_mrl.diagnose.samples import Sample, built_in_sample, sample_of_file

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
    "built_in_sample",
    "compare",
    "diagnose",
    "differences",
    "measure",
    "parse_report",
    "sample_of_file",
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
        "doctor": ("Subjects", "diagnose"),
        "findings": ("Diagnosis", "Finding"),
        "samples": ("Sample", "built_in_sample", "sample_of_file"),
    },
)
