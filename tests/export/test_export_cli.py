"""``edge-mrl export`` in real processes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mrl.bundle.manifest import read_manifest
from tests.support import tiny

pytestmark = pytest.mark.test


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentence_folder(tmp_path_factory.mktemp("model"))


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_mrl", "export", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_json_is_one_object_and_nothing_else(model: Path, tmp_path: Path) -> None:
    done = run(model, "--dim", "16", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["dim"] == 16
    assert data["fidelity"]["cosine_mean"] >= 0.998
    assert Path(data["path"]) == tmp_path / "model-16"  # the default: name and dim
    manifest = read_manifest(data["path"])
    assert (manifest.space_id, manifest.code_id) == (data["space_id"], data["code_id"])
    assert data["size_bytes"] == manifest.size_bytes
    assert set(data["seconds"]) >= {"load source model", "verify"}


def test_gate_and_usage_have_their_own_exit_codes(model: Path, tmp_path: Path) -> None:
    low = run(model, "--dim", "8", "--int4", "--head", "prefix", "--json", cwd=tmp_path)
    assert low.returncode == 1
    assert json.loads(low.stdout)["error"]["kind"] == "GateError"
    assert "--allow-low-fidelity" in low.stderr
    wide = run(model, "--dim", "9999", cwd=tmp_path)
    assert wide.returncode == 2
    assert "9999" in wide.stderr
    assert "Traceback" not in wide.stderr
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_by_stage_on_a_terminal_alone(model: Path, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    arguments = (model, "--dim", "8", "--head", "prefix")
    command = [sys.executable, "-m", "edge_mrl", "export", *map(str, arguments), "-o", "a"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=terminal, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(controller, 4096)
            except OSError:  # Linux's end of a terminal
                break
            if not part:
                break
            shown += part
        printed = process.stdout.read() if process.stdout else ""
    os.close(controller)
    assert process.returncode == 0
    for stage in ("load source model", "trace and fuse", "calibrate", "measure bundle", "verify"):
        assert stage.encode() in shown
    assert "fidelity" in printed
    plain = run(*arguments, "-o", "b", cwd=tmp_path)
    assert plain.returncode == 0
    assert "trace and fuse" not in plain.stderr
