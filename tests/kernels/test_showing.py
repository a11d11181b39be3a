"""Commands say which engine this machine uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_mrl import Index, native
from edge_mrl.cli import main
from edge_mrl.diagnose import bench
from tests.support.bundles import TINY

pytestmark = pytest.mark.test


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("installed")
def test_stats_names_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store.db")
    Index.open(store, bundle=TINY).close()
    found = native.kernel_version()
    assert found is not None
    assert json.loads(said(capsys, "stats", "--store", store, "--json"))["kernels"] == found
    assert f"engine    kernels {found}" in said(capsys, "stats", "--store", store)
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    assert json.loads(said(capsys, "stats", "--store", store, "--json"))["kernels"] is None
    assert "engine    numpy" in said(capsys, "stats", "--store", store)


@pytest.mark.usefixtures("installed")
def test_a_benchmark_says_which_kernels_it_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench._machine()["versions"]["kernels"] == native.kernel_version()
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    assert "kernels" not in bench._machine()["versions"]
