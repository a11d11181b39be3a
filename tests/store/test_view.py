"""What a view shows of one state of a store, and that it believes nothing it reads."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.errors import BindingError, DamagedError
from edge_mrl.store import SEARCH_STAGES, Binding, Store, reindex
from edge_mrl.store.statements import SQL_PARAMETERS
from tests.support.stores import BINDING, RULE, entry, full_entry, open_enrolled, open_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


def change(path: Path, statement: str) -> None:
    """Change a closed store behind its back."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_documents_and_places_come_by_key(path: Path) -> None:
    with open_store(path) as store:
        store.put(
            [entry("a", "text a", 2, lang="en"), entry("b", "text b", 0), entry("c", "text c")]
        )
        with store.reading() as view:
            keys = view.existing(range(9))
            assert {key: one.id for key, one in view.documents(keys).items()} == {
                1: "a",
                2: "b",
                3: "c",
            }
            assert view.places([1, 3]) == {1: (0, [(0, 6), (1, 6)]), 3: (2, [(0, 6)])}
            assert view.places([1, 2], partial=True) == {1: (0, [(0, 6), (1, 6)])}
            assert view.passage_counts() == [(1, 2), (3, 1)]
            assert view.select({"lang": "en"}).tolist() == [1]


def test_what_is_missing_is_damage(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "text a", 0)])
        with store.reading() as view:
            with pytest.raises(DamagedError, match="without a document"):
                view.documents([1, 2])
            with pytest.raises(DamagedError, match="without a document's passages"):
                view.places([1])
            assert view.existing([1, 2]) == [1]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE documents SET text = 'other'", "document 'a' is not what was stored"),
        ("UPDATE documents SET metadata = '{\"k\": 2}'", "document 'a' is not what was stored"),
        ("UPDATE documents SET text = x'ff'", "document 'a' is not what was stored"),
        ("UPDATE passages SET spans = x'0000000001000000'", "passages of document 1"),
        ("UPDATE fulls SET vectors = zeroblob(16)", "full vectors of document 1"),
        ("UPDATE settings SET value = 'wrong'", "setting 'funnel' cannot be trusted"),
    ],
)
def test_damage_is_found_when_it_is_read(path: Path, statement: str, message: str) -> None:
    with open_enrolled(path) as store:
        store.put([full_entry("a", k=1)])
        store.set_setting(SEARCH_STAGES, "4x8")
    change(path, statement)

    def read(store: Store) -> None:
        with store.reading() as view:
            view.documents([1])
            view.places([1])
            view.fulls([1])
            view.setting(SEARCH_STAGES)

    with Store.open(path) as store, pytest.raises(DamagedError, match=message) as error:
        read(store)
    assert str(path) in str(error.value)


def test_more_keys_than_one_statement_can_take_are_read(path: Path) -> None:
    number = 2 * SQL_PARAMETERS + 1
    with open_store(path) as store:
        store.put([entry(str(i), "x") for i in range(number)])
        with store.reading() as view:
            keys = list(range(1, number + 1))
            assert view.existing(keys) == keys
            assert len(view.documents(keys)) == len(view.places(keys)) == number


def test_full_vectors_are_shown_where_they_are_kept(path: Path, tmp_path: Path) -> None:
    with open_enrolled(path) as store:
        store.put([full_entry("a", passages=2)])
        with store.reading() as view:
            assert view.keeps_full
            assert np.array_equal(view.fulls([1, 9])[1], np.full((2, 8), 0.5, np.float32))
    with open_store(tmp_path / "other.db") as store:
        store.put([entry("a")])
        with store.reading() as view:
            assert not view.keeps_full
            assert view.fulls([1]) == {}


def test_setting_is_kept_until_the_codes_are_others(path: Path) -> None:
    with open_store(path) as store:
        store.set_setting(SEARCH_STAGES, "4x1:9,4x8")
        store.set_setting("other", "text")
    with Store.open(path) as store:
        with store.reading() as view:
            assert view.setting(SEARCH_STAGES) == "4x1:9,4x8"
            assert view.setting("nothing") is None
        store.set_setting("other", None)
        with store.reading() as view:
            assert view.setting("other") is None
        wanted = reindex.Reindexing(
            Binding("space-2", "code-2", 4, 1.0, "/bundles/two"), RULE, None
        )
        reindex.begin(store, wanted)
        assert reindex.finish(store)
        with store.reading() as view:
            assert view.setting(SEARCH_STAGES) is None


def test_setting_for_codes_that_are_gone_is_refused(path: Path) -> None:
    with open_store(path) as store, Store.open(path) as other:
        wanted = reindex.Reindexing(
            Binding("space-2", "code-2", 4, 1.0, "/bundles/two"), RULE, None
        )
        reindex.begin(other, wanted)
        assert reindex.finish(other)
        with pytest.raises(BindingError, match="has been changed to another bundle"):
            store.set_setting(SEARCH_STAGES, "4x8")
        with other.reading() as view:
            assert view.setting(SEARCH_STAGES) is None
    assert BINDING.space_id != wanted.binding.space_id
