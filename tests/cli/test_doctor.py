"""``edge-mrl doctor``: the command on real bundles and stores."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.bundle.manifest import GRAPH, MANIFEST, WEIGHTS
from edge_mrl.cli import main
from edge_mrl.diagnose.checks import bundle as bundle_checks
from edge_mrl.diagnose.findings import LEVELS
from edge_mrl.machine import facts as machine
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle
from tests.support.processes import good, run

pytestmark = pytest.mark.test


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round and no time, where the figures do not matter."""
    monkeypatch.setattr(bundle_checks, "ROUNDS", 1)
    monkeypatch.setattr(bundle_checks, "ROUND_S", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "notes.txt").write_text("the cat and the dog", "utf-8")
    path = tmp_path / "notes.db"
    good("index", tmp_path / "notes.txt", "--bundle", TINY, "--store", path, "--quiet")
    return path


def doctor(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    """Exit code and what was printed for programs."""
    code = main(["doctor", *map(str, arguments), "--json", "--quiet"])
    return code, json.loads(capfd.readouterr().out)


def texts(facts: Any, subject: str, level: str) -> list[str]:
    return [f["text"] for f in facts["findings"] if (f["subject"], f["level"]) == (subject, level)]


# --- the command


def test_machine_alone(capfd: pytest.CaptureFixture[str]) -> None:
    code, facts = doctor(capfd)
    assert (code, facts["healthy"]) == (0, True)
    subjects = {finding["subject"] for finding in facts["findings"]}
    wanted = {"CPU", "load", "Python", "page size", "packages", "SQLite", "reports", "memory"}
    assert wanted | {"folder's disk"} <= subjects
    assert {finding["level"] for finding in facts["findings"]} <= set(LEVELS)
    assert len(texts(facts, "packages", "good")) == len(machine.PACKAGES)
    assert facts["machine"]["python"] == sys.version.split()[0]


def test_text_is_for_people(short: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--bundle", str(TINY)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("no problems, ")
    body = [line for line in lines[:-2] if not line.lstrip().startswith("->")]
    assert all(line.split()[0] in LEVELS for line in body)
    speed = next(line for line in body if " speed " in line)
    assert "ms a query" in speed
    assert "documents/s" in speed


def test_bundle_and_store_are_verified(
    short: None, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, facts = doctor(capfd, "--bundle", TINY, "--store", store)
    assert code == 0
    assert "files are intact" in texts(facts, "bundle", "good")[0]
    assert texts(facts, "store", "good") == ["intact, documents: 1"]
    assert facts["figures"]["query_ms"] > 0
    assert facts["figures"]["documents_per_s"] > 0
    assert any("embedding took" in text for text in texts(facts, "memory", "good"))
    assert any(
        "can be mapped into memory" in text for text in texts(facts, "bundle's disk", "good")
    )


def test_nothing_is_changed(
    short: None, store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = copy_bundle(tmp_path / "moved")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert doctor(capfd, "--bundle", bundle, "--store", store)[0] == 0
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", [MANIFEST, GRAPH, WEIGHTS])
def test_damaged_bundle_is_a_problem(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    code, facts = doctor(capfd, "--bundle", bundle)
    assert (code, facts["healthy"]) == (1, False)
    (problem,) = texts(facts, "bundle", "problem")
    assert name in problem
    assert "damaged" in problem or "not valid" in problem


def test_damaged_store_is_a_problem(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    connection = sqlite3.connect(store)
    connection.execute("UPDATE documents SET text = 'forged'")
    connection.commit()
    connection.close()
    code, facts = doctor(capfd, "--store", store)
    assert code == 1
    assert any("is not what was stored" in text for text in texts(facts, "store", "problem"))


def test_file_that_is_no_store_is_a_problem(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos.db").write_bytes(b"not a database" * 100)
    code, facts = doctor(capfd, "--store", tmp_path / "photos.db")
    assert code == 1
    assert "is not an edge-mrl store" in texts(facts, "store", "problem")[0]


def test_store_whose_bundle_is_gone_or_another(
    short: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = copy_bundle(tmp_path / "one")
    (tmp_path / "notes.txt").write_text("the cat and the dog", "utf-8")
    store = tmp_path / "notes.db"
    good("index", tmp_path / "notes.txt", "--bundle", bundle, "--store", store, "--quiet")
    bundle.rename(tmp_path / "two")
    code, facts = doctor(capfd, "--store", store)
    assert code == 1
    assert "--bundle DIR" in texts(facts, "store", "problem")[0]
    code, facts = doctor(capfd, "--store", store, "--bundle", TINY_COARSE)
    assert code == 1
    assert "was made with another code" in texts(facts, "store", "problem")[0]
    assert doctor(capfd, "--store", store, "--bundle", tmp_path / "two")[0] == 0


def test_bundle_against_itself_agrees(
    short: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    twin = copy_bundle(tmp_path / "twin")
    code, facts = doctor(capfd, "--bundle", TINY, "--against", twin)
    assert code == 0
    assert facts["figures"]["against_cosine_min"] == pytest.approx(1, abs=1e-6)
    assert len(texts(facts, "speed", "good")) + len(texts(facts, "speed", "warning")) == 3


def test_packages_that_cannot_be_loaded_are_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    # A package of the same name that comes first and dies as one built for another CPU would.
    (tmp_path / "onnxruntime.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(machine.__file__).parents[2])])
    result = run("doctor", "--bundle", TINY, "--json", env={**os.environ, "PYTHONPATH": path})
    facts = json.loads(result.stdout)
    assert result.returncode == 1
    (text,) = texts(facts, "packages", "problem")
    assert "killed by SIGILL; this CPU lacks an instruction" in text
    assert texts(facts, "bundle", "unknown") == [
        "not checked, because packages are missing or broken"
    ]
    assert len(texts(facts, "packages", "good")) == 2


def test_doctor_itself_loads_nothing_that_may_crash() -> None:
    code = (
        "import sys\nfrom edge_mrl.cli import main\nmain(['doctor', '--quiet'])\n"
        "print([n for n in ('numpy', 'onnxruntime', 'tokenizers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "missing"], "no bundle at"),
        (["--store", "missing.db"], "no store at"),
        (["--against", str(TINY)], "--bundle DIR"),
        (["--bundle", str(TINY), "--against", "missing"], "no bundle at"),
        (["--bundle", str(TINY), "--against", str(TINY_COARSE)], "no vectors in common"),
        (["--bundle", str(TINY), "--threads", "0"], "threads is 0"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.test
def test_int8_beside_fp32_on_this_cpu(
    minilm_bundle: Path, minilm_fp32_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, facts = doctor(capfd, "--bundle", minilm_bundle, "--against", minilm_fp32_bundle)
    figures = facts["figures"]
    assert code == 0
    if not machine.saturates(machine.cpu()):
        assert figures["against_cosine_mean"] > 0.998
    if {"avx512_vnni", "avx_vnni"} & set(machine.cpu().features or ()):
        assert figures["documents_per_s"] > figures["against_documents_per_s"]
