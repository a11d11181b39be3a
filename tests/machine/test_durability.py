"""Flushing to the storage device, as far as the calls to the system show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_mrl.machine import durability
from edge_mrl.machine.durability import sync_path


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were flushed, in order."""
    paths: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    monkeypatch.setattr(durability.os, "fsync", fsync)
    return paths


def test_files_and_folders_are_flushed(flushed: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    sync_path(file)
    sync_path(tmp_path)
    assert flushed == [str(file), str(tmp_path)]
    assert file.read_bytes() == b"x"


def test_no_descriptor_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = os.open
    monkeypatch.setattr(durability.os, "open", lambda *a: opened.append(real(*a)) or opened[-1])
    sync_path(tmp_path)

    def fail(_: int) -> None:
        raise OSError(5, "no")

    monkeypatch.setattr(durability.os, "fsync", fail)
    with pytest.raises(OSError, match="no"):
        sync_path(tmp_path)
    assert len(opened) == 2
    for descriptor in set(opened):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_path(tmp_path / "none")


def test_folder_is_left_out_where_folders_cannot_be_opened(
    flushed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(durability.os, "O_DIRECTORY")  # as on Windows
    sync_path(tmp_path)
    assert flushed == []
    (tmp_path / "a").touch()
    sync_path(tmp_path / "a")
    assert flushed == [str(tmp_path / "a")]
