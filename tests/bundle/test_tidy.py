"""The cache of unpacked bundles stays within its bound."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_mrl.bundle import bundle_folder, pack_bundle
from edge_mrl.bundle.tidy import tidy
from edge_mrl.encode import Encoder
from edge_mrl.errors import UsageError
from tests.support.bundles import ROOT, TINY, TINY_COARSE, TINY_STATIC

HOURS = 3600.0


def fill(cache: Path, *ages_h: float, size: int = 1_000_000) -> list[Path]:
    """Bundles of a size, used so many hours ago."""
    folders = []
    for number, age in enumerate(ages_h):
        folder = cache / f"{number:064}"
        folder.mkdir(parents=True)
        (folder / "model.onnx.data").write_bytes(b"x" * size)
        os.utime(folder, (0, time.time() - age * HOURS))
        folders.append(folder)
    return folders


def left(cache: Path) -> list[str]:
    return sorted(path.name.lstrip("0") or "0" for path in cache.iterdir())


def test_what_was_used_longest_ago_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 50, 3, 200, 10, 100)
    tidy(tmp_path)
    assert left(tmp_path) == ["0", "1", "2", "3", "4"]  # the bound is 2,000 MB
    monkeypatch.setenv("EDGE_MRL_CACHE_MB", "3.5")
    tidy(tmp_path)
    assert left(tmp_path) == ["0", "1", "3"]
    monkeypatch.setenv("EDGE_MRL_CACHE_MB", "0")
    tidy(tmp_path)
    assert left(tmp_path) == []


def test_what_was_used_just_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MRL_CACHE_MB", "0")
    fill(tmp_path, 0, 1.5, 2.5)
    tidy(tmp_path)
    assert left(tmp_path) == ["0", "1"]


def test_only_bundles_and_what_was_left_unfinished_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MRL_CACHE_MB", "0")
    cache, other = tmp_path / "cache", tmp_path / "other"
    fill(other, 500)
    cache.mkdir()
    (cache / "link").symlink_to(other)
    (cache / "file").touch()
    for name, age in ((".old", 30), (".new", 20)):
        (cache / name).mkdir()
        os.utime(cache / name, (0, time.time() - age * HOURS))
    tidy(cache)
    assert left(cache) == [".new", "file", "link"]
    assert left(other) == ["0"]
    tidy(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_bound_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("EDGE_MRL_CACHE_MB", text)
    with pytest.raises(UsageError, match="expected a number of MB"):
        tidy(tmp_path)


def test_each_use_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGE_MRL_CACHE_MB", "0.1")
    packed = {}
    for bundle in (TINY, TINY_COARSE, TINY_STATIC):
        packed[bundle] = tmp_path / f"{bundle.name}.zip"
        pack_bundle(bundle, packed[bundle])
    first, second = bundle_folder(packed[TINY]), bundle_folder(packed[TINY_COARSE])
    for folder, age in ((first, 100), (second, 50)):
        os.utime(folder, (0, time.time() - age * HOURS))
    with Encoder.open(packed[TINY]) as encoder:  # the older one is used
        bundle_folder(packed[TINY_STATIC])
        assert first.is_dir()
        assert not second.is_dir()
        assert encoder.encode(["a cat"]).coarse.shape == (1, 16)
    assert bundle_folder(packed[TINY_COARSE]).is_dir()  # it is unpacked again


@pytest.mark.test
def test_many_processes_at_once(tmp_path: Path) -> None:
    """Each unpacks and deletes what it likes: a bundle is there as a whole, or not at all."""
    zips = []
    for bundle in (TINY, TINY_COARSE, TINY_STATIC):
        zips.append(str(tmp_path / f"{bundle.name}.zip"))
        pack_bundle(bundle, zips[-1])
    code = f"""
import random, sys
from contextlib import suppress
from pathlib import Path
from edge_mrl.bundle import bundle_folder, check_files, read_manifest
from edge_mrl.bundle.tidy import remove
from edge_mrl.errors import MissingFileError, UsageError
random.seed(int(sys.argv[1]))
for _ in range(60):
    folder = bundle_folder(Path(random.choice({zips!r})))
    with suppress(MissingFileError, UsageError):  # another one has just deleted it
        check_files(folder, read_manifest(folder), hashes=True)
    remove(random.choice([folder, *folder.parent.glob("[0-9a-f]*")]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDGE_MRL_CACHE": str(tmp_path / "cache")}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(n)], env=environment, stderr=subprocess.PIPE
        )
        for n in range(3)
    ]
    for child in children:
        _, said = child.communicate(timeout=60)
        assert child.returncode == 0, said.decode()
    cache = tmp_path / "cache" / "bundles"
    assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == []
