"""Ids of files: one for each file, however its folder is named, and none that another device has."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_mrl.documents import Document, PassageRule
from edge_mrl.errors import StoreBusyError, UsageError
from edge_mrl.sources import (
    Places,
    Search,
    find_in_roots,
    find_sources,
    ids_of_paths,
    move_ids,
    note_roots,
    read_documents,
)
from edge_mrl.sources.lines import content_id
from edge_mrl.store import Binding, Entry, Store, check, read_roots, sources_below

if TYPE_CHECKING:
    from collections.abc import Iterator

BINDING = Binding("5" * 64, "c" * 64, 4, 1.0, "/bundles/tiny")


def open_store(path: Path) -> Store:
    return Store.create(path, BINDING, PassageRule(8, 1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "s.db") as store:
        yield store


def write(path: Path, text: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def entry(document: Document) -> Entry:
    return Entry(document, [(0, len(document.text))], np.ones((1, 4), np.int8))


def index(store: Store, *paths: object, move: bool = False) -> list[str]:
    """Read paths into a store, as the command does; returns the ids that were read, sorted."""
    places = Places(store, move_ids=move)
    places.resolve([str(path) for path in paths])
    scan = find_in_roots(places, Search())
    note_roots(store, places)
    for one in places.moves:
        move_ids(store, one, others=list(places.roots.values()), advance=lambda _: None)
    documents = list(read_documents(scan.files, skipped=pytest.fail))
    store.put([entry(document) for document in documents])
    return sorted(document.id for document in documents)


def as_before(store: Store, *names: str, text: str = "text") -> None:
    """Put documents as earlier versions did: with paths as they were given."""
    store.put([entry(Document(name, text, source=name.split(":")[0])) for name in names])


def ids(store: Store) -> list[str]:
    return sorted(name for name, _ in sources_below(store, ""))


NAMES = st.text("ab", min_size=1, max_size=2)
TREES = st.sets(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join).map(lambda name: name + ".md"),
    min_size=1,
    max_size=5,
)
WAYS = st.sampled_from(
    ["plain", "slash", "absolute", "dotted", "linked", "inside", "above", "file"]
)


def ways(root: Path, tmp: Path, way: str, tree: set[str]) -> tuple[Path, str]:
    """A working folder, and one of the ways to name the same folder from there."""
    link = tmp / "link"
    if not link.is_symlink():
        link.symlink_to(root)
    return {
        "plain": (root.parent, root.name),
        "slash": (root.parent, f"{root.name}//"),
        "absolute": (tmp, str(root)),
        "dotted": (root, f"../{root.name}/."),
        "linked": (tmp, str(link)),
        "inside": (root, "."),
        "above": (tmp, os.path.relpath(root, tmp)),
        "file": (root, min(tree)),
    }[way]


@pytest.mark.test
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=TREES, order=st.lists(WAYS, min_size=2, max_size=4))
def test_a_file_has_one_id_however_its_folder_is_named(
    tree: set[str], order: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp = tmp_path_factory.mktemp("tree")
    root = tmp / "deep" / "notes"
    for name in tree:
        write(root / name, name)
    before = Path.cwd()
    try:
        with open_store(tmp / "s.db") as store:
            for way in order:
                folder, path = ways(root, tmp, way, tree)
                os.chdir(folder)
                index(store, path)
            index(store, root)
            assert len(ids(store)) == len(tree)
            # Nothing above the folder is told.
            assert not any(str(tmp) in name or "deep" in name for name in ids(store))
    finally:
        os.chdir(before)


def test_ids_by_given_paths_would_be_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: ids by the path as given differ from folder to folder."""
    root = write(tmp_path / "notes" / "a.md").parent
    monkeypatch.chdir(root)
    assert find_sources(["."])[0].source != find_sources([root])[0].source


