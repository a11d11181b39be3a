"""The command line as a user meets it: real processes, real files, a small bundle."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edge_mrl
from edge_mrl.cli import COMMANDS, EXTRAS, FOLDERS, main
from edge_mrl.index import Index
from tests.support.bundles import TINY, TINY_COARSE, copy_bundle
from tests.support.processes import COMMAND, good, run, wait_until

pytestmark = pytest.mark.test

#: What help may take, in starts of the interpreter alone: 4 to 5 were seen. Importing numpy takes 4 more.
HELP_STARTS = 7
HEAVY = ("numpy", "onnxruntime", "tokenizers", "sqlite3")


def notes(folder: Path) -> Path:
    (folder / "notes").mkdir()
    (folder / "notes" / "a.md").write_text("# the cat\n\na cat and a dog")
    (folder / "notes" / "b.txt").write_text("training of a model")
    (folder / "notes" / "bad.txt").write_bytes(b"\xff\xfe")
    lines = [{"id": "x", "text": "testing it"}, {"_id": 7, "text": "0 1 2", "metadata": {"n": 7}}]
    (folder / "notes" / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "notes"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of four documents."""
    good("index", notes(tmp_path), "--bundle", TINY, "--store", tmp_path / "notes.db", "--quiet")
    return tmp_path / "notes.db"


# --- help, usage and errors


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\nfrom edge_mrl.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert output.stdout.splitlines()[-1] == "[]"


def test_help_comes_at_once() -> None:
    helping, starting = [], []
    for _ in range(7):
        started = time.perf_counter()
        good("--help")
        between = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        helping.append(between - started)
        starting.append(time.perf_counter() - between)
    assert min(helping) < HELP_STARTS * min(starting)


def test_help_lists_every_command() -> None:
    text = good("--help").stdout.decode()
    for name, help_line in {**COMMANDS, **EXTRAS}.items():
        assert re.search(rf"^  {name} +{re.escape(help_line)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_the_help_that_the_overview_gives(name: str) -> None:
    module = importlib.import_module(
        f"edge_mrl.cli.{FOLDERS.get(name, '')}{name.replace('-', '_')}"
    )
    assert COMMANDS[name] == module.HELP
    assert "--json" in good(name, "--help").stdout.decode()


def test_export_is_found_by_its_entry_point() -> None:
    pytest.importorskip("edge_mrl_export")
    text = good("export", "--help").stdout.decode()
    assert text.startswith("usage: edge-mrl export ")
    assert EXTRAS["export"] in text.lower()


def test_export_without_its_packages_gives_the_line_to_type() -> None:
    # Isolated from the environment's packages, so that no entry point is found.
    code = f"import sys; sys.path.insert(0, {str(Path(edge_mrl.__file__).parent.parent)!r})\n"
    code += "import importlib.metadata\nimportlib.metadata.entry_points = lambda **_: []\n"
    code += "from edge_mrl.cli import main; sys.exit(main(['export', '--json']))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True
    )
    assert result.returncode == 3
    assert 'pip install "edge-mrl[export]"' in result.stderr
    assert json.loads(result.stdout)["error"]["kind"] == "MissingDependencyError"


def test_version_is_the_package_version() -> None:
    assert good("--version").stdout.decode() == f"edge-mrl {edge_mrl.__version__}\n"


