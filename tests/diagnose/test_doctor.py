"""Checks of known facts, and how the doctor puts them together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.bundle.manifest import read_manifest
from edge_mrl.diagnose import doctor, probe
from edge_mrl.diagnose.checks import bundle as bundle_checks
from edge_mrl.diagnose.checks.bundle import check_speed, require_comparable
from edge_mrl.diagnose.checks.machine import (
    check_cpu,
    check_file_system,
    check_memory,
    check_python,
)
from edge_mrl.diagnose.checks.packages import check_packages, import_problems
from edge_mrl.diagnose.checks.store import check_store
from edge_mrl.diagnose.doctor import Subjects, diagnose
from edge_mrl.diagnose.findings import LEVELS, Diagnosis, Finding
from edge_mrl.errors import (
    DamagedError,
    NotAStoreError,
    StepError,
    StoreBusyError,
    StoreError,
    StoreKeyError,
    StoreVersionError,
    UnwritableStoreError,
    UsageError,
)
from edge_mrl.machine.facts import PACKAGES, FileSystem, Memory, Requirement, parse_cpuinfo
from tests.support import cpuinfo
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle

GB = 10**9


def only(findings: Any) -> Finding:
    (finding,) = findings
    return finding


# --- single checks


@pytest.mark.parametrize(
    ("text", "architecture", "level", "words"),
    [
        (cpuinfo.PI_4, "aarch64", "note", "Cortex-A72: asimd; no dot-product instructions"),
        (cpuinfo.PI_5, "aarch64", "good", "Cortex-A76: asimd, asimddp"),
        (cpuinfo.MIXED, "aarch64", "note", "no dot-product"),
        (cpuinfo.NEOVERSE_N2, "aarch64", "good", "i8mm"),
        (cpuinfo.KABY_LAKE, "x86_64", "warning", "no VNNI: 8-bit products saturate"),
        (cpuinfo.CASCADE_LAKE, "x86_64", "good", "avx512_vnni"),
        (cpuinfo.ALDER_LAKE, "x86_64", "good", "avx_vnni"),
        ("", "x86_64", "unknown", "of unknown name; its instructions are unknown"),
        ("", "aarch64", "unknown", "instructions are unknown"),
    ],
)
def test_cpu_is_judged_by_its_instructions(
    text: str, architecture: str, level: str, words: str
) -> None:
    finding = only(check_cpu(parse_cpuinfo(text, architecture)))
    assert finding.level == level
    assert words in finding.text
    assert bool(finding.advice) == (level in ("note", "warning"))


@pytest.mark.parametrize(
    ("text", "architecture", "weights", "products", "level"),
    [
        (cpuinfo.KABY_LAKE, "x86_64", "int8", 4, "warning"),
        (cpuinfo.KABY_LAKE, "x86_64", "uint8", 4, "good"),
        (cpuinfo.KABY_LAKE, "x86_64", "fp32", 0, "good"),
        (cpuinfo.KABY_LAKE, "x86_64", "int8", 0, "good"),  # a table alone
        (cpuinfo.PI_5, "aarch64", "int8", 4, "good"),
        (cpuinfo.PI_5, "aarch64", "uint8", 4, "warning"),
        (cpuinfo.PI_4, "aarch64", "fp32", 0, "good"),
    ],
)
def test_cpu_is_judged_for_the_bundle(
    text: str, architecture: str, weights: str, products: int, level: str
) -> None:
    manifest = read_manifest(TINY)
    precision = dataclasses.replace(manifest.precision, weights=weights, integer_products=products)
    changed = dataclasses.replace(manifest, precision=precision)
    assert only(check_cpu(parse_cpuinfo(text, architecture), changed)).level == level


def test_32_bit_python_is_a_problem_and_large_pages_too() -> None:
    python, pages = check_python(32, 4096)
    assert (python.level, pages.level) == ("problem", "good")
    assert "64-bit" in python.advice
    assert [f.level for f in check_python(64, 16384)] == ["good", "good"]
    assert [f.level for f in check_python(64, 2**17)] == ["good", "problem"]
    assert [f.level for f in check_python(64, None)] == ["good", "unknown"]


@pytest.mark.parametrize(
    ("requirement", "problem", "level", "words"),
    [
        (Requirement("numpy", "2.0", "2.4"), None, "good", "numpy 2.4 (at least 2.0)"),
        (Requirement("numpy", "2.0", "1.26"), None, "problem", "1.26 is too old"),
        (Requirement("numpy", "2.0", None), None, "problem", "is not installed"),
        (Requirement("numpy", "2.0", "2.4"), "killed", "problem", "cannot be loaded: killed"),
    ],
)
def test_packages_are_judged(
    requirement: Requirement, problem: str | None, level: str, words: str
) -> None:
    finding = only(check_packages([requirement], {"numpy": problem}))
    assert finding.level == level
    assert words in finding.text
    if level == "problem" and problem is None:
        assert finding.advice == 'pip install "numpy>=2.0"'


def test_versions_without_an_installation_are_unknown_not_guessed() -> None:
    first, *rest = check_packages(None, {})
    assert first.level == "unknown"
    assert {f.level for f in rest} == {"good"}
    assert all("at least" not in f.text for f in rest)


@pytest.mark.parametrize(
    ("memory", "need", "level"),
    [
        (Memory(4 * GB, 3 * GB, None), None, "good"),
        (Memory(4 * GB, 3 * GB, None), GB, "good"),
        (Memory(GB, 120_000_000, None), 100_000_000, "warning"),
        (Memory(GB, 90_000_000, None), 100_000_000, "problem"),
        (Memory(GB, None, None), 100_000_000, "unknown"),
        (Memory(None, None, None), 100_000_000, "unknown"),
    ],
)
def test_memory_is_judged_by_what_embedding_took(
    memory: Memory, need: int | None, level: str
) -> None:
    finding = only(check_memory(memory, need))
    assert finding.level == level
    assert ("--low-memory" in finding.advice) == (level in ("warning", "problem"))


def test_limit_of_the_process_is_named() -> None:
    finding = only(check_memory(Memory(4 * GB, 3 * GB, GB // 2), None))
    assert "limited to 500 MB" in finding.text


@pytest.mark.parametrize(
    ("place", "written", "level"),
    [
        (FileSystem("ext4", 10 * GB, read_only=False), True, "good"),
        (FileSystem(None, 10 * GB, read_only=False), True, "unknown"),
        (FileSystem("ext4", 100_000_000, read_only=False), True, "warning"),
        (FileSystem("ext4", 1_000_000, read_only=False), True, "problem"),
        (FileSystem("ext4", 1_000_000, read_only=False), False, "good"),  # a bundle is only read
        (FileSystem("squashfs", 0, read_only=True), True, "note"),
        (FileSystem("nfs4", 10 * GB, read_only=False), True, "warning"),
        (FileSystem("tmpfs", 10 * GB, read_only=False), True, "warning"),
    ],
)
def test_disk_is_judged_by_kind_and_room(place: FileSystem, written: bool, level: str) -> None:
    assert only(check_file_system("disk", place, written=written)).level == level


FIGURES = {
    "query_ms": 2.0,
    "documents_per_s": 100.0,
    "against_query_ms": 4.0,
    "against_documents_per_s": 40.0,
    "against_cosine_mean": 0.999,
    "against_cosine_min": 0.99,
}


def test_speed_beside_another_precision() -> None:
    findings = list(check_speed(FIGURES, ("int8", "fp32")))
    assert [f.level for f in findings] == ["good"] * 4
    assert findings[2].text == "int8 is 2.0 times as fast as fp32 for a query, 2.5 for documents"
    slow = {**FIGURES, "against_query_ms": 1.0, "against_documents_per_s": 200.0}
    (warned,) = [f for f in check_speed(slow, ("int8", "fp32")) if f.level == "warning"]
    assert "use it if memory allows" in warned.advice
    wrong = {**FIGURES, "against_cosine_mean": 0.8}
    (problem,) = [f for f in check_speed(wrong, ("int8", "fp32")) if f.level == "problem"]
    assert "use fp32" in problem.advice


# --- steps that are answered by hand


class Steps:
    """Answers of the measuring processes, by step; an exception is raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.jobs: list[tuple[str, dict[str, Any]]] = []
        self.answers = answers
        monkeypatch.setattr(probe, "run_step", self.run)

    def run(self, step: str, job: dict[str, Any]) -> Any:
        self.jobs.append((step, job))
        answer = self.answers[step]
        if isinstance(answer, Exception):
            raise answer
        return answer


