"""The wheel that carries a bundle, as it is installed: nothing is named, and a search answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.bundles import ROOT, TINY, copy_bundle
from tests.support.models import build_model, unpack
from tests.support.processes import good, run

pytestmark = pytest.mark.test


def test_the_wheel_gives_its_bundle_to_all_commands(tmp_path: Path) -> None:
    done = build_model(tmp_path / "dist", TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = unpack(tmp_path / "dist", tmp_path / "site") / "edge_mrl_minilm" / "bundle"
    assert {path.name for path in TINY.iterdir()} == {path.name for path in bundle.iterdir()}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("the cat and the dog", "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_MRL_")}
    environment = {
        **kept,
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "site")]),
    }
    options = {"cwd": tmp_path, "env": environment}
    good("index", "notes", "--store", "notes.db", **options)
    answer = good("search", "a cat", "--store", "notes.db", **options)
    assert b"the cat and the dog" in answer.stdout
    assert b"good" in good("verify", **options).stdout
    del environment["PYTHONPATH"]
    refused = run("index", "notes", "--store", "other.db", **options)
    assert (refused.returncode, b"install edge-mrl-minilm" in refused.stderr) == (2, True)


def test_a_wheel_is_not_built_of_a_damaged_bundle(tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[50] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    done = build_model(tmp_path / "dist", bundle)
    assert done.returncode != 0
    assert "model.onnx is damaged" in done.stdout + done.stderr
    done = build_model(tmp_path / "dist", tmp_path / "nowhere")
    assert "no bundle at" in done.stdout + done.stderr
