"""The commands that look after a store, as a user meets them."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from edge_mrl.cli import main
from edge_mrl.cli.common.stores import parse_filter
from edge_mrl.errors import UsageError
from edge_mrl.index import Index
from tests.support.bundles import TINY, TINY_COARSE
from tests.support.processes import COMMAND, good, run, wait_until

pytestmark = pytest.mark.test

if TYPE_CHECKING:
    from pathlib import Path

LINES: list[dict[str, Any]] = [
    {"id": "x", "text": "testing it", "lang": "en", "year": 2020},
    {"id": "y", "text": "the cat", "lang": "en", "year": 2021},
    {"id": "z", "text": "a dog barking", "lang": "de", "year": 2022},
]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("a cat and a dog")
    (folder / "b.txt").write_text("training of a model")
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    return folder


@pytest.fixture
def store(notes: Path, tmp_path: Path) -> Path:
    path = tmp_path / "notes.db"
    good("index", "notes=notes", "--bundle", TINY, "--store", path, "--quiet", cwd=tmp_path)
    return path


def answer(*arguments: object, **options: Any) -> Any:
    return json.loads(good(*arguments, "--json", **options).stdout)


def ids(store: Path) -> list[str]:
    with Index.open(store) as index:
        return index.select({"$not": {"no such name": 1}})


# --- get, delete, stats, check, compact


def test_get_prints_texts_and_says_what_is_missing(store: Path) -> None:
    assert good("get", "notes/a.md", "--store", store).stdout == b"a cat and a dog\n"
    result = run("get", "x", "nothing", "--store", store, "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout) == {
        "id": "x",
        "text": "testing it",
        "metadata": {"lang": "en", "year": 2020},
        "source": "notes/c.jsonl",
    }
    assert b"no document 'nothing'" in result.stderr


def test_delete_by_id_and_by_filter(store: Path) -> None:
    assert answer("delete", "x", "nothing", "--store", store) == {"deleted": 1, "not_found": 1}
    assert answer("delete", "--filter", "year>=2022", "--store", store)["deleted"] == 1
    assert ids(store) == ["notes/a.md", "notes/b.txt", "y"]
    for wrong in ([], ["y", "--filter", "a=1"]):
        result = run("delete", *wrong, "--store", store)
        assert result.returncode == 2
        assert b"either ids or --filter" in result.stderr
    assert good("delete", "y", "--store", store).stdout == b"1 document deleted\n"


def test_stats_says_what_is_held(store: Path) -> None:
    facts = answer("stats", "--store", store)
    assert (facts["documents"], facts["passages"], facts["dim"]) == (5, 5, 16)
    assert facts["bytes"]["database"] == store.stat().st_size
    assert facts["bundle"] == str(TINY.resolve())
    text = good("stats", "--store", store).stdout.decode()
    assert "documents 5" in text
    assert str(TINY.resolve()) in text


def test_search_leaves_out_what_scores_lower(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def search(*options: str) -> tuple[list[float], str]:
        command = ["search", "testing the cat", "--store", str(store), "--json", *options]
        assert main(command) == 0
        said = capsys.readouterr()
        return [hit["score"] for hit in json.loads(said.out)["hits"]], said.err

    scores, _ = search()
    assert len(scores) == 5
    least = repr(scores[2])
    assert search("--min-score", least)[0] == [score for score in scores if score >= scores[2]]
    assert search("--min-score", "-2")[0] == scores
    found, said = search("--min-score", "2")
    assert (found, "nothing found" in said) == ([], True)
    assert main(["search", "cat", "--store", str(store), "--min-score", "nan"]) == 2
    assert "--min-score nan: expected a finite number" in capsys.readouterr().err


def test_search_warns_about_damaged_documents_and_names_them(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def search(*options: str) -> tuple[str, str]:
        assert main(["search", "testing the cat", "--store", str(store), *options]) == 0
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    assert "damaged" not in "".join(search())
    assert json.loads(search("--json")[0])["damaged"] == []
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE documents SET text = 'other' WHERE id = 'x'")
    connection.close()
    warning = "edge-mrl: damaged, and left out: 'x': put them again, or delete them; "
    for mode in ("vector", "keyword", "hybrid"):
        shown, said = search("--mode", mode)
        assert (warning in said, " x" in shown, " y" in shown) == (True, False, True)
        shown, said = search("--mode", mode, "--json", "--quiet")
        facts = json.loads(shown)
        assert (warning in said, facts["damaged"]) == (True, ["x"])
        assert "x" not in [hit["id"] for hit in facts["hits"]]


def test_check_of_a_sound_and_of_a_damaged_store(store: Path) -> None:
    assert good("check", "--store", store).stdout == b"sound: 5 documents\n"
    connection = sqlite3.connect(store)
    connection.execute("UPDATE documents SET text = 'forged' WHERE id = 'x'")
    connection.execute("DELETE FROM fields")
    connection.commit()
    connection.close()
    result = run("check", "--store", store, "--json")
    facts = json.loads(result.stdout)
    assert result.returncode == 1
    assert facts["damaged_ids"] == ["x"]
    assert len(facts["problems"]) == 2  # the document, and the index of its metadata
    assert run("get", "x", "--store", store).returncode == 2
    repair = run("check", "--store", store, "--repair")
    assert repair.returncode == 1  # what can be made again is; the document cannot
    assert b"repaired: " in repair.stdout
    assert b"damaged: document 'x' is not what was stored" in repair.stdout
    good("delete", "x", "--store", store)
    facts = answer("check", "--store", store, "--repair")
    assert facts["sound"]
    assert facts["repaired"] == ["keywords: the index of words does not agree with the texts"]
    assert answer("search", "cat", "--store", store, "--filter", "lang=en")["hits"][0]["id"] == "y"
    assert good("check", "--store", store, "--quiet").stdout == b""


def test_compact_gives_space_back(store: Path) -> None:
    with Index.open(store) as index:
        index.put([_document(f"n{number}", "the cat " * 200) for number in range(60)])
        index.delete([f"n{number}" for number in range(60)])
    facts = answer("compact", "--store", store)
    assert facts["after_bytes"] < facts["before_bytes"]
    assert facts["rows_dropped"] > 60
    assert len(ids(store)) == 5
    assert b"0 deleted passages dropped" in good("compact", "--store", store).stdout


def _document(name: str, text: str) -> Any:
    from edge_mrl import Document

    return Document(name, text)


@pytest.mark.parametrize("command", ["get x", "delete x", "stats", "check", "compact"])
def test_commands_that_look_make_no_store(command: str, tmp_path: Path) -> None:
    result = run(*command.split(), "--store", tmp_path / "none.db")
    assert result.returncode == 2
    assert b"no store at" in result.stderr
    assert list(tmp_path.iterdir()) == []


# --- index --prune


def test_prune_deletes_what_vanished_and_nothing_else(
    store: Path, notes: Path, tmp_path: Path
) -> None:
    good("index", "-", "--store", store, stdin=b'{"id": "piped", "text": "it"}', cwd=tmp_path)
    (tmp_path / "notes2").mkdir()
    (tmp_path / "notes2" / "kept.md").write_text("kept")
    good("index", "notes2=notes2", "--store", store, cwd=tmp_path)
    with Index.open(store) as index:
        index.put([_document("by hand", "a dog")])
    (notes / "b.txt").unlink()
    (notes / "c.jsonl").write_text("\n".join(map(json.dumps, LINES[1:])))
    plain = answer("index", "notes", "--store", store, cwd=tmp_path)
    assert plain["pruned"] == 0
    pruned = answer("index", "notes/", "--store", store, "--prune", cwd=tmp_path)
    assert pruned["pruned"] == 2
    assert pruned["unchanged"] == 3
    assert ids(store) == ["by hand", "notes/a.md", "notes2/kept.md", "piped", "y", "z"]


def test_prune_keeps_documents_of_a_file_that_cannot_be_read(
    store: Path, notes: Path, tmp_path: Path
) -> None:
    (notes / "a.md").write_bytes(b"\xff\xfe\xff")
    assert answer("index", "notes", "--store", store, "--prune", cwd=tmp_path)["pruned"] == 0
    assert "notes/a.md" in ids(store)


def test_prune_does_not_take_an_empty_folder_for_a_deletion(
    store: Path, notes: Path, tmp_path: Path
) -> None:
    shutil.rmtree(notes)
    notes.mkdir()  # a drive that is not mounted looks like this
    result = run("index", "notes", "--store", store, "--prune", "--json", cwd=tmp_path)
    assert result.returncode == 0
    assert b"is empty now" in result.stderr
    assert json.loads(result.stdout)["kept"][0]["documents"] == 5
    assert len(ids(store)) == 5


def test_prune_of_the_current_folder_covers_what_is_below(store: Path, tmp_path: Path) -> None:
    (tmp_path / "notes" / "b.txt").unlink()
    facts = answer("index", ".", "--store", store, "--prune", cwd=tmp_path)
    assert facts["pruned"] == 1
    assert "notes/b.txt" not in ids(store)


def test_prune_wants_no_pattern(store: Path, tmp_path: Path) -> None:
    result = run("index", "notes/*.md", "--store", store, "--prune", cwd=tmp_path)
    assert result.returncode == 2
    assert b"not with the pattern" in result.stderr


# --- search


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--filter", "lang=en"], {"x", "y"}),
        (["--filter", "lang=en", "--filter", "year>2020"], {"y"}),
        (["--filter", '{"year": {"$in": [2020, 2022]}}'], {"x", "z"}),
        (["--filter", "lang!=en"], {"z", "notes/a.md", "notes/b.txt"}),
        (["--filter", "lang=fr"], set()),
    ],
)
def test_search_filters(arguments: list[str], expected: set[str], store: Path) -> None:
    for mode in ("vector", "hybrid"):
        hits = answer("search", "cat", "--store", store, *arguments, "--mode", mode)["hits"]
        assert {hit["id"] for hit in hits} == expected
    words = answer("search", "cat dog it", "--store", store, *arguments, "--mode", "keyword")
    assert {hit["id"] for hit in words["hits"]} <= expected


@pytest.mark.parametrize("wrong", ["lang", "=en", "{bad json", '{"a": {"$regex": "x"}}'])
def test_wrong_filter_is_a_usage_error(wrong: str, store: Path) -> None:
    result = run("search", "cat", "--store", store, "--filter", wrong, "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"]["kind"] == "UsageError"


def test_filter_expressions_have_json_values() -> None:
    assert parse_filter(None) is None
    assert parse_filter(["year>=2020"]) == {"year": {"$gte": 2020}}
    assert parse_filter(["a=true", 'b="2020"', "c != x y", "d=[1]"]) == {
        "$and": [{"a": True}, {"b": "2020"}, {"c": {"$ne": "x y"}}, {"d": "[1]"}]
    }
    with pytest.raises(UsageError):
        parse_filter([""])


def test_keyword_search_needs_no_bundle(store: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(store)
    connection.execute("UPDATE binding SET bundle = '/nowhere', bundle_relative = ''")
    connection.commit()
    connection.close()
    hits = answer("search", "barking", "--store", store, "--mode", "keyword")["hits"]
    assert [hit["id"] for hit in hits] == ["z"]
    assert run("search", "barking", "--store", store).returncode == 2


def test_exact_and_width_are_options(store: Path) -> None:
    exact = answer("search", "a cat", "--store", store, "--exact")["hits"]
    assert answer("search", "a cat", "--store", store, "--width", 1)["hits"] == exact
    assert run("search", "a cat", "--store", store, "--width", 0).returncode == 2


def test_questions_come_by_a_pipe_one_a_line(store: Path) -> None:
    result = good("search", "--store", store, "--json", "-k", 1, stdin=b"the cat\n\na dog\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["query"] for line in lines] == ["the cat", "a dog"]
    assert lines[0]["hits"][0]["id"] == "y"


def test_questions_come_from_the_keyboard_until_an_empty_line(store: Path) -> None:
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "search", "--store", str(store), "-k", "1"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(terminal)
    os.write(keyboard, b"the cat\na dog barking\n\n")
    output, errors = process.communicate(timeout=60)
    os.close(keyboard)
    assert process.returncode == 0
    assert b"one question a line" in errors
    assert errors.count(b"> ") == 3
    assert output.count(b"  1  ") == 2
    assert output.splitlines()[0].endswith(b"  y")


# --- stages


def test_search_goes_by_the_stages_that_are_named(store: Path) -> None:
    hits = answer("search", "the cat", "--store", store, "--stages", "16x1:5,8x8:4,16x8")["hits"]
    assert hits == answer("search", "the cat", "--store", store, "--exact")["hits"][: len(hits)]
    assert hits[0]["id"] == "y"
    for wrong, message in (
        ("16x1:5,16x4", b"ends with 16x4, but the store keeps int8 codes of 16 dimensions"),
        ("16x1", b"end with 16x8"),
        ("16", b"expected DIMSxBITS:WIDTH"),
    ):
        result = run("search", "the cat", "--store", store, "--stages", wrong)
        assert result.returncode == 2
        assert message in result.stderr


def test_stats_tell_codes_and_tuned_stages(store: Path) -> None:
    with Index.open(store) as index:
        index.tune("16x1:20,16x8")
    facts = answer("stats", "--store", store)
    assert (facts["code"], facts["code_bytes"], facts["stages"]) == ("int8", 16, "16x1:20,16x8")
    shown = good("stats", "--store", store).stdout
    assert b"16 dimensions int8, 16 B a passage" in shown
    assert b"16x1:20,16x8" in shown


# --- reindex


def test_reindex_changes_the_bundle(store: Path) -> None:
    facts = answer("reindex", "--bundle", TINY_COARSE, "--store", store)
    assert (facts["embedded"], facts["documents"], facts["dim"]) == (5, 5, 8)
    assert facts["from"] == str(TINY.resolve())
    hits = answer("search", "the cat", "--store", store)["hits"]
    assert hits[0]["id"] == "y"
    assert answer("stats", "--store", store)["dim"] == 8
    assert answer("check", "--store", store)["sound"]


REINDEX_MANY = 2000


def test_killed_reindexing_goes_on_and_serves_meanwhile(store: Path, tmp_path: Path) -> None:
    with Index.open(store) as index:
        index.put(_document(f"n{n}", f"the cat {n}" * 5) for n in range(REINDEX_MANY))
        before = index.search("the dog", k=5)
    command = [*COMMAND, "reindex", "--bundle", str(TINY_COARSE), "--store", str(store), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    connection = sqlite3.connect(store)
    query = "SELECT count(*) FROM reindexed"
    wait_until(lambda: connection.execute(query).fetchone()[0] >= 300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = connection.execute(query).fetchone()[0]
    connection.close()
    assert 300 <= done < REINDEX_MANY
    with Index.open(store) as index:
        assert index.search("the dog", k=5) == before  # the old bundle serves
        index.put([_document("n1", "changed meanwhile"), _document("late", "a late one")])
        index.delete(["n2"])
    assert answer("stats", "--store", store)["reindexing"] == str(TINY_COARSE.resolve())
    facts = answer("reindex", "--bundle", TINY_COARSE, "--store", store)
    assert facts["embedded"] <= REINDEX_MANY + 5 - done + 2
    assert facts["documents"] == REINDEX_MANY + 5
    with Index.open(store) as index:
        assert index.binding.dim == 8
        assert index.check().sound
        assert index.get(["n1"])["n1"].text == "changed meanwhile"
        hits = index.search("a late one", k=20, exact=True)
        documents = index.get(ids(store)).values()
    with Index.open(tmp_path / "fresh.db", bundle=TINY_COARSE) as fresh:
        fresh.put(documents)
        assert fresh.search("a late one", k=20, exact=True) == hits


def test_another_process_follows_a_reindexing(store: Path) -> None:
    with Index.open(store) as index:
        index.search("the cat", k=1)
        good("reindex", "--bundle", TINY_COARSE, "--store", store, "--quiet")
        assert index.search("the cat", k=1)[0].id == "y"
        assert index.binding.dim == 8
        good("reindex", "--bundle", TINY, "--store", store, "--quiet")
        index.put([_document("new", "it")])  # embedded again with the bundle that is there now
        assert "new" in {hit.id for hit in index.search("it", k=6)}
        assert len(index.search("it", k=6)) == 6
        assert index.check().sound


def test_reindex_with_another_passage_rule(store: Path) -> None:
    with Index.open(store) as index:
        index.put([_document("long", "the cat and a dog " * 10)])
    good("reindex", "--bundle", TINY, "--store", store, "--max-tokens", 4, "--overlap", 1)
    facts = answer("stats", "--store", store)
    assert (facts["max_tokens"], facts["overlap"]) == (4, 1)
    assert facts["passages"] > 12


# --- full vectors


def test_full_vectors_rank_the_best_again(notes: Path, tmp_path: Path) -> None:
    for keep in ("fp16", "int8", "until-synced"):
        path = tmp_path / f"{keep}.db"
        good("index", notes, "--bundle", TINY, "--store", path, "--keep-full", keep, "--quiet")
        with Index.open(path) as index:
            assert index.keep_full == keep
            query = index.encoder.encode(["a cat"], kind="query").full
            assert query is not None
            for hit in index.search("a cat", k=5):
                full = index.encoder.encode([hit.text], kind="document").full
                assert full is not None
                assert hit.score == pytest.approx(float(full[0] @ query[0]), abs=0.01)
            coarse = index.search("a cat", k=5)
            forgotten = index.store.forget_full([hit.id for hit in coarse[:1]])
            assert forgotten == (1 if keep == "until-synced" else 0)
            assert len(index.search("a cat", k=5)) == 5
            assert index.check().sound


def test_full_vectors_need_a_bundle_that_gives_them(notes: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    result = run("index", notes, "--bundle", TINY_COARSE, "--store", path, "--keep-full", "fp16")
    assert result.returncode == 2
    assert b"cannot keep full vectors" in result.stderr
    assert not path.exists()
    good("index", notes, "--bundle", TINY, "--store", path, "--keep-full", "fp16", "--quiet")
    result = run("index", notes, "--store", path, "--keep-full", "int8")
    assert b"leave out this option" in result.stderr
    result = run("reindex", "--bundle", TINY_COARSE, "--store", path)
    assert result.returncode == 2
    assert b"gives none" in result.stderr


# --- media that cannot be written


@pytest.fixture
def unwritable(store: Path) -> Any:
    """The store in a folder and a file that only another user may write."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to act as a user who may not write")
    folder = store.parent / "shelf"
    folder.mkdir()
    moved = folder / "notes.db"
    shutil.copy(store, moved)
    for parent in moved.parents[:-1]:
        parent.chmod(parent.stat().st_mode | 0o055)
    folder.chmod(0o555)
    moved.chmod(0o444)
    yield moved
    folder.chmod(0o755)


