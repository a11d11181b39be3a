"""What paths stand for in a store: files with the names that begin their documents' ids."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_mrl.sources.files import Problem, Scan, Search, SourceFile, as_name, size_of
from edge_mrl.sources.kinds import STDIN
from edge_mrl.sources.lines import content_id
from edge_mrl.sources.mounts import mount_points, mounted_on, mounts_below
from edge_mrl.store import Moved, move_some, write_roots

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_mrl.documents import Document
    from edge_mrl.sources.places import Move, Place, Places
    from edge_mrl.store import Root, Store

__all__ = ["find_in_roots", "move_ids", "note_roots"]


def find_in_roots(places: Places, search: Search) -> Scan:
    """Find the files of places that are resolved.

    Args:
        places: The places. What is learned of drives that are mounted is noted in their roots.
        search: What is looked for.

    Returns:
        Each file once, with the source that its root gives it.

    Raises:
        UsageError: A file that is named itself holds markup, or a pattern matches nothing.
    """
    scan, points = Scan(), mount_points()
    files: dict[str, SourceFile] = {}
    for place in places.places:
        if place.kind == "missing":
            why = "is not there, or not what it was"
            scan.problems.append(Problem(as_name(place.given), why))
            continue
        own = Scan(left_out=scan.left_out, problems=scan.problems)
        for shown in _paths(place, search, own):
            real = _real(place, shown)
            if real not in files:
                root = places.covering_of(real, place.root)
                files[real] = SourceFile(
                    shown,
                    size_of(shown),
                    _source(root, real),
                    root.numbered,
                    search.parses(shown),
                    _below(root, real),
                )
        listed = {_real(place, shown): device for shown, device in own.folders.items()}
        scan.folders |= listed
        if place.kind == "folder":
            _note_mounts(places, place, listed, points)
    scan.files = list(files.values())
    return scan


def _paths(place: Place, search: Search, scan: Scan) -> Iterable[str]:
    if place.kind == "folder":
        return search.below(place.given, scan)
    if place.kind == "pattern":
        return search.matched(place.given, scan)
    if place.kind == "stdin":
        return [STDIN]
    return [search.named(os.path.normpath(place.given))]


def _real(place: Place, shown: str) -> str:
    """The absolute path of a file or folder that was found; a link in its own name is not resolved."""
    if place.kind == "stdin":
        return STDIN
    if place.kind == "folder":
        base = os.path.normpath(place.given)
        below = shown if base == "." else shown[len(base) :].lstrip(os.sep)
        if base == "." and shown == ".":
            below = ""
        return os.path.join(place.real, below) if below else place.real
    folder = os.path.realpath(os.path.dirname(shown) or ".")
    return os.path.join(folder, os.path.basename(shown))


def _source(root: Root, real: str) -> str:
    return root.prefix if real == STDIN else root.source_of(_below(root, real))


def _below(root: Root, real: str) -> str:
    """The path of a file in its root."""
    return STDIN if real == STDIN else as_name(real[len(root.path.rstrip(os.sep)) + 1 :])


def _note_mounts(
    places: Places, place: Place, listed: dict[str, int], points: frozenset[str]
) -> None:
    """Keep where the root is mounted and which drives are mounted in it, as long as there is anything."""
    root = places.roots[place.root.prefix]
    if not listed:
        return
    inside = mounts_below(place.real, listed.items(), points)
    base = "" if place.real == root.path else as_name(os.path.relpath(place.real, root.path)) + "/"
    mounts = tuple(sorted({*root.mounts, *(base + one for one in inside)}))
    on = root.mounted_on or mounted_on(root.path, points)
    places.roots[root.prefix] = replace(root, mounts=mounts, mounted_on=on)


def note_roots(store: Store, places: Places) -> None:
    """Write the roots of places into the store, where they are new or have changed."""
    from edge_mrl.store import read_roots

    before = {root.prefix: root for root in read_roots(store)}
    moving = {root.prefix for move in places.moves for root in (move.old, move.new)}
    changed = [
        root
        for prefix, root in places.roots.items()
        if before.get(prefix) != root and prefix not in moving
    ]
    if changed:
        write_roots(store, changed)


def move_ids(
    store: Store, move: Move, *, others: Iterable[Root], advance: Callable[[Moved], None]
) -> Moved:
    """Give the documents of a root their new ids; goes on where it was interrupted.

    Args:
        store: The store.
        move: The root and what it becomes.
        others: The store's other roots; documents of those inside the moved one stay.
        advance: Called after each commit with the sum so far.
    """
    inner = [
        root.prefix
        for root in others
        if root.prefix.startswith(move.old.prefix)
        and root.prefix not in (move.old.prefix, move.new.prefix)
    ]
    total = Moved()
    while not total.done:
        total += move_some(
            store, move.old, move.new, inner=inner, after=total.last, rename=_renamed
        )
        advance(total)
    return total


def _renamed(document: Document, old: Root, new: Root) -> tuple[str, str]:
    """A document's new id and source; ids that its user gave stay."""
    before = document.source or ""
    source = new.prefix + before[len(old.prefix) :]
    if document.id == before:
        return source, source
    tail = document.id[len(before) :] if document.id.startswith(before) else ""
    if old.numbered and tail.startswith(":") and tail[1:].isdecimal():
        return content_id(source, document.text, document.metadata), source
    return (source + tail if tail.startswith("#") else document.id), source
