"""``edge-mrl bench``: the command, with real processes on a small bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mrl.cli import main
from edge_mrl.cli.bench import _LABELS
from edge_mrl.diagnose import bench as measure
from edge_mrl.diagnose import samples
from edge_mrl.diagnose.bench import Figure, Report, parse_report
from edge_mrl.documents import Document
from edge_mrl.index import Index
from tests.support.bundles import TINY, copy_bundle, keep_codes_as
from tests.support.processes import good
from tests.support.stores import packing

pytestmark = pytest.mark.test

QUICK = ("--seconds", "0")
ROWS = 1500


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result, "result.json", and what was printed for it, "stdout"."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "tmp").mkdir()
    done = good(
        *("bench", "--bundle", TINY, *QUICK, "--rows", ROWS, "--threads", 1, "--low-memory"),
        *("--output", folder / "result.json", "--json"),
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
    )
    (folder / "stdout").write_bytes(done.stdout)
    return folder


@pytest.fixture
def report(place: Path) -> Report:
    return parse_report((place / "result.json").read_bytes(), "result.json")


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure each figure in one process only, where the figures do not matter."""
    monkeypatch.setattr(measure, "ROUNDS", 1)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "notes.txt").write_text("the cat and the dog", "utf-8")
    path = tmp_path / "notes.db"
    good("index", tmp_path / "notes.txt", "--bundle", TINY, "--store", path, "--quiet")
    return path


# --- what is measured


def test_every_figure_is_measured_in_every_round(report: Report) -> None:
    assert set(report.figures) == set(_LABELS)
    for name, figure in report.figures.items():
        assert 0 < figure.low <= figure.value <= figure.high, name
        assert figure.samples >= measure.ROUNDS, name
    assert {figure.unit for figure in report.figures.values()} == {"ms", "documents/s", "MB"}


def test_figures_agree_with_each_other(report: Report) -> None:
    figures = report.figures
    for name in ("query", "search_vector", "search_words"):
        assert figures[f"{name}_p50"].value <= figures[f"{name}_p95"].value
    # A process that starts does more than one that is warm; a search by text encodes it too.
    assert figures["start"].low > figures["query_p50"].high
    assert figures["search_words_p50"].high > figures["search_vector_p50"].low
    # Python, numpy and onnxruntime alone take 30 MB; a tiny model adds little.
    assert all(30 < figures[f"memory_{step}"].value < 300 for step in measure.STEPS)


def test_report_says_what_it_is_of(report: Report) -> None:
    assert report.settings["passages"] == ROWS
    assert (report.settings["threads"], report.settings["low_memory"]) == (1, True)
    assert report.settings["documents"] == samples.DOCUMENTS
    assert report.bundle["name"] == "tiny-bert"
    assert len(report.bundle["space_id"]) == 64
    assert report.machine["python"] == sys.version.split()[0]
    assert set(report.machine["versions"]) == {"edge-mrl", "numpy", "onnxruntime", "tokenizers"}
    assert report.machine["cores"] >= 1


def test_printed_json_is_the_kept_result(place: Path) -> None:
    lines = (place / "stdout").read_text("utf-8").splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0]) == json.loads((place / "result.json").read_bytes())


def test_temporary_store_is_deleted(place: Path) -> None:
    assert list((place / "tmp").iterdir()) == []  # nor has anything else been left there


