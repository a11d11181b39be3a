"""Writing a bundle: files, golden vectors, gates and report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_export.bundle.files import (
        check_output,
        file_entries,
        publish,
        staging,
        write_graph,
        write_head,
        write_json,
    )
    from edge_mrl_export.bundle.gates import GATES, Fidelity, check_gates, measure, reaches_gates
    from edge_mrl_export.bundle.golden import GOLDEN_TEXTS, golden_vectors
    from edge_mrl_export.bundle.report import answer_rows, next_commands, report_data, report_html
    from edge_mrl_export.bundle.sizes import usual_sizes
    from edge_mrl_export.bundle.speed import Speed, measure_speed

__all__ = [
    "GATES",
    "GOLDEN_TEXTS",
    "Fidelity",
    "Speed",
    "answer_rows",
    "check_gates",
    "check_output",
    "file_entries",
    "golden_vectors",
    "measure",
    "measure_speed",
    "next_commands",
    "publish",
    "reaches_gates",
    "report_data",
    "report_html",
    "staging",
    "usual_sizes",
    "write_graph",
    "write_head",
    "write_json",
]

__getattr__ = lazily(
    __name__,
    {
        "gates": ("GATES", "Fidelity", "check_gates", "measure", "reaches_gates"),
        "golden": ("GOLDEN_TEXTS", "golden_vectors"),
        "report": ("answer_rows", "next_commands", "report_data", "report_html"),
        "sizes": ("usual_sizes",),
        "speed": ("Speed", "measure_speed"),
        "files": (
            "check_output",
            "file_entries",
            "publish",
            "staging",
            "write_graph",
            "write_head",
            "write_json",
        ),
    },
)
