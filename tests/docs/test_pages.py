"""The commands and programs of the pages of reference run, with tiny bundles and a real server."""

from __future__ import annotations

import io
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_mrl import Index
from edge_mrl.codes.packing import Packing
from tests.docs.shown import Page
from tests.support.bundles import copy_bundle, keep_codes_as
from tests.support.listening import listening
from tests.support.processes import COMMAND
from tests.support.serving import admin, enroll, serving

pytestmark = pytest.mark.test

DATABASE = "edge-mrl-server.db"
MONDAY = "the manual's way for PostgreSQL, which tests/faults takes"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: a bundle, another one, notes; and a home of its own."""
    copy_bundle(tmp_path / "minilm")
    keep_codes_as(copy_bundle(tmp_path / "minilm-256-int4"), Packing("int4", 1.0))
    for name in ("notes", "home", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes" / "a.txt").write_text("The ferry leaves at dawn.\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_store_page(folder: Path) -> None:
    page = Page(
        "store.md",
        replaced={
            "64x1:20000,256x1:5000,256x4": "16x1:20000,16x8",
            "256x1:2000,256x4": "16x1:2000,16x8",
        },
        instead={"python -m pip install": "it is installed"},
        given={"read_key": lambda: bytes.fromhex((folder / "home/.edge-mrl-key").read_text())},
    )
    assert page.run() == 10


def watch() -> None:
    """A command that goes on until it is interrupted."""
    command = [*COMMAND, "sync", "--store", "notes.db", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_sync_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index.open("notes.db", "minilm"):
        pass
    with serving(folder / DATABASE, "--quiet") as server:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{server.invitation}\n"))
        page = Page(
            "sync.md",
            replaced={"https://search.example.org": server.url},
            instead={"edge-mrl sync --store notes.db --watch": watch},
            given={
                "local_scores": [np.linspace(1, 0, 10, dtype=np.float32)] * 4,
                "quality_local": [0.5] * 4,
                "quality_server": [0.6] * 4,
            },
        )
        assert page.run() == 6


def a_device(url: str, tenant: str) -> str:
    """The id of a device that is enrolled now."""
    invitation = admin(DATABASE, "invitations", "create", tenant)["invitation"]
    caller = enroll(url, invitation)
    caller.close()
    return caller.device


def test_server_page(folder: Path) -> None:
    with serving(DATABASE, "--proxies", "127.0.0.1,10.0.0.0/8", "--quiet") as server:
        page = Page(
            "server.md",
            replaced={
                "acme 1f0c9a7be2d4c853": lambda: f"acme {a_device(server.url, 'acme')}",
                "1f0c9a7be2d4c853": lambda: a_device(server.url, "default"),
            },
            before={"edge-mrl admin restore monday.db": server.stop},
            instead={
                "pip install": "it is installed",
                "edge-mrl serve": "it runs",
                "pg_dump": MONDAY,
                "dropdb": MONDAY,
                "pg_restore": MONDAY,
                "edge-mrl admin restored": MONDAY,
            },
        )
        assert page.run() == 11


def test_agents_page(folder: Path) -> None:
    pytest.importorskip("mcp", reason="NOT TRIED: the package mcp is missing")
    index_notes()
    ran = Page(
        "agents.md",
        instead={
            "python -m pip install": "it is installed",
            "edge-mrl mcp": "the program starts it",
        },
    ).run()
    assert ran == 1


def index_notes() -> None:
    with Index.open("notes.db", "minilm") as index:
        index.put_files("notes")


def test_embeddings_page(folder: Path) -> None:
    pytest.importorskip("openai", reason="NOT TRIED: the package openai is missing")
    with listening("serve-embeddings", "--bundle", "minilm") as server:
        page = Page(
            "embeddings.md",
            replaced={"http://127.0.0.1:8079/v1": server.url},
            instead={
                "python -m pip install": "it is installed",
                "edge-mrl serve-embeddings": "it runs",
            },
        )
        assert page.run() == 1


@pytest.mark.parametrize(
    "measured", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["quickly", "whole"]
)
def test_troubleshooting_page(folder: Path, *, measured: bool) -> None:
    with Index.open("notes.db", "minilm"):
        pass
    instead = {} if measured else {"edge-mrl doctor": "it measures for half a minute"}
    assert Page("troubleshooting.md", instead=instead).run() == 1 + measured


@pytest.mark.parametrize(
    "wrong",
    [
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\nimport edge_mrl.nothing\n```\n",
        "```console\nedge-mrl index notes --bundle minilm --stor x.db\n```\n",
        "```bash\nfalse  # not a command of ours\n```\n",
        "```bash\nedge-mrl inspect minilm\n```\n\n```text\nan empty folder\n```\n",
    ],
)
def test_page_that_is_wrong_is_noticed(wrong: str, folder: Path) -> None:
    right = "```console\nedge-mrl index notes --bundle minilm --store x.db\n```\n"
    assert Page("index.md").run(right) == 1
    with pytest.raises((AssertionError, ImportError)):
        Page("index.md").run(wrong)


def test_what_a_page_does_not_have_any_more_is_noticed(folder: Path) -> None:
    with pytest.raises(AssertionError, match="any more"):
        Page("index.md", replaced={"gone": "here"}).run("```bash\ntrue\n```\n")