VERIFIED = {
    "passed": True,
    "failures": [],
    "files": 4,
    "texts": 30,
    "source_cosine_mean": 0.9991,
    "engine": "onnxruntime",
}
HEALTH: dict[str, Any] = {"problems": [], "documents": 1234, "bundle_problem": None}
GOOD: dict[str, Any] = {
    "load": None,
    "verify": VERIFIED,
    "query": {"ms": [1.0, 2.0, 9.0], "peak_rss": 10},
    "documents": {"per_s": [50.0, 100.0], "peak_rss": 50_000_000},
    "compare": {"mean": 0.999, "min": 0.99},
    "check": HEALTH,
}


def levels(diagnosis: Diagnosis, subject: str) -> list[str]:
    return [f.level for f in diagnosis.findings if f.subject == subject]


@pytest.mark.test
def test_figures_are_medians_of_rounds_in_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = Steps(monkeypatch, **GOOD)
    other = copy_bundle(tmp_path / "other")
    said: list[str] = []
    found = diagnose(Subjects(bundle=TINY, against=other, threads=3), advance=said.append)
    assert found.healthy
    assert found.figures == {
        "query_ms": 2.0,
        "documents_per_s": 75.0,
        "against_query_ms": 2.0,
        "against_documents_per_s": 75.0,
        "against_cosine_mean": 0.999,
        "against_cosine_min": 0.99,
    }
    timed = [job["bundle"] for step, job in steps.jobs if step == "query"]
    assert timed == [str(TINY), str(other)] * bundle_checks.ROUNDS
    assert all(job["threads"] == 3 for step, job in steps.jobs if step in ("query", "documents"))
    assert said[0] == "machine"
    assert said[-1] == "comparing vectors"
    assert "embedding took 50 MB" in only(f for f in found.findings if f.subject == "memory").text