def test_no_command_shows_help_as_an_error() -> None:
    result = run()
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"commands:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], "did you mean search?"),
        (["zzz"], "--help"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["search", "cat"], "no store was named: name its file with --store FILE"),
        (["search", "cat", "--store", "x.db", "-k", "many"], "invalid int value: 'many'"),
        (["search", "cat", "--store", "x.db", "-k", "0"], "no store at x.db"),
        (["search", " ", "--store", "x.db"], "question is empty"),
        (["search", "cat", "--store", "x.db", "--bundle", str(TINY)], "no store at x.db"),
        (["index", "missing", "--store", "x.db", "--bundle", str(TINY)], "no file or folder"),
        (["index", "none.txt", "--store", "x.db"], "no file or folder none.txt"),
        (["embed", "--bundle", "missing"], "no bundle at"),
        (["embed", "none.txt", "--bundle", str(TINY)], "no file none.txt"),
        (["embed", ".", "--bundle", str(TINY)], "is a folder"),
        (["embed", "--bundle", str(TINY), "-o", "x.csv"], ".npy or .jsonl"),
        (["embed", "--bundle", str(TINY), "-o", "no/x.npy"], "there is no folder no"),
        (["embed", "--bundle", str(TINY), "--threads", "0"], "threads is 0"),
        (["embed", "--bundle", str(TINY_COARSE), "--which", "full"], "gives no full vectors"),
    ],
)
def test_usage_error_says_what_is_wrong_and_leaves_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("edge-mrl: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_error_with_json_is_one_object_on_standard_output(tmp_path: Path) -> None:
    result = run("search", "cat", "--store", tmp_path / "x.db", "--json")
    error = json.loads(result.stdout)["error"]
    assert result.returncode == 2
    assert error["kind"] == "NoStoreError"
    assert result.stderr.decode() == f"edge-mrl: error: {error['message']}\n"


def test_foreign_database_as_store_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (x)")
    connection.close()
    before = path.read_bytes()
    for command in (["search", "cat"], ["index", notes(tmp_path), "--bundle", TINY]):
        result = run(*command, "--store", path, "--json")
        assert result.returncode == 2
        assert json.loads(result.stdout)["error"]["kind"] == "NotAStoreError"
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes", "photos.db"]


def test_other_bundle_for_a_store_is_refused(store: Path) -> None:
    result = run("search", "cat", "--store", store, "--bundle", TINY_COARSE, "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"]["kind"] == "BindingError"


# --- index and search


def test_index_says_what_it_did(tmp_path: Path) -> None:
    arguments = ["index", notes(tmp_path), "--store", tmp_path / "notes.db"]
    result = good(*arguments, "--bundle", TINY, "--json")
    facts = json.loads(result.stdout)
    assert (facts["added"], facts["unchanged"], facts["skipped_files"]) == (4, 0, 1)
    assert facts["store"]["size_bytes"] == (tmp_path / "notes.db").stat().st_size
    assert facts["store"]["code_bytes"] == facts["store"]["passages"] * 16
    assert "bad.txt: skipped, not UTF-8 text" in result.stderr.decode()
    text = good(*arguments).stdout.decode()
    assert "documents 4: 0 added, 0 updated, 4 unchanged; 1 file skipped\n" in text
    assert "4 documents" in text


def test_index_when_quiet_prints_nothing(tmp_path: Path) -> None:
    where = ["--bundle", TINY, "--store", tmp_path / "notes.db"]
    result = good("index", notes(tmp_path), *where, "--quiet")
    assert (result.stdout, result.stderr) == (b"", b"")


def test_index_names_the_bad_line_and_stores_what_is_before_it(store: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "y", "text": "it"}\n{"id": "z"}\n')
    result = run("index", bad, "--store", store)
    assert result.returncode == 2
    assert f"{bad}:2: expected" in result.stderr.decode()
    assert b"1 document done and safe" in result.stderr
    with Index.open(store) as index:
        assert index.count().documents == 5


def test_search_finds_what_was_indexed(store: Path) -> None:
    wide = {**os.environ, "COLUMNS": "400"}  # temporary folders have long names
    result = good("search", "a cat and a dog", "--store", store, "-k", 3, env=wide)
    lines = result.stdout.decode().splitlines()
    assert len(lines) == 6
    assert lines[0].split()[0] == "1"
    assert lines[0].endswith("notes/a.md:3 > the cat")
    assert lines[1].strip() == "a cat and a dog"
    assert b"passages of 4 documents" in result.stderr


def test_search_with_json_prints_one_object(store: Path) -> None:
    result = good("search", "0 1 2", "--store", store, "--json", "-k", 4)
    answer = json.loads(result.stdout)
    assert result.stderr == b""
    assert answer["query"] == "0 1 2"
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    hit = next(hit for hit in answer["hits"] if hit["id"] == "7")
    assert (hit["text"], hit["start"], hit["end"], hit["metadata"]) == ("0 1 2", 0, 5, {"n": 7})


def test_search_shows_no_control_characters(tmp_path: Path) -> None:
    line = json.dumps({"id": "a\x1b[31m", "text": "the cat\x1b[2J\x07 and\n\n a dog\u202e"})
    where = ["--store", tmp_path / "notes.db"]
    good("index", "-", "--bundle", TINY, *where, stdin=line.encode())
    output = good("search", "the cat", *where).stdout.decode()
    assert all(char.isprintable() or char == "\n" for char in output)
    assert "the cat [2J and a dog" in output


def test_search_in_a_store_without_documents_finds_nothing(tmp_path: Path) -> None:
    Index.open(tmp_path / "notes.db", bundle=TINY).close()
    assert good("search", "cat", "--store", tmp_path / "notes.db").stdout == b""


def test_search_with_json_in_an_ascii_locale_is_still_json(store: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    result = good("search", "caf\u00e9 \u4f60", "--store", store, "--json", env=environment)
    assert json.loads(result.stdout.decode("ascii"))["query"] == "caf\u00e9 \u4f60"


def test_search_with_a_query_that_is_not_utf8(store: Path) -> None:
    result = good("search", os.fsdecode(b"caf\xff"), "--store", store, "--json")
    assert json.loads(result.stdout)["query"] == "caf\ufffd"


def test_bundle_that_moved_is_given_once(store: Path, tmp_path: Path) -> None:
    moving, path = copy_bundle(tmp_path / "one"), tmp_path / "moved.db"
    good("index", tmp_path / "notes", "--bundle", moving, "--store", path)
    moved = moving.rename(tmp_path / "two")
    result = run("search", "cat", "--store", path)
    assert result.returncode == 2
    assert b"--bundle DIR" in result.stderr
    good("search", "cat", "--store", path, "--bundle", moved)
    first = good("search", "cat", "--store", path).stdout
    assert first == good("search", "cat", "--store", store).stdout


def corpus(path: Path, number: int) -> Path:
    text = "the training of a model and the testing of it " * 8
    lines = (json.dumps({"id": f"{i:05}", "text": f"{i} {text}"}) for i in range(number))
    path.write_text("\n".join(lines))
    return path


def documents_in(store: Path) -> int:
    with Index.open(store) as index:
        return index.count().documents


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGKILL"])
def test_interrupted_indexing_goes_on_where_it_was(signal_name: str, tmp_path: Path) -> None:
    total = 3000
    lines, path = corpus(tmp_path / "corpus.jsonl", total), tmp_path / "notes.db"
    Index.open(path, bundle=TINY).close()
    command = [*COMMAND, "index", str(lines), "--store", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_until(lambda: documents_in(path) > 0)
        committed = documents_in(path)
        process.send_signal(getattr(signal, signal_name))
        code = process.wait()
        assert process.stderr is not None
        message = process.stderr.read().decode()
    assert code == (130 if signal_name == "SIGINT" else -signal.SIGKILL)
    assert ("done and safe" in message) == (signal_name == "SIGINT")
    kept = documents_in(path)
    assert committed <= kept < total
    facts = json.loads(good("index", lines, "--store", path, "--json").stdout)
    assert (facts["unchanged"], facts["added"]) == (kept, total - kept)
    shutil.copy(path, tmp_path / "copy.db")
    connection = sqlite3.connect(tmp_path / "copy.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_search_while_another_process_indexes(tmp_path: Path) -> None:
    lines, path = corpus(tmp_path / "corpus.jsonl", 1500), tmp_path / "notes.db"
    Index.open(path, bundle=TINY).close()
    command = [*COMMAND, "index", str(lines), "--store", str(path), "--quiet"]
    seen = []
    with subprocess.Popen(command) as process, Index.open(path) as index:
        while process.poll() is None:
            hits = index.search("training", k=1500)
            seen.append(len(hits))
        assert process.returncode == 0
        assert len(index.search("training", k=2000)) == 1500
    assert seen == sorted(seen)


@pytest.mark.test
def test_minilm_from_files_to_an_answer(tmp_path: Path, minilm_bundle: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bread.md").write_text("Knead the dough for ten minutes and let it rise.\n")
    (folder / "cats.txt").write_text("A cat purrs when it is stroked.\n")
    where = ["--store", tmp_path / "notes.db"]
    facts = json.loads(good("index", folder, "--bundle", minilm_bundle, *where, "--json").stdout)
    assert (facts["added"], facts["max_tokens"], facts["overlap"]) == (2, 247, 30)
    answer = json.loads(good("search", "how is a loaf made?", *where, "--json").stdout)
    assert answer["hits"][0]["id"].endswith("bread.md")


def test_list_names_documents_with_titles(store: Path, tmp_path: Path) -> None:
    listed = good("list", "--store", store, cwd=tmp_path)
    assert listed.stdout.decode().splitlines() == [
        "notes/a.md  the cat",
        "notes/b.txt  b",
        "x  testing it",
        "7  0 1 2",
    ]
    assert listed.stderr == b"4 documents\n"
    (line,) = good("list", "--store", store, "--json", "--filter", "n=7").stdout.splitlines()
    facts = json.loads(line)
    assert (facts["id"], facts["path"], facts["metadata"]) == ("7", None, {"n": 7})
    assert len(good("list", "--store", store, "--limit", 2).stdout.splitlines()) == 2
    nothing = good("list", "--store", store, "--filter", "folder=none")
    assert (nothing.stdout, nothing.stderr) == (b"", b"nothing found\n")
    assert run("list", "--store", store, "--limit", 0).returncode == 2
