"""What an export says first: the answers, then what to type next, then how it was made."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.bundle.manifest import read_manifest
from edge_mrl_export.build import Export
from edge_mrl_export.bundle.gates import GATES, Fidelity
from edge_mrl_export.bundle.report import answer_rows, next_commands, report_data, report_html
from edge_mrl_export.bundle.speed import Speed
from edge_mrl_export.cli.export import _text
from tests.support.bundles import TINY

FIDELITY = Fidelity(64, 0.99912, 0.99534, 0.998, 0.991, 1.0, 1.0)
FACTS: dict[str, Any] = {
    "fidelity": {
        name: getattr(FIDELITY, name)
        for name in ("texts", "cosine_mean", "cosine_min", "code_cosine_mean")
    }
    | {"code_cosine_min": 0.991, "padded_min": 1.0, "mixed_min": 1.0},
    "gates": {"enforced": True, **GATES},
    "baked": ["mean pooling"],
    "head": {"kind": "rotation", "why": "best on held-out text"},
    "quality_by_dimension": {
        "dims": [8, 16],
        "kept": {"prefix": [0.5, 0.7], "rotation": [0.6, 0.92]},
        "measured": "share for 90 held-out passages",
    },
    "code": {
        "stored": "int8",
        "bytes": 16,
        "kept": 0.9197,
        "measured": "share for 90 held-out passages",
    },
    "vocabulary": {"source_tokens": 100, "tokens": 90},
    "sizes_bytes": {"model.onnx": 2_000, "model.onnx.data": 1_500_000, "tokenizer.json": 98_000},
    "weights_elsewhere": {"parameters": 10, "fp32": 40, "fp16": 20, "stock_int8": 10},
    "notes": ["ten tokens were left out"],
}


def report(**changes: Any) -> dict[str, Any]:
    facts = copy.deepcopy(FACTS) | changes
    return report_data(read_manifest(TINY), facts)


def test_answers_are_size_fidelity_quality_and_bytes() -> None:
    rows = dict(answer_rows(report()))
    assert list(rows) == ["size", "fidelity", "quality", "passage"]
    assert rows["size"] == "1.6 MB on disk"
    assert "0.9991 on average, 0.9953 at the least" in rows["fidelity"]
    assert "gates 0.998 and 0.99: passed" in rows["fidelity"]
    assert rows["quality"].startswith(
        "92.0% of the full vectors' quality is kept, on held-out text"
    )
    assert rows["passage"] == "16 bytes in a store: 16 dimensions, int8"


def test_answers_say_what_was_not_enforced_or_not_measured() -> None:
    loose = answer_rows(report(gates={"enforced": False, **GATES}))
    assert "gates not enforced" in dict(loose)["fidelity"]
    assert "passed" not in dict(loose)["fidelity"]
    unknown = {**FACTS["code"], "kept": None}
    assert "quality" not in dict(answer_rows(report(code=unknown)))
    sample = {**FACTS["code"], "measured": "share for 64 texts among themselves"}
    found = dict(answer_rows(report(code=sample)))["quality"]
    assert found == "92.0% of each text's nearest others are found again, on sample text"


def test_commands_name_the_bundle_and_can_be_pasted() -> None:
    commands = next_commands("/home/me/my notes/b")
    assert [line.split()[1] for line in commands] == ["verify", "index", "search"]
    assert "--bundle '/home/me/my notes/b' " in commands[1]
    assert all("--store notes.db" in line for line in commands[1:])


def test_page_opens_with_the_answers() -> None:
    page = report_html(report())
    order = [
        "<td>Size</td>",
        "<td>Fidelity</td>",
        "<td>Retrieval quality</td>",
        "<td>Each passage</td>",
        "What to type next",
        "edge-mrl index notes/ --bundle BUNDLE",
        "How close it is to the source",
        "Quality by dimension",
        "What is in the graph",
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)
    assert "Note: ten tokens were left out." in page


def test_printed_summary_opens_with_the_answers(tmp_path: Path) -> None:
    speed = Speed(2.5, 410.0, 64, 2)
    manifest = read_manifest(TINY)
    made = Export(tmp_path / "b", manifest, FIDELITY, report(), speed, {"load": 1.5, "write": 2.0})
    lines = _text(made).splitlines()
    assert [line.split()[0] for line in lines[:7]] == [
        "bundle",
        "size",
        "fidelity",
        "quality",
        "passage",
        "speed",
        "note",
    ]
    assert "2.5 ms for a query, 410 documents/s" in lines[5]
    text = "\n".join(lines)
    assert text.index("next steps:") < text.index("how it was made:")
    assert f"edge-mrl verify {tmp_path / 'b'}" in text
    assert "3.5 s" in text.split("how it was made:")[1]


@pytest.mark.parametrize("threads", [1, 4])
def test_speed_counts_threads(threads: int) -> None:
    text = replace(Speed(1, 1, 1, 1), threads=threads).text()
    assert text.endswith("1 thread)" if threads == 1 else "4 threads)")