def test_two_stores_give_other_ids_to_folders_of_one_name(tmp_path: Path) -> None:
    for device in "AB":
        write(tmp_path / device / "notes" / "todo.md", device)
    found = []
    for device in "AB":
        with open_store(tmp_path / f"{device}.db") as store:
            found += index(store, tmp_path / device / "notes")
    with open_store(tmp_path / "C.db") as store:  # two folders of one name on one device
        found += index(store, tmp_path / "A" / "notes", tmp_path / "B" / "notes")
    assert len(set(found)) == 4
    assert all(name.startswith("notes@") and name.endswith("/todo.md") for name in found)


def test_a_name_is_kept_and_moves_with_its_folder(store: Store, tmp_path: Path) -> None:
    root = write(tmp_path / "a" / "notes" / "x.md").parent
    assert index(store, f"mine={root}") == ["mine/x.md"]
    assert index(store, root) == ["mine/x.md"]
    with pytest.raises(UsageError, match="still there"):
        index(store, f"mine={write(tmp_path / 'other' / 'y.md').parent}")
    moved = root.rename(tmp_path / "b")
    assert index(store, f"mine={moved}") == ["mine/x.md"]
    assert index(store, moved / "x.md") == ["mine/x.md"]


def test_a_moved_folder_with_its_files_is_known_again(store: Store, tmp_path: Path) -> None:
    root = write(tmp_path / "a" / "notes" / "x.md").parent
    first = index(store, root)
    (tmp_path / "b").mkdir()
    assert index(store, root.rename(tmp_path / "b" / "notes")) == first
    other = write(tmp_path / "c" / "notes" / "y.md").parent
    (tmp_path / "b" / "notes").rename(tmp_path / "away")
    assert index(store, other) != first


