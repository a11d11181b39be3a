"""Adapting a store: what is refused at once, and former names. What it does is in test_adapt.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_mrl.cli import main
from edge_mrl.errors import UsageError
from edge_mrl.heads.adaptation import adapt
from edge_mrl.index import Index
from tests.support.bundles import TINY, copy_bundle


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose bundle's graph has no place for a head."""
    Index.open(tmp_path / "notes.db", copy_bundle(tmp_path / "bundle", TINY)).close()
    return tmp_path / "notes.db"


def test_former_name_of_excerpts_still_works_and_warns(store: Path) -> None:
    with (
        Index.open(store) as index,
        pytest.warns(DeprecationWarning, match="excerpts"),
        pytest.raises(UsageError, match="no place for a head"),
    ):
        adapt(index, pieces=False)


def test_unknown_keyword_is_a_type_error(store: Path) -> None:
    with Index.open(store) as index, pytest.raises(TypeError, match="'piece'"):
        adapt(index, piece=False)


@pytest.mark.parametrize("option", ["--no-pieces", "--no-excerpts"])
def test_former_option_warns(option: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "--store", str(store), option]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert ("edge-mrl: warning: --no-pieces is called --no-excerpts now" in lines) == (
        option == "--no-pieces"
    )
    assert "no place for a head" in lines[-1]


def test_nothing_is_left_behind(store: Path) -> None:
    before = sorted(path.name for path in store.parent.iterdir())
    assert main(["adapt", "--store", str(store), "--quiet"]) == 2
    assert sorted(path.name for path in store.parent.iterdir()) == before
