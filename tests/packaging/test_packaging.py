"""The distribution: what a wheel holds, and that the runtime works without the exporter."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from edge_mrl import __version__

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.test


def call(*command: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What would be published: the source distribution, and the wheel made from that alone."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", out, ROOT)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


def test_distributions_are_fit_to_publish(dist: Path) -> None:
    files = sorted(dist.iterdir())
    names = [f"edge_mrl-{__version__}-py3-none-any.whl", f"edge_mrl-{__version__}.tar.gz"]
    assert [path.name for path in files] == names
    call(sys.executable, "-m", "twine", "check", "--strict", *files)


def test_wheel_is_pure_and_complete(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in (
        ("edge_mrl", "edge_mrl"),
        ("export/edge_mrl_export", "edge_mrl_export"),
        ("server/edge_mrl_server", "edge_mrl_server"),
    ):
        for path in (ROOT / folder).rglob("*.py"):
            assert f"{package}/{path.relative_to(ROOT / folder).as_posix()}" in names
    data = {f"edge_mrl_export/texts/data/{name}.txt" for name in ("calibration", "passages")}
    assert {"edge_mrl/py.typed", *data} <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/", "demo/"))]


def test_runtime_works_alone_and_names_what_export_needs(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ROOT / "constraints" / "tested.txt"
    call(python, "-m", "pip", "install", "-q", "-c", constraints, wheel)
    listed = call(python, "-m", "pip", "list", "--format=freeze").stdout.lower()
    assert "torch" not in listed
    assert "transformers" not in listed
    bundle = ROOT / "tests" / "golden" / "tiny-bert-16"
    edge = python.parent / "edge-mrl"
    assert "result" in call(edge, "verify", bundle).stdout
    (tmp_path / "notes.txt").write_text("the cat and the dog", "utf-8")
    store = tmp_path / "s.db"
    call(edge, "index", tmp_path / "notes.txt", "--bundle", bundle, "--store", store, "--quiet")
    assert "the cat and the dog" in call(edge, "search", "a cat", "--store", store).stdout
    refused = call(edge, "export", "-o", tmp_path / "bundle", code=3)
    assert 'pip install "edge-mrl[export]"' in refused.stderr
    refused = call(edge, "serve", "--database", tmp_path / "server.db", code=3)
    assert 'pip install "edge-mrl[server]"' in refused.stderr
    assert not (tmp_path / "bundle").exists()
