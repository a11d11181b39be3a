"""What --prune takes for gone: only what is; everything out of reach stays."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_mrl.sources import (
    Places,
    Pruning,
    RunFacts,
    Search,
    find_in_roots,
    kind_of,
    note_roots,
    read_documents,
    what_is_gone,
)
from edge_mrl.sources.mounts import mount_points, mounted_on, mounts_below
from edge_mrl.store import Store, read_roots, write_roots
from tests.sources.test_roots import TREES, entry, open_store, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "s.db") as store:
        yield store


def prune(store: Store, *paths: object) -> Pruning:
    """Read paths and tell what is gone, as the command does."""
    places = Places(store)
    places.resolve([str(path) for path in paths])
    scan = find_in_roots(places, Search())
    note_roots(store, places)
    unread: set[str] = set()
    seen, filled = set(), set()
    for file in scan.files:
        found = list(read_documents([file], skipped=lambda *_, s=file.source: unread.add(s)))
        store.put([entry(document) for document in found])
        seen |= {document.id for document in found}
        filled |= {file.source} if found and kind_of(file.path) == "lines" else set()
    files = {file.source for file in scan.files}
    return what_is_gone(store, places, RunFacts(seen.__contains__, files, unread, filled))


def gone(pruning: Pruning) -> list[str]:
    return sorted(name.partition("/")[2] for name in pruning.gone)


def tree(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, name)
    return root


# --- what goes


def test_a_deleted_file_and_a_deleted_folder_go(store: Store, tmp_path: Path) -> None:
    root = tree(tmp_path / "n", "a.md", "b.md", "sub/c.md", "sub/deep/d.md")
    assert gone(prune(store, root)) == []
    (root / "a.md").unlink()
    shutil.rmtree(root / "sub")
    assert gone(prune(store, root)) == ["a.md", "sub/c.md", "sub/deep/d.md"]


def test_a_line_that_is_gone_goes_and_an_emptied_file_does_not(
    store: Store, tmp_path: Path
) -> None:
    lines = write(
        tmp_path / "n" / "x.jsonl", '{"id": "1", "text": "a"}\n{"id": "2", "text": "b"}\n'
    )
    prune(store, lines.parent)
    lines.write_text('{"id": "1", "text": "a"}\n')
    assert prune(store, lines.parent).gone == ["2"]
    lines.write_text("")
    assert prune(store, lines.parent).gone == []


def test_a_file_that_became_a_folder_goes(store: Store, tmp_path: Path) -> None:
    root = tree(tmp_path / "n", "a.md", "b.md")
    prune(store, root)
    (root / "a.md").unlink()
    tree(root / "a.md", "c.md")
    assert gone(prune(store, root)) == ["a.md"]


def test_only_what_is_below_the_given_paths_goes(store: Store, tmp_path: Path) -> None:
    root = tree(tmp_path / "n", "a/x.md", "a/y.md", "b/x.md", "b/y.md")
    other = tree(tmp_path / "m", "x.md", "y.md")
    prune(store, root, other)
    for file in (root / "a/x.md", root / "b/x.md", other / "x.md"):
        file.unlink()
    assert gone(prune(store, root / "a")) == ["a/x.md"]
    assert gone(prune(store, other)) == ["x.md"]
    assert gone(prune(store, root)) == ["a/x.md", "b/x.md"]


def test_documents_of_a_folder_with_its_own_name_inside_go_too(
    store: Store, tmp_path: Path
) -> None:
    root = tree(tmp_path / "n", "a.md", "sub/x.md", "sub/y.md")
    prune(store, root / "sub")
    prune(store, root)
    (root / "sub" / "x.md").unlink()
    assert gone(prune(store, root)) == ["x.md"]


# --- what stays


def away_root(root: Path) -> None:
    root.rename(root.parent / "away")


def emptied_root(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def emptied_inside(root: Path) -> None:
    shutil.rmtree(root / "sub")
    (root / "sub").mkdir()


def emptied_deep(root: Path) -> None:
    emptied_inside(root)
    (root / "sub" / "deep").mkdir()


def file_for_root(root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("a file")


def link_for_folder(root: Path) -> None:
    (root / "sub").rename(root.parent / "away")
    (root / "sub").symlink_to(root.parent / "nowhere")


def link_for_file(root: Path) -> None:
    (root / "a.md").unlink()
    (root / "a.md").symlink_to(root.parent / "nowhere.md")


def hidden_kind(root: Path) -> None:
    (root / "a.md").write_bytes(b"\x00\x01")


REACHES = [
    away_root,
    emptied_root,
    emptied_inside,
    emptied_deep,
    file_for_root,
    link_for_folder,
    link_for_file,
    hidden_kind,
]


@pytest.mark.parametrize("change", REACHES, ids=lambda change: change.__name__)
def test_what_is_out_of_reach_stays_and_is_named(
    change: Callable[[Path], None], store: Store, tmp_path: Path
) -> None:
    root = tree(tmp_path / "n", "a.md", "sub/deep/b.md")
    other = tree(tmp_path / "m", "c.md")
    prune(store, root, other)
    change(root)
    found = prune(store, root, other)
    assert found.gone == []
    assert sum(found.kept.values()) >= 1
    assert all(where and why for where, why in found.kept)


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may list every folder; tests/cli does it as another"
)
def test_a_folder_without_permission_stays(store: Store, tmp_path: Path) -> None:
    root = tree(tmp_path / "n", "a.md", "sub/b.md")
    prune(store, root)
    (root / "sub").chmod(0)
    try:
        assert prune(store, root).gone == []
    finally:
        (root / "sub").chmod(0o755)


def test_a_drive_that_was_mounted_inside_stays_even_if_its_folder_is_not_empty(
    store: Store, tmp_path: Path
) -> None:
    root = tree(tmp_path / "n", "a.md", "usb/b.md", "usb/c.md")
    prune(store, root)
    (known,) = read_roots(store)
    write_roots(store, [replace(known, mounts=("usb",))])
    for name in "bc":
        (root / "usb" / f"{name}.md").unlink()
    tree(root, "usb/README.md")
    found = prune(store, root)
    assert found.gone == []
    assert any("mounted drive" in why for _, why in found.kept)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no other file system to look at")
def test_drives_inside_a_folder_are_told_by_their_device() -> None:
    devices = [("/", Path("/").stat().st_dev), ("/dev", Path("/dev").stat().st_dev)]
    devices.append(("/dev/shm", Path("/dev/shm").stat().st_dev))
    assert "dev/shm" in mounts_below("/", devices, frozenset())
    if "/dev/shm" in mount_points():
        assert mounted_on("/dev/shm/a/b", mount_points()) == "/dev/shm"


def test_mount_points_are_read_with_their_escapes(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("36 35 98:0 / /media/my\\040usb rw - ext3 /dev/root rw\n")
    assert mount_points(str(table)) == {"/media/my usb"}
    assert mount_points(str(tmp_path / "none")) == frozenset()


def test_many_deletions_are_large(tmp_path: Path) -> None:
    few, some, most = (
        Pruning([str(n) for n in range(count)], Counter(), total)
        for count, total in ((25, 25), (33, 100), (34, 100))
    )
    assert [few.is_large, some.is_large, most.is_large] == [False, False, True]


# --- all of it


@pytest.mark.test
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree_=TREES, removed=st.sets(st.integers(0, 4)), emptied=st.booleans())
def test_what_goes_is_exactly_what_was_deleted_where_a_neighbour_is_left(
    tree_: set[str], removed: set[int], emptied: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp = tmp_path_factory.mktemp("tree")
    root = tree(tmp / "n", *tree_)
    with open_store(tmp / "s.db") as store:
        prune(store, root)
        names = sorted(tree_)
        deleted = {names[place] for place in removed if place < len(names)}
        for name in deleted:
            (root / name).unlink()
        if not emptied:  # folders that a person would remove with their last file
            for folder in sorted(root.rglob("*"), reverse=True):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
        # The rule, told once more: the nearest folder that is there must hold something.
        expected = set()
        for name in deleted:
            folder = (root / name).parent
            while not folder.exists():
                folder = folder.parent
            if folder == root or root in folder.parents:
                expected |= {name} if any(folder.iterdir()) and any(root.iterdir()) else set()
        assert set(gone(prune(store, root))) == expected


def test_a_judge_that_believes_every_missing_file_is_caught(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above can fail: what only asks whether a file is there deletes what is away."""
    root = tree(tmp_path / "n", "a.md", "sub/deep/b.md")
    prune(store, root)
    emptied_inside(root)
    monkeypatch.setattr("edge_mrl.sources.gone._look_into", lambda _: None)
    assert gone(prune(store, root)) == ["sub/deep/b.md"]