@pytest.mark.test
@pytest.mark.parametrize("kind", ["int4", "2bit around a centre"])
def test_store_of_few_bits_is_measured(
    kind: str, one_round: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = keep_codes_as(copy_bundle(tmp_path / "bundle"), packing(kind, 16))
    with Index.open(tmp_path / "s.db", bundle) as index:
        index.put([Document(str(n), f"the cat {n}") for n in range(30)])
    assert main(["bench", "--store", str(tmp_path / "s.db"), *QUICK, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["settings"]["passages"] == 30
    assert found["figures"]["search_vector_p50"]["value"] > 0


def test_own_store_is_searched_and_left_as_it_is(
    one_round: None, store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    moved = copy_bundle(tmp_path / "moved")  # a bundle in another place is not noted in the store
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for extra in ([], ["--bundle", str(moved)]):
        assert main(["bench", "--store", str(store), *extra, *QUICK, "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["settings"]["passages"] == 1
        assert found["settings"]["store"] == "notes.db"
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before


def test_encrypted_store_is_measured_with_its_key_and_stays_encrypted(
    one_round: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").mkdir()
    key, store = tmp_path / "key", tmp_path / "kept" / "notes.db"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    (tmp_path / "notes.txt").write_text("the cat and the dog", "utf-8")
    asked = ["--store", str(store), "--key-file", str(key)]
    good("index", tmp_path / "notes.txt", "--bundle", TINY, *asked, "--quiet")
    before = store.read_bytes()
    assert main(["bench", *asked, *QUICK, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["settings"]["passages"] == 1
    assert main(["bench", "--store", str(store), *QUICK]) != 0
    assert "is encrypted" in capfd.readouterr().err
    assert store.read_bytes() == before
    assert [path.name for path in store.parent.iterdir()] == ["notes.db"]


def test_text_has_machine_units_and_spread(
    one_round: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "own.txt"
    texts.write_text("a cat\n\nthe dog barks at it again and again\n", "utf-8")
    where = ("--bundle", TINY, "--texts", texts, "--rows", 100, *QUICK)
    assert main(["bench", *map(str, where)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("machine   ")
    assert "edge-mrl 0." in lines[1]
    assert "onnxruntime 1." in lines[1]
    assert "tiny-bert, int8 weights" in lines[2]
    assert "own.txt: 2 documents of 5 words on average, queries of 4" in lines[3]
    assert "random codes, 100 passages" in lines[4]
    head = next(line for line in lines if "median" in line)
    assert head.split() == ["median", "least", "greatest", "samples"]
    for label in _LABELS.values():
        (line,) = [line for line in lines if line.startswith(label)]
        *_, median, least, greatest, _ = line.replace(",", "").split()
        assert float(least) <= float(median) <= float(greatest)
        assert any(unit in line for unit in ("[ms]", "[MB]", "[documents/s]"))


@pytest.mark.parametrize("arguments", [["bench", "--help"], ["bench", "--rows", "x"]])
def test_help_and_wrong_usage_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, contextlib\nfrom edge_mrl.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({arguments!r})\n"
        "print([n for n in ('numpy', 'onnxruntime', 'tokenizers', 'sqlite3') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- comparing


def changed(report: Report, path: Path, factor: float) -> Path:
    """The report with all times and memory multiplied, all rates divided."""
    figures = {}
    for name, one in report.figures.items():
        by = 1 / factor if one.more_is_better else factor
        figures[name] = Figure(one.unit, one.value * by, one.low * by, one.high * by, one.samples)
    path.write_text(json.dumps(dataclasses.replace(report, figures=figures).as_json()), "utf-8")
    return path


@pytest.mark.parametrize(("factor", "code"), [(1e-3, 1), (1e3, 0)])
def test_fail_above_exits_with_1_only_if_worse(
    factor: float,
    code: int,
    one_round: None,
    report: Report,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    earlier = changed(report, tmp_path / "earlier.json", factor)
    where = ("--bundle", TINY, "--rows", ROWS, *QUICK, "--compare", earlier, "--fail-above", 20)
    assert main(["bench", *map(str, where), "--json"]) == code
    captured = capfd.readouterr()
    found = json.loads(captured.out)["comparison"]
    verdicts = {change["verdict"] for change in found["changes"]}
    assert verdicts == {"worse" if code else "better"}
    assert found["differences"] == [
        "threads: 1 before, the default now",
        "low memory: True before, False now",
    ]
    text = captured.err
    assert text.count("edge-mrl: failed: ") == (len(_LABELS) if code else 0)
    assert "was measured differently" in text


def test_compare_prints_a_table_with_ratios(
    one_round: None, report: Report, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    earlier = changed(report, tmp_path / "earlier.json", 1e-3)
    where = ("--bundle", TINY, "--rows", ROWS, *QUICK, "--compare", earlier, "--quiet")
    assert main(["bench", *map(str, where)]) == 0  # worse, but nobody asked to fail
    captured = capfd.readouterr()
    table = captured.out.split("\n\n")[-1].splitlines()
    assert table[0].split() == ["before", "now", "now/before", "verdict"]
    assert len(table) == 1 + len(_LABELS)
    for line in table[1:]:
        *_, ratio, verdict = line.replace(",", "").split()
        assert verdict == "worse"
        assert (float(ratio) < 0.5) if "documents/s" in line else (float(ratio) > 2)
    assert captured.err == ""


# --- usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --bundle DIR, or --store"),
        (["--bundle", "missing"], "no bundle at"),
        (["--store", "missing.db"], "no store at"),
        (["--bundle", str(TINY), "--store", "x.db", "--rows", "5"], "omit it with --store"),
        (["--bundle", str(TINY), "--rows", "0"], "rows is 0"),
        (["--bundle", str(TINY), "--threads", "0"], "threads is 0"),
        (["--bundle", str(TINY), "--seconds", "-1"], "seconds is -1"),
        (["--bundle", str(TINY), "--seconds", "nan"], "seconds is nan"),
        (["--bundle", str(TINY), "--texts", "none.txt"], "no file none.txt"),
        (["--bundle", str(TINY), "--output", "none/x.json"], "in an existing folder"),
        (["--bundle", str(TINY), "--compare", "none.json"], "no file none.json"),
        (["--bundle", str(TINY), "--fail-above", "5"], "--compare FILE"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_measured(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_busy_machine_is_warned_of(
    one_round: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["bench", "--bundle", str(TINY), "--seconds", "0", "--rows", "1"]
    for load, warned in ((0.0, False), (64.0, True)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, load, load))
        assert main(where) == 0
        assert ("this machine is busy (load 64.0 on" in capsys.readouterr().err) == warned
