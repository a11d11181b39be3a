"""``edge-mrl index`` on inputs that are odd, away or large, run in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.cli import main
from edge_mrl.errors import StoreError, UsageError
from edge_mrl.index import Index
from edge_mrl.sources.formats import registry
from edge_mrl.store import sources_below
from tests.ingest.test_refused import BEYOND, with_token_beyond
from tests.support.bundles import TINY, copy_bundle
from tests.support.files import make_docx, make_pdf

pytestmark = pytest.mark.test

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command with --json; returns its exit code, its object and what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, bundle: Path = TINY) -> tuple[int, Any, str]:
        words = [str(argument) for argument in arguments]
        code = main(["index", *words, "--store", "s.db", "--bundle", str(bundle), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[0]), captured.err

    return run


def write(path: str, data: str | bytes = "text") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def test_large_deletion_wants_yes(index: Run) -> None:
    for n in range(60):
        write(f"n/{n}.md", f"cat {n}")
    index("n")
    for n in range(30):
        Path(f"n/{n}.md").unlink()
    code, facts, said = index("n", "--prune", "--dry-run")
    assert (code, facts["pruned"], len(facts["would_prune"])) == (1, 30, 30)
    code, facts, said = index("n", "--prune")
    assert (code, facts["unchanged"], facts["store"]["documents"]) == (1, 30, 60)
    assert "would delete 30 of 60 documents" in said
    code, facts, _ = index("n", "--prune", "--yes")
    assert (code, facts["pruned"], facts["store"]["documents"]) == (0, 30, 30)


def test_dry_run_writes_nothing(index: Run) -> None:
    write("n/a.md")
    code, facts, _ = index("n", "--dry-run")
    assert (code, facts["added"], Path("s.db").exists()) == (0, 1, False)
    index("n")
    write("n/a.md", "other")
    write("n/b.md")
    write("n/c.md")
    index("n")
    Path("n/c.md").unlink()
    write("n/b.md", "changed")
    write("n/d.md")
    before = {path.name: path.read_bytes() for path in Path().glob("s.db*")}
    code, facts, _ = index("n", "--dry-run", "--prune")
    names = [
        [name.partition("/")[2] for name in facts[f"would_{verb}"]]
        for verb in ("add", "update", "prune")
    ]
    assert (code, names) == (0, [["d.md"], ["b.md"], ["c.md"]])
    assert {path.name: path.read_bytes() for path in Path().glob("s.db*")} == before


def test_bad_lines_are_named_and_the_others_stored(index: Run) -> None:
    lines = ['{"id": "1", "text": "a"}', '{"id": "x", "text":', '{"id": "2", "text": "b"}', "[]"]
    write("j.jsonl", "\n".join(lines))
    code, facts, _ = index("j.jsonl")
    assert code == 2
    assert "j.jsonl:2: not valid JSON" in facts["error"]["message"]
    assert "1 document done and safe" in facts["error"]["message"]
    code, facts, said = index("j.jsonl", "--skip-bad")
    assert (code, facts["added"], facts["unchanged"]) == (5, 1, 1)
    assert [line.split(": ")[0] for line in facts["bad_lines"]] == ["j.jsonl:2", "j.jsonl:4"]
    assert "j.jsonl:4: list, expected an object" in said
    # What cannot be read deletes nothing.
    write("j.jsonl", '{"id": "2", "text": "b"}\n{')
    code, facts, _ = index("j.jsonl", "--skip-bad", "--prune")
    assert (code, facts["pruned"], facts["store"]["documents"]) == (5, 0, 2)


def test_equal_lines_without_id_are_one_document(index: Run) -> None:
    write("j.jsonl", '{"text": "one"}\n{"text": "two"}\n{"text": "one"}\n')
    code, facts, _ = index("j.jsonl")
    assert (code, facts["added"] + facts["unchanged"], facts["repeated"]) == (0, 3, 1)
    assert facts["store"]["documents"] == 2
    write("j.jsonl", '{"text": "three"}\n{"text": "one"}\n')
    code, facts, _ = index("j.jsonl")
    assert (facts["added"], facts["updated"], facts["store"]["documents"]) == (1, 0, 3)


def test_text_that_the_bundle_refuses_is_named(index: Run, tmp_path: Path) -> None:
    bundle = with_token_beyond(copy_bundle(tmp_path / "bundle"))
    write("n/a.md", "the cat")
    write("n/b.md", f"open {BEYOND} now")
    write("n/c.md", "a dog")
    for added in (2, 0):
        code, facts, said = index("n", bundle=bundle)
        assert (code, facts["added"], len(facts["refused"])) == (5, added, 1)
        assert facts["refused"][0]["id"].endswith("/b.md")
        assert "b.md: left out, the bundle's graph cannot read this text" in said


def test_what_is_not_read_is_said_by_suffix(index: Run) -> None:
    for name in ("a.gz", "b.gz", "README", "c.tex", "d.odt", ".hidden"):
        write(f"n/{name}")
    Path("n/away").symlink_to("nowhere")
    Path("n/folder").symlink_to(".")
    code, facts, said = index("n")
    assert (code, facts["added"]) == (0, 0)
    by_suffix = {".gz": 2, "": 1, ".tex": 1, ".odt": 1}
    assert facts["not_read"] == {"files": 5, "by_suffix": by_suffix, "extra": []}
    assert "5 files not read: 2 .gz, 1 without suffix, 1 .tex, 1 .odt" in said
    assert sorted(one["path"] for one in facts["problems"]) == ["n/away", "n/folder"]
    _, facts, _ = index("n", "--include", "*.tex", "--include", "readme", "--include", "*.odt")
    assert (facts["added"], facts["not_read"]["files"]) == (2, 3)
    _, facts, _ = index("n", "--include", "*.odt", "--as-text")
    assert facts["added"] == 1


@pytest.mark.parametrize("name", ["a.xml", "b.ODT", "c.tar.gz", "d.pptx"])
def test_markup_that_is_named_is_refused(name: str, index: Run) -> None:
    write(name)
    code, facts, _ = index(name)
    assert code == 2
    assert "--as-text" in facts["error"]["message"]
    assert index(name, "--as-text")[1]["added"] == 1


@pytest.mark.parametrize("name", ["a.PDF", "b.docx", "c.epub", "d.txt"])
def test_a_file_that_is_named_and_cannot_be_read_is_an_error(name: str, index: Run) -> None:
    """Everything else is stored; the same file in a folder is a warning."""
    write(f"n/{name}", b"\x00\xff")
    write("n/good.txt")
    code, facts, said = index(f"n/{name}", "n/good.txt")
    assert (code, facts["added"], facts["skipped_files"]) == (5, 1, 1)
    assert f"n/{name}: skipped, " in said
    code, facts, said = index("n")
    assert (code, facts["unchanged"], facts["skipped_files"]) == (0, 1, 1)


def test_other_encodings(index: Run) -> None:
    write("n/a.txt", "caf\u00e9".encode("utf-16"))
    write("n/b.txt", "na\u00efve".encode("latin-1"))
    write("n/c.jsonl", '{"id": "c", "text": "\u00fcber"}\n'.encode("utf-16"))
    _, facts, _ = index("n")
    assert (facts["added"], facts["skipped_files"]) == (2, 1)
    _, facts, _ = index("n", "--encoding", "latin-1")
    assert (facts["added"], facts["unchanged"]) == (1, 2)
    with Index.open("s.db") as store:
        texts = {d.text for d in store.get([n for n, _ in sources_below(store.store, "")]).values()}
    assert texts == {"caf\u00e9", "na\u00efve", "\u00fcber"}
    code, facts, _ = index("n", "--encoding", "base64")
    assert (code, facts["error"]["kind"]) == (2, "UsageError")


def test_missing_folder_of_several_is_named_and_the_others_are_read(index: Run) -> None:
    write("n/a.md")
    write("m/b.md")
    index("n", "m")
    shutil.rmtree("m")
    write("n/c.md")
    code, facts, said = index("n", "m", "--prune")
    assert (code, facts["added"], facts["pruned"]) == (0, 1, 0)
    assert "m: is not there" in said
    code, facts, _ = index("m")
    assert (code, facts["error"]["kind"]) == (2, "UsageError")


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv"
)
def test_folder_without_permission_is_named_and_kept(index: Run) -> None:
    write("n/a.md")
    write("n/locked/b.md")
    index("n")
    Path("n/locked").chmod(0)
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    command = [sys.executable, "-m", "edge_mrl", "index", "n", "--store", "s.db", "--json"]
    try:
        for options in ([], ["--prune"]):
            done = subprocess.run([*drop, *command, *options], capture_output=True, check=True)
            facts = json.loads(done.stdout)
            assert (facts["pruned"], facts["store"]["documents"]) == (0, 2)
            assert b"n/locked: cannot be listed: Permission denied" in done.stderr
    finally:
        Path("n/locked").chmod(0o755)


def test_empty_folder_makes_an_empty_store(index: Run) -> None:
    Path("n").mkdir()
    code, facts, said = index("n")
    assert (code, facts["store"]["documents"]) == (0, 0)
    assert "nothing to read in n" in said


def test_closed_index_and_odd_names_of_stores(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "s.db", TINY)
    store = index.store
    index.close()
    calls: list[Callable[[], object]] = [
        lambda: index.search("x"),
        lambda: index.get(["x"]),
        lambda: index.put([]),
        lambda: index.delete(["x"]),
        index.count,
        index.stats,
        index.check,
        index.compact,
    ]
    for call in calls:
        with pytest.raises(UsageError, match="is closed: open it again"):
            call()
    with pytest.raises(StoreError, match="is closed: open it again"):
        store.count()
    for name in (":memory:", "file:x?mode=memory"):
        with pytest.raises(UsageError, match="a store is a file"):
            Index.open(name, TINY)


def test_search_shows_paths_and_says_that_nothing_was_found(
    index: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write("n/a.md", "the cat")
    index("n")
    assert main(["search", "cat", "--store", "s.db"]) == 0
    assert "  n/a.md:1\n" in capsys.readouterr().out
    assert main(["get", "n/a.md", "--store", "s.db"]) == 0
    assert capsys.readouterr().out == "the cat\n"
    assert main(["search", "dog", "--store", "s.db", "--mode", "keyword", "--json"]) == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out)["hits"], captured.err) == ([], "nothing found\n")
    assert main(["delete", "n/a.md", "--store", "s.db", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == 1


def test_delete_forgets_a_folder(index: Run, capsys: pytest.CaptureFixture[str]) -> None:
    write("n/a.md")
    write("m/b.md")
    index("n", "keep=m")
    (name,) = (name for name in Index.open("s.db").stats().roots if name != "keep")
    assert main(["delete", "--folder", name, "--store", "s.db", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] == 1
    assert list(Index.open("s.db").stats().roots) == ["keep"]
    assert main(["delete", "--folder", name, "--store", "s.db"]) == 2
    assert "expected one of keep" in capsys.readouterr().err
    _, facts, _ = index("keep=m", "--prune")
    assert (facts["unchanged"], facts["store"]["documents"]) == (1, 1)


def test_reindexing_names_a_text_that_the_new_bundle_refuses(
    index: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = with_token_beyond(copy_bundle(tmp_path / "bundle"))
    write("n/a.md", "the cat")
    write("n/b.md", f"open {BEYOND} now")
    index("n")
    assert main(["reindex", "--bundle", str(bundle), "--store", "s.db", "--json"]) == 5
    captured = capsys.readouterr()
    assert [one["id"].partition("/")[2] for one in json.loads(captured.out)["refused"]] == ["b.md"]
    assert "b.md: not embedded" in captured.err


def test_embedding_names_the_line_that_the_bundle_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = with_token_beyond(copy_bundle(tmp_path / "bundle"))
    lines = tmp_path / "lines.txt"
    lines.write_text(f"the cat\na dog\nopen {BEYOND}\n0 1\n")
    assert main(["embed", str(lines), "--bundle", str(bundle), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("edge-mrl: error: text 3: the bundle's graph cannot read this text")
    assert said.count("\n") == 1


def test_enrolling_with_a_bundle_makes_an_empty_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "s.db"
    where = ["--server", "http://127.0.0.1:9", "--invitation", "none", "--store", str(store)]
    assert main(["enroll", *where]) == 2
    assert not store.exists()
    assert main(["enroll", *where, "--bundle", str(TINY)]) == 4
    capsys.readouterr()
    with Index.open(store) as index:
        assert index.count().documents == 0


def test_a_mixed_folder_is_read_and_the_rest_is_named(index: Run) -> None:
    Path("n").mkdir()
    write("n/page.html", "<title>T</title><p>The <b>cat</b></p>")
    write("n/a.rst", "a dog")
    make_pdf(Path("n/leaflet.pdf"), "A bird")
    make_docx(Path("n/letter.docx"), "A fish")
    write("n/bad.pdf", "%PDF nonsense")
    write("n/t.csv", "id,text\n1,one\n2,two\n")
    write("n/pic.png", "x")
    code, facts, said = index("n")
    assert (code, facts["added"], facts["skipped_files"]) == (0, 4, 1)
    assert facts["not_read"] == {"files": 2, "by_suffix": {".csv": 1, ".png": 1}, "extra": []}
    assert "n/bad.pdf: skipped, cannot be read as PDF" in said
    code, facts, said = index("n", "--include", "*.csv")
    assert (facts["added"], facts["unchanged"]) == (2, 4)
    # A row that is gone goes, and so does a file; what cannot be read any more is kept.
    write("n/t.csv", "id,text\n2,two\n")
    write("n/letter.docx", "nonsense")
    Path("n/leaflet.pdf").unlink()
    code, facts, said = index("n", "--include", "*.csv", "--prune")
    assert (code, facts["pruned"], facts["store"]["documents"]) == (0, 2, 4)
    assert "letter.docx could not be read completely: 1 document kept" in said
    # With the markup, where that is asked for.
    code, facts, said = index("n/page.html", "--as-text")
    assert (code, facts["updated"]) == (0, 1)


def test_what_the_extra_would_read_is_said(index: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        registry, "_OWN", {**registry._OWN, ".pdf": ("not_installed", registry._pdf)}
    )
    registry.reader_of.cache_clear()
    try:
        write("n/a.md", "the cat")
        write("n/b.pdf", "%PDF")
        code, facts, said = index("n")
        assert (code, facts["not_read"]["extra"]) == (0, [".pdf"])
        assert '1 .pdf; pip install "edge-mrl[files]" reads .pdf\n' in said
        write("n/c.tex")
        assert 'reads .pdf (--include "*.tex" reads such files)' in index("n")[2]
        code, facts, _ = index("n/b.pdf")
        assert code == 2
        assert (
            'is PDF, and would be indexed with its markup: pip install "edge-mrl[files]"'
            in (facts["error"]["message"])
        )
    finally:
        registry.reader_of.cache_clear()