def as_nobody(code: str) -> subprocess.CompletedProcess[str]:
    import sys

    # Everything is imported as root, and the rest is done as a user who may only read.
    script = (
        "import os, numpy, edge_mrl.cli, edge_mrl.index.facade, onnxruntime, tokenizers\n"
        "import edge_mrl.encode.encoder\n"
        f"import edge_mrl.cli.search, urllib.parse\nos.setgid(65534); os.setuid(65534)\n{code}"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )


def test_store_that_may_not_be_written_can_be_searched(unwritable: Path) -> None:
    before = sorted(file.name for file in unwritable.parent.iterdir())
    result = as_nobody(
        "from edge_mrl import Index\n"
        f"with Index.open({str(unwritable)!r}) as index:\n"
        "    print([hit.id for hit in index.search('barking', mode='keyword')])\n"
        "    print(index.stats()['writable'], index.check().sound)\n"
    )
    assert result.stdout == "['z']\nFalse True\n", result.stderr
    result = as_nobody(f"from edge_mrl import Index\nIndex.open({str(unwritable)!r}).delete(['x'])")
    assert "is read-only" in result.stderr
    assert sorted(file.name for file in unwritable.parent.iterdir()) == before


def test_reader_who_may_not_write_is_told_of_a_writer(unwritable: Path) -> None:
    unwritable.parent.chmod(0o755)
    with Index.open(unwritable) as index:
        index.delete(["x"])  # the log holds a commit that is not in the file
        unwritable.parent.chmod(0o555)
        result = as_nobody(
            f"from edge_mrl import Index\nprint(len(Index.open({str(unwritable)!r}).get(['x'])))"
        )
        # The owner's program has made the files the owner's alone.
        assert "may not be read by this user" in result.stderr


def test_search_waits_for_no_writer(store: Path) -> None:
    blocker = sqlite3.connect(store, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert answer("search", "cat", "--store", store)["hits"]
    assert time.monotonic() - started < 8
    blocker.close()
