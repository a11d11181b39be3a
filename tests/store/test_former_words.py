"""Stores whose words some version of Python joined: their index is made anew, once."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge_mrl.store import Store, check
from edge_mrl.store.keywords.form import keyword_text
from edge_mrl.store.migrations import MIGRATIONS
from edge_mrl.store.schema import tenth
from tests.support.migrating import kill_at
from tests.support.stores import entry, open_store

BALINESE = "cafe\u0301 \u1b05\u1b35"
KAITHI = "\U00011099\U000110ba"
MARKS = "a\u1dc4\u0327 end"
EMOJI = "stra\u00dfe \U0001f600 \u1e9e"


def of_python(text: str) -> str:
    """The form as programs of before made it."""
    return unicodedata.ucd_3_2_0.normalize("NFKC", text)


def of_newer(text: str) -> str:
    """The form as a Python would have made it that knows a character of tomorrow."""
    return text.replace("\u0378", "x")


def former(path: Path, *texts: str, form: Callable[[str], str] = of_python) -> Path:
    """A store of version 9 with these texts, and the words that its program made of them."""
    with open_store(path) as store:
        store.put([entry(str(n), text) for n, text in enumerate(texts)])
    with closing(sqlite3.connect(path)) as connection, connection:
        for key, text in connection.execute("SELECT key, text FROM documents").fetchall():
            row = (key, keyword_text(text))
            connection.execute(
                "INSERT INTO keywords (keywords, rowid, text) VALUES ('delete', ?, ?)", row
            )
            connection.execute(
                "INSERT INTO keywords (rowid, text) VALUES (?, ?)", (key, form(text))
            )
        connection.execute("DELETE FROM migrations WHERE version = 10")
        connection.execute("PRAGMA user_version = 9")
    return path


def words(path: Path) -> list[tuple[str, int]]:
    """All words, and the documents in which they stand."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.v USING fts5vocab (main, keywords, instance)")
        return connection.execute("SELECT term, doc FROM v ORDER BY doc, offset").fetchall()


def found(path: Path, query: str) -> list[str]:
    with Store.open(path) as store, store.reading() as view:
        keys = [key for key, _ in view.keyword_matches(query, k=9)]
        documents = view.documents(keys)
        return [documents[key].id for key in keys]


@pytest.mark.parametrize("text", [BALINESE, KAITHI, MARKS])
def test_words_of_before_are_made_anew(text: str, tmp_path: Path) -> None:
    path = former(tmp_path / "s.db", text, "the ferry", "")
    assert of_python(text) != keyword_text(text)
    before = words(path)
    with Store.open(path) as store:
        assert check(store).sound
        store.put([entry("0", "other"), entry("3", text)])
        assert check(store).sound
    assert words(path) != before
    assert found(path, f'"{text}"') == ["3"]
    assert found(path, "ferry") == ["1"]


def test_without_the_migration_the_words_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenth, "_depends", lambda _: False)
    with Store.open(former(tmp_path / "s.db", BALINESE)) as store:
        assert "index of words" in str(check(store).problems)


def test_characters_of_tomorrow_are_made_anew(tmp_path: Path) -> None:
    assert unicodedata.category("\u0378") == "Cn"
    path = former(tmp_path / "s.db", "a\u0378b", form=of_newer)
    assert words(path) == [("axb", 1)]
    with Store.open(path) as store:
        assert check(store).sound


def test_words_that_are_the_same_are_left_alone(tmp_path: Path) -> None:
    path = former(tmp_path / "s.db", EMOJI, "cafe\u0301 \ufb01", "plain")
    statements: list[str] = []
    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(statements.append)
        connection.execute("BEGIN")
        tenth.fill_tenth(connection, tenth.Report(connection, 10))
        connection.rollback()
    assert not [one for one in statements if not one.startswith(("SELECT", "BEGIN", "ROLLBACK"))]
    with Store.open(path) as store:
        assert check(store).sound


def test_damaged_text_has_no_words_then(tmp_path: Path) -> None:
    path = former(tmp_path / "s.db", BALINESE, "the ferry")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE documents SET text = CAST(x'66ff' AS TEXT) WHERE id = '1'")
    with Store.open(path) as store:
        problems = str(check(store).problems)
        assert "'1'" in problems
        assert "index of words" not in problems
    assert found(path, "ferry") == []


@pytest.mark.test
def test_making_words_anew_that_is_killed_begins_again(tmp_path: Path) -> None:
    path = former(tmp_path / "s.db", *(f"{BALINESE} number {n}" for n in range(300)))
    before = words(path)
    for record in (2, 4):
        kill_at(path, record)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (9,)
        assert words(path) == before
    with Store.open(path) as store:
        assert check(store).sound


@pytest.mark.test
def test_making_words_anew_that_commits_half_is_noticed(tmp_path: Path) -> None:
    path = former(tmp_path / "s.db", *(f"{BALINESE} number {n}" for n in range(300)))
    before = words(path)
    kill_at(path, 4, "commits")
    assert words(path) != before


def test_the_migration_is_the_tenth() -> None:
    assert [name for name, _ in MIGRATIONS].index("0010-words-of-one-unicode") == 9
