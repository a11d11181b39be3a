"""Folders into an index, from Python."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from edge_mrl.cli import main
from edge_mrl.documents import Document
from edge_mrl.errors import UsageError
from edge_mrl.index import AsyncIndex, Index
from tests.support.bundles import TINY

pytestmark = pytest.mark.test


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("n/work").mkdir(parents=True)
    Path("n/work/a.md").write_text("---\ntags: [cat]\n---\n# a cat\n")
    Path("n/b.txt").write_text("a dog")
    Path("n/bad.txt").write_bytes(b"\xff\xfe\xff")
    Path("n/c.png").write_bytes(b"")


def test_a_folder_is_put_as_the_command_puts_it(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []
    with Index.open("s.db", TINY) as index:
        stored = index.put_files("n", skipped=lambda *one: told.append(one))
        assert (stored.added, stored.unchanged) == (2, 0)
        assert [place for place, _ in told] == ["*.png", "n/bad.txt"]
        assert [hit.metadata["title"] for hit in index.search("x", filter={"tags": "cat"})] == [
            "a cat"
        ]
        before = sorted(index.ids())
        assert index.put_files([Path("n/work"), "n/b.txt"]).unchanged == 2
        with caplog.at_level(logging.WARNING, "edge_mrl.sources"):
            index.put_files(Path("n"))
        assert len(caplog.records) == 2
        with pytest.raises(UsageError, match="no file or folder gone"):
            index.put_files("gone")
        with pytest.raises(UsageError, match="an image"):
            index.put_files("n/c.png")
    assert main(["index", "n", "--store", "s.db", "--quiet"]) == 0
    with Index.open("s.db") as index:
        assert sorted(index.ids()) == before


def test_options_and_other_threads() -> None:
    Path("n/d.log").write_bytes("caf\xe9".encode("latin-1"))

    async def put() -> list[str]:
        async with await AsyncIndex.open("s.db", TINY) as index:
            await index.put_files("n", include=["*.log"], encoding="latin-1", skipped=print)
            await index.put([Document("x", "y")])
            return [one.text async for one in index.documents({"folder": ""})]

    assert "caf\xe9" in asyncio.run(put())
