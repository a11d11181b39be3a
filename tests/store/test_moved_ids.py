"""Documents of an enrolled store that get new ids, and texts that other devices' ids collide with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge_mrl.documents import Document
from edge_mrl.store import Moved, Root, Store, check, move_some, read_roots, replica, sources_below
from edge_mrl.store.replica.queue import Verdict
from tests.store.test_arrivals import LATER, apply, deleted, pulled
from tests.support.stores import full_entry, open_enrolled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_mrl.store import Entry

OLD, NEW = Root("notes/", "/home/maria/notes", numbered=True), Root("n@abc/", "/home/maria/notes")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_enrolled(tmp_path / "s.db") as store:
        yield store
        assert check(store).problems == ()


def file_entry(name: str, text: str = "some text") -> Entry:
    entry = full_entry(name, text)
    return replace(entry, document=replace(entry.document, source=name))


def send(store: Store) -> None:
    """As if a server had taken everything that waits."""
    waiting = replica.outgoing(store, limit=99)
    verdicts = [Verdict(one.id, one.stamp, "applied") for one in waiting]
    replica.acknowledge(store, verdicts, offset_ms=0)


def rename(document: Document, old: Root, new: Root) -> tuple[str, str]:
    name = new.prefix + (document.source or "")[len(old.prefix) :]
    return name, name


def move(store: Store) -> Moved:
    total = Moved()
    while not total.done:
        total += move_some(store, OLD, NEW, inner=[], after=total.last, rename=rename)
    return total


def waiting(store: Store) -> list[tuple[str, bool]]:
    return sorted((one.id, one.deleted) for one in replica.outgoing(store, limit=99))


def test_what_a_server_has_moves_by_a_put_and_a_deletion(store: Store) -> None:
    store.put([file_entry("notes/sent")])
    send(store)
    store.put([file_entry("notes/new")])
    assert (move(store).moved, read_roots(store)) == (2, [NEW])
    assert waiting(store) == [("n@abc/new", False), ("n@abc/sent", False), ("notes/sent", True)]
    assert sorted(name for name, _ in sources_below(store, "")) == ["n@abc/new", "n@abc/sent"]
    send(store)
    # The former id, come back from a device that was away, loses against the deletion.
    apply(store, pulled("notes/sent", 5))
    assert "notes/sent" not in store.get(["notes/sent"])


def test_what_another_device_wrote_stays_its_own(store: Store) -> None:
    store.put([file_entry("notes/a")])
    send(store)
    apply(store, pulled("notes/a", LATER))
    moved = move(store)
    assert (moved.moved, waiting(store)) == (0, [])
    assert store.get(["notes/a"])["notes/a"].text == "theirs"


@pytest.mark.parametrize("text", ["theirs", None])
def test_text_of_a_file_that_another_text_replaces_is_kept(store: Store, text: str | None) -> None:
    store.put([file_entry("a", "mine")])
    send(store)
    assert apply(store, pulled("a", LATER, text)).conflicts == 1
    (letter,) = replica.list_dead_letters(store)
    assert (letter.reason, letter.document) == ("replaced_elsewhere", Document("a", "mine"))
    # The document is the other device's now, and no file's: --prune leaves it.
    assert [*sources_below(store, "")] == []
    assert replica.replaced_texts(store, ["a", "b"]).keys() == {"a"}
    # Only once: the next version replaces the other device's own.
    assert apply(store, pulled("a", LATER + 1, "again")).conflicts == 0
    assert replica.list_dead_letters(store) == [letter]


def test_an_edit_of_a_document_without_a_file_is_no_conflict(store: Store) -> None:
    store.put([full_entry("a", "mine")])
    send(store)
    assert apply(store, pulled("a", LATER, "theirs")).conflicts == 0
    store.put([full_entry("b", "mine")])
    send(store)
    # Without its text, it is: nothing else has what was here.
    assert apply(store, pulled("b", LATER, None)).conflicts == 1


def test_the_same_text_and_a_deletion_are_no_conflict(store: Store) -> None:
    store.put([file_entry("a", "mine"), file_entry("b", "mine")])
    send(store)
    assert apply(store, pulled("a", LATER, "mine"), deleted("b", LATER)).conflicts == 0
    assert replica.count_dead_letters(store) == 0
    assert [*sources_below(store, "")] == [("a", "a")]


def test_a_new_text_of_the_file_ends_the_conflict(store: Store) -> None:
    store.put([file_entry("a", "mine")])
    apply(store, pulled("a", LATER, None))
    store.put([file_entry("a", "mine, edited")])
    assert replica.count_dead_letters(store) == 0
    assert store.get(["a"])["a"].text == "mine, edited"
