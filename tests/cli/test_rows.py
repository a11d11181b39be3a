"""``edge-mrl index --sql``: rows of a database of the user's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.cli import main
from edge_mrl.errors import UsageError
from edge_mrl.index import Index
from edge_mrl.sources import rows
from edge_mrl.store.engine import userdata
from tests.support.bundles import TINY

pytestmark = pytest.mark.test

QUERY = "SELECT id, title, body AS text, tag, stars FROM note"
Run = Callable[..., tuple[int, Any, str]]


def change(*statements: str) -> None:
    with closing(sqlite3.connect("app.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.fixture
def index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    change(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT, body TEXT, tag TEXT, stars REAL, "
        "pic BLOB)",
        "INSERT INTO note VALUES (1, 'cat', 'a cat and a dog', 'pets', 4.5, x'00ff')",
        "INSERT INTO note VALUES (2, NULL, 'training of a model', NULL, 3, NULL)",
        "CREATE TABLE other (id TEXT, text TEXT)",
        "INSERT INTO other VALUES ('1', 'testing it')",
    )

    def run(query: str, *more: str, database: str = "app.db") -> tuple[int, Any, str]:
        words = ["--sql", query, "--database", database, "--store", "s.db", "--bundle", str(TINY)]
        code = main(["index", *words, "--json", *more])
        out = capsys.readouterr()
        return code, json.loads(out.out.splitlines()[-1]), out.err

    return run


def ids() -> dict[str, tuple[str, dict[str, Any]]]:
    with Index.open("s.db") as opened:
        found = {one.id: (one.text, dict(one.metadata)) for one in opened.documents()}
    return {name.split("@", 1)[1][9:]: value for name, value in found.items()}


def test_rows_are_documents_and_follow_their_table(index: Run) -> None:
    code, facts, _ = index(QUERY)
    assert (code, facts["added"], facts["passages"]) == (0, 2, 2)
    assert ids() == {
        "app.db#note/1": ("cat\na cat and a dog", {"title": "cat", "tag": "pets", "stars": 4.5}),
        "app.db#note/2": ("training of a model", {"stars": 3.0}),
    }
    assert index("SELECT id, text FROM [other]")[1]["added"] == 1
    change(
        "UPDATE note SET body = 'a dog' WHERE id = 1",
        "UPDATE note SET tag = 'work' WHERE id = 2",
        "INSERT INTO note VALUES (3, NULL, '0 1 2', NULL, NULL, NULL)",
    )
    _, facts, _ = index(QUERY)
    counts = (facts["added"], facts["updated"], facts["unchanged"], facts["passages"])
    assert counts == (1, 1, 1, 2)
    assert ids()["app.db#note/2"][1] == {"tag": "work", "stars": 3.0}
    change("DELETE FROM note WHERE id = 1")
    assert index(QUERY, "--prune", "--dry-run")[1]["pruned"] == 1
    assert index(QUERY, "--prune")[1]["pruned"] == 1
    assert sorted(ids()) == ["app.db#note/2", "app.db#note/3", "app.db#other/1"]
    # The folder around it takes nothing away from the rows.
    Path("a.txt").write_text("a cat")
    assert main(["index", ".", "--store", "s.db", "--prune", "--quiet"]) == 0
    assert sorted(ids()) == ["a.txt", "app.db#note/2", "app.db#note/3", "app.db#other/1"]


def test_the_database_is_only_read_and_free_while_rows_are_embedded(
    index: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path("app.db").read_bytes()
    index(QUERY)
    assert Path("app.db").read_bytes() == before
    documents = rows.read_rows("app.db", QUERY, source="x/app.db")
    next(documents)
    change("DELETE FROM note")  # would be locked
    assert next(documents).text == "training of a model"
    for query in (
        "ATTACH 'new.db' AS n",
        "SELECT 1; SELECT 2",
        "DELETE FROM other",
        " ",
        "nonsense",
    ):
        with pytest.raises(UsageError, match="--sql"):
            list(rows.read_rows("app.db", query, source="x"))
    assert not Path("new.db").exists()
    monkeypatch.setattr(userdata, "TIMEOUT_S", 0.05)
    with closing(sqlite3.connect("app.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UsageError, match="locked by another program"):
            list(rows.read_rows("app.db", QUERY, source="x"))


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT body AS text FROM note", 'no column "id", but text'),
        ("SELECT id, body FROM note", 'no column "text", but id, body'),
        ("SELECT id, body AS text, tag, stars AS tag FROM note", 'the column "tag" twice'),
        ("SELECT 7 AS id, body AS text FROM note", "the id 7 2 times"),
        ("SELECT id, tag AS text FROM note", "row 2 (id 2): text is NULL"),
        ("SELECT tag AS id, body AS text FROM note", "row 2: id is NULL"),
        ("SELECT id, body AS text, pic FROM note", "the column 'pic' holds bytes"),
        ("SELECT id, text FROM nowhere", "no such table: nowhere"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(query: str, why: str, index: Run) -> None:
    code, facts, _ = index(query)
    assert (code, facts["error"]["kind"] in ("UsageError", "BadLineError")) == (2, True)
    assert why in facts["error"]["message"]


def test_bad_rows_are_left_out_where_that_is_asked_for(index: Run) -> None:
    code, facts, _ = index("SELECT id, tag AS text FROM note", "--skip-bad")
    assert (code, facts["added"], len(facts["bad_lines"])) == (5, 1, 1)
    change("UPDATE note SET tag = NULL")
    _, facts, _ = index("SELECT id, tag AS text FROM note", "--skip-bad", "--prune")
    assert (facts["pruned"], facts["kept"][0]["why"]) == (0, "could not be read completely")


def test_what_is_no_database_is_refused(index: Run) -> None:
    Path("x.db").write_text("no database at all, but long enough to look like one " * 40)
    assert "x.db is not a SQLite database" in index(QUERY, database="x.db")[1]["error"]["message"]
    assert "a file that is there" in index(QUERY, database="gone.db")[1]["error"]["message"]
    assert main(["index", "--sql", QUERY, "--store", "s.db"]) == 2
    assert main(["index", "--store", "s.db"]) == 2
    assert main(["index", "a", "--sql", QUERY, "--database", "app.db", "--store", "s.db"]) == 2
    assert not Path("s.db").exists()