def test_native_kernels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Steps(monkeypatch, **{**GOOD, "verify": {**VERIFIED, "engine": "kernels avx2"}})
    found = diagnose(Subjects(bundle=TINY))
    assert (
        "run by the native kernels avx2"
        in only(f for f in found.findings if f.subject == "bundle" and f.level == "good").text
    )


def test_bundle_that_fails_its_check_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {**VERIFIED, "passed": False, "failures": ["vectors differ", "codes differ"]}
    steps = Steps(monkeypatch, **{**GOOD, "verify": failed})
    found = diagnose(Subjects(bundle=TINY))
    assert levels(found, "bundle") == ["problem", "problem"]
    assert not found.healthy
    assert {step for step, _ in steps.jobs} == {"load", "verify"}
    assert levels(found, "memory") == ["good"]


@pytest.mark.test
def test_process_that_dies_is_a_problem_with_what_was_seen_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Steps(monkeypatch, **{**GOOD, "query": StepError("the step 'query' failed: killed by SIGKILL")})
    found = diagnose(Subjects(bundle=TINY))
    assert levels(found, "bundle") == ["good", "problem"]
    assert levels(found, "memory") == ["good"]
    assert found.figures == {}


def test_broken_package_stops_what_needs_it_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = Steps(monkeypatch, **{**GOOD, "load": StepError("killed by SIGILL")})
    (tmp_path / "s.db").write_bytes(b"x")
    found = diagnose(Subjects(bundle=TINY, store=tmp_path / "s.db"))
    assert levels(found, "packages") == ["problem"] * len(PACKAGES)
    assert (levels(found, "bundle"), levels(found, "store")) == (["unknown"], ["unknown"])
    assert {step for step, _ in steps.jobs} == {"load"}
    assert levels(found, "SQLite") == ["good"]


def test_each_package_is_loaded_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, load="No module named 'x'")
    assert import_problems() == dict.fromkeys(PACKAGES, "No module named 'x'")
    assert [job["name"] for _, job in steps.jobs] == list(PACKAGES)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (HEALTH, [("good", "intact, documents: 1,234")]),
        ({**HEALTH, "problems": ["a", "b"]}, [("problem", "a"), ("problem", "b")]),
        (
            {**HEALTH, "bundle_problem": "it is gone"},
            [("good", "intact, documents: 1,234"), ("problem", "it is gone")],
        ),
        (NotAStoreError("no store"), [("problem", "no store")]),
        (StepError("killed"), [("problem", "killed")]),
    ],
)
def test_store_is_checked(
    answer: Any, expected: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(monkeypatch, check=answer)
    found = list(check_store(Path("s.db"), TINY))
    assert [(f.level, f.text) for f in found] == expected
    assert steps.jobs == [("check", {"store": "s.db", "bundle": str(TINY)})]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (NotAStoreError("no store"), "name the store's own file"),
        (StoreBusyError("busy"), "wait for the other process"),
        (StoreKeyError("encrypted"), "--key-file"),
        (StoreVersionError("newer"), "update edge-mrl"),
        (UnwritableStoreError("full"), "needs room"),
        (DamagedError("damaged"), "copy them elsewhere first"),
        (StoreError("disk I/O error"), "copy them elsewhere first"),
    ],
)
def test_advice_about_a_store_follows_from_the_cause_and_costs_nothing(
    error: StoreError, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Steps(monkeypatch, check=error)
    found = only(check_store(Path("s.db"), TINY))
    assert advice in found.advice
    # A store holds what was not sent yet, and what other devices wrote.
    assert not any(word in found.advice for word in ("restore", "delete", "again"))


def test_bundles_without_common_vectors_cannot_be_compared() -> None:
    manifest = read_manifest(TINY)
    require_comparable(TINY, manifest, TINY)
    require_comparable(TINY, None, TINY)  # damaged: said elsewhere
    with pytest.raises(UsageError, match="--bundle DIR"):
        require_comparable(None, None, TINY)
    with pytest.raises(UsageError, match="no vectors in common"):
        require_comparable(TINY, manifest, TINY_COARSE)
    other = dataclasses.replace(manifest, space_id="0" * 64)
    with pytest.raises(UsageError, match="another embedding space"):
        require_comparable(TINY, other, TINY)


def test_only_a_problem_is_unhealthy() -> None:
    for level in LEVELS:
        diagnosis = Diagnosis((Finding("x", "good", ""), Finding("y", level, "")), {})
        assert diagnosis.healthy == (level != "problem")


def test_threads_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match="threads is 0"):
        Subjects(threads=0)


def test_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no store at"):
        doctor.diagnose(Subjects(store=tmp_path / "none.db"))