@pytest.mark.parametrize("name", ["..", ".", "-", " a", "a#b", "a" * 101, "a\x01"])
def test_names_that_cannot_begin_ids_are_refused(name: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a folder"):
        index(store, f"{name}={tmp_path}")


def test_a_folder_whose_name_looks_like_a_name_and_path_is_that_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a=b" / "x.md")
    monkeypatch.chdir(tmp_path)
    assert index(store, "a=b")[0].startswith("a=b@")


def test_nested_folders_keep_their_ids_in_any_order(store: Store, tmp_path: Path) -> None:
    root = write(tmp_path / "notes" / "x.md").parent
    inner = write(root / "sub" / "y.md").parent
    first = index(store, inner)
    both = index(store, root)
    assert set(first) < set(both)
    assert len(both) == 2
    assert index(store, inner) == first


def test_two_processes_that_index_a_folder_first_do_not_double_it(
    store: Store, tmp_path: Path
) -> None:
    root = write(tmp_path / "notes" / "x.md").parent
    both = [Places(store), Places(store)]
    for places in both:
        places.resolve([str(root)])
    note_roots(store, both[0])
    with pytest.raises(StoreBusyError, match="try again"):
        note_roots(store, both[1])
    assert len(read_roots(store)) == 1


# --- stores of earlier versions


def test_old_ids_stay_until_they_are_moved(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "home" / "notes" / "x.md").parent
    write(root / "lines.jsonl", '{"text": "one"}\n{"id": "mine", "text": "two"}\n')
    as_before(store, "notes/x.md")
    as_before(store, "notes/lines.jsonl:1", text="one")
    store.put([entry(Document("mine", "two", source="notes/lines.jsonl"))])
    monkeypatch.chdir(tmp_path / "home")
    old = ["mine", "notes/lines.jsonl:1", "notes/x.md"]
    assert index(store, "notes") == old == ids(store)
    monkeypatch.chdir(tmp_path)
    assert index(store, root) == old == ids(store)
    new = index(store, root, move=True)
    assert new == ids(store)
    name = next(iter(read_roots(store))).prefix
    assert new == sorted(["mine", f"{name}x.md", content_id(f"{name}lines.jsonl", "one", {})])
    assert index(store, root) == new == ids(store)


@pytest.mark.parametrize("given", ["notes", ".", "absolute"])
def test_old_ids_are_known_from_another_folder(
    given: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "notes" / "x.md").parent
    old = {"notes": "notes/x.md", ".": "x.md", "absolute": f"{root}/x.md"}[given]
    as_before(store, old)
    monkeypatch.chdir(root)
    assert index(store, "../notes/") == [old]


def test_another_folder_of_the_name_does_not_take_old_ids(store: Store, tmp_path: Path) -> None:
    as_before(store, "notes/ferry.md")
    other = write(tmp_path / "other" / "notes" / "tide.md").parent
    assert index(store, other)[0].startswith("notes@")
    as_before(store, "notes/a.md", "notes/b.md", "notes/c.md")
    third = write(tmp_path / "third" / "notes" / "a.md").parent
    with pytest.raises(UsageError, match="say so with notes="):
        index(store, third)
    assert index(store, f"notes={third}") == ["notes/a.md"]


def test_a_folder_can_be_given_another_name(store: Store, tmp_path: Path) -> None:
    root = write(tmp_path / "notes" / "x.md").parent
    index(store, root)
    with pytest.raises(UsageError, match="--move-ids"):
        index(store, f"shared={root}")
    assert index(store, f"shared={root}", move=True) == ["shared/x.md"] == ids(store)
    assert [root.prefix for root in read_roots(store)] == ["shared/"]


def test_an_interrupted_move_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mrl.store.roots.MOVE_DOCUMENTS", 1)
    root = tmp_path / "notes"
    for name in "abc":
        write(root / f"{name}.md", name)
    index(store, f"old={root}")
    places = Places(store, move_ids=True)
    places.resolve([f"new={root}"])

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move_ids(store, places.moves[0], others=[], advance=stop)
    assert ids(store) == ["new/a.md", "old/b.md", "old/c.md"]
    assert index(store, root) == ["new/a.md", "new/b.md", "new/c.md"] == ids(store)


def test_a_move_leaves_documents_whose_new_id_is_taken(store: Store, tmp_path: Path) -> None:
    root = write(tmp_path / "notes" / "x.md", "mine").parent
    index(store, f"old={root}")
    store.put([entry(Document("new/x.md", "another's"))])
    places = Places(store, move_ids=True)
    places.resolve([f"new={root}"])
    moved = move_ids(store, places.moves[0], others=[], advance=lambda _: None)
    assert (moved.moved, moved.left) == (0, 1)
    assert store.get(["new/x.md"])["new/x.md"].text == "another's"
    assert store.get(["old/x.md"])["old/x.md"].text == "mine"


def test_a_root_whose_row_is_damaged_is_found_again(store: Store, tmp_path: Path) -> None:
    root = write(tmp_path / "notes" / "x.md").parent
    first = index(store, root)
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE roots SET path = x'00'")
    assert read_roots(store) == []
    assert "roots" in check(store).problems[0]
    assert check(store, repair=True).sound
    assert index(store, root) == first


# --- ids by content


@pytest.mark.test
@settings(max_examples=30, deadline=None)
@given(
    lines=st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), extra=st.sampled_from("abxy")
)
def test_lines_without_id_keep_their_documents_when_lines_are_inserted(
    lines: list[str], extra: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    file = folder / "x.jsonl"

    def put(texts: list[str]) -> set[str]:
        file.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
        return set(index(store, folder))

    with open_store(folder / "s.db") as store:
        first = put(lines)
        assert len(first) == len(set(lines))
        assert first <= put([extra, *lines])


def test_equal_text_with_other_metadata_is_another_document(store: Store, tmp_path: Path) -> None:
    write(
        tmp_path / "n" / "x.jsonl", '{"text": "a", "n": 1}\n{"n": 1, "text": "a"}\n{"text": "a"}\n'
    )
    assert len(set(index(store, tmp_path / "n"))) == 2


def test_path_of_a_file_stands_for_its_id(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "notes" / "x.md").parent
    (name,) = index(store, root)
    monkeypatch.chdir(root)
    assert ids_of_paths(store, ["x.md", "../notes/x.md", name]) == {
        "x.md": name,
        "../notes/x.md": name,
    }
