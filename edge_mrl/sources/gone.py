"""Which documents' files are gone. Only what is known to be gone is: what is out of reach is kept."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_mrl.errors import reason
from edge_mrl.sources.files import as_name
from edge_mrl.sources.kinds import STDIN
from edge_mrl.sources.mounts import mount_points
from edge_mrl.store import sources_below

if TYPE_CHECKING:
    from edge_mrl.sources.places import Place, Places
    from edge_mrl.store import Root, Store

__all__ = ["Pruning", "RunFacts", "what_is_gone"]

#: More deletions than this, and a larger share than this of what was read before, are not made without
#: being confirmed: a folder that is mounted elsewhere looks like this too.
GUARD_DOCUMENTS = 25
GUARD_SHARE = 1 / 3
#: So much of what a drive held must have been read again to take it for mounted, whatever it is now.
ENOUGH = 0.5


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run has read.

    Attributes:
        seen: Whether a document with this id was read.
        files: Sources of all files that were found.
        unread: Sources of files that could not be read, or not completely.
        filled: Sources of JSON Lines files that held at least one document.
        only: What begins the ids of the documents that could have been read; "" for all.
    """

    seen: Callable[[str], bool]
    files: Collection[str]
    unread: Collection[str]
    filled: Collection[str]
    only: str = ""


@dataclass(slots=True)
class Pruning:
    """What is to be deleted, and what is kept.

    Attributes:
        gone: Ids of documents whose files, or whose lines, are gone.
        kept: How many documents that were not read are kept, by the place and the reason.
        total: All documents that were read from these paths so far.
    """

    gone: list[str] = field(default_factory=list)
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    total: int = 0

    @property
    def is_large(self) -> bool:
        """Whether so much is gone that a person should confirm it."""
        return len(self.gone) > max(GUARD_DOCUMENTS, GUARD_SHARE * self.total)


def what_is_gone(store: Store, places: Places, run: RunFacts) -> Pruning:
    """Tell which documents below some places are gone.

    A document goes if its file was read and does not hold it any more, or if its file is not there and
    the nearest folder that is there was listed and is not empty. It is kept where its root or a drive
    inside it is missing, empty or not mounted, and where anything could not be looked at.

    Args:
        store: The store.
        places: Places that were read completely.
        run: What was read.
    """
    pruning = Pruning()
    judge = _Judge(places, run)
    missing: dict[str, tuple[str, Root]] = {}
    for name, source, root in _documents(store, places):
        if not name.startswith(run.only):
            continue
        pruning.total += 1
        seen = run.seen(name)
        judge.count(source, root, seen=seen)
        if not seen:
            missing[name] = (source, root)
    for name, (source, root) in missing.items():
        why = judge.why_kept(source, root)
        if why is None:
            pruning.gone.append(name)
        else:
            pruning.kept[why] += 1
    return pruning


def _documents(store: Store, places: Places) -> Iterator[tuple[str, str, Root]]:
    """Ids, sources and roots of the documents that were read from places."""
    done: set[str] = set()
    for place in places.places:
        for root, scope in _scopes(place, places):
            for name, source in sources_below(store, scope):
                if name in done or _owner(source, places) is not root:
                    continue
                if root is place.root and not place.covers(source):
                    continue
                done.add(name)
                yield name, source, root


def _scopes(place: Place, places: Places) -> Iterator[tuple[Root, str]]:
    """A place's root, and the roots that lie inside of a place that is a folder."""
    yield places.roots.get(place.root.prefix, place.root), place.scope
    if place.kind != "folder":
        return
    inside = place.real.rstrip(os.sep) + os.sep
    for root in places.roots.values():
        if root.path.startswith(inside) and root.prefix != place.root.prefix:
            yield root, root.prefix


def _owner(source: str, places: Places) -> Root | None:
    fitting = [root for root in places.roots.values() if source.startswith(root.prefix)]
    return max(fitting, key=lambda root: len(root.prefix), default=None)


class _Judge:
    """Looks at what became of files."""

    def __init__(self, places: Places, run: RunFacts) -> None:
        self._places = places
        self._run = run
        self._points = mount_points()
        self._of_root: dict[str, tuple[str, str] | None] = {}
        self._of_folder: dict[str, str | None] = {}
        self._names: dict[str, frozenset[str]] = {}
        self._counts: Counter[tuple[str, bool]] = Counter()

    def count(self, source: str, root: Root, *, seen: bool) -> None:
        """Note whether a document of a drive was read."""
        self._counts[root.prefix, seen] += 1
        for mount in root.mounts:
            if source.startswith(f"{root.prefix}{mount}/"):
                self._counts[f"{root.prefix}{mount}/", seen] += 1

    def why_kept(self, source: str, root: Root) -> tuple[str, str] | None:
        """Where and why a document that was not read is kept; None if it is gone."""
        if source in self._run.files:
            return self._of_file(source, root)
        if root.path == STDIN:
            return None
        whole = self._root_problem(root) or self._drive_problem(source, root)
        if whole is not None:
            return whole
        path = os.path.join(root.path, source[len(root.prefix) :])
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return self._parents_problem(os.path.dirname(path))
        except (OSError, ValueError) as error:
            return as_name(os.path.dirname(path)), f"cannot be looked into: {_why(error)}"
        if stat.S_ISDIR(found.st_mode):
            return None
        names = self._listed(os.path.dirname(path))
        if names and os.path.basename(path) not in names:
            return None  # another name of it, where small and capital letters are the same
        return as_name(path), "is there, and was not read with these options"

    def _of_file(self, source: str, root: Root) -> tuple[str, str] | None:
        """Of a file that was found: whether it was read to its end and holds other documents now."""
        if source in self._run.unread:
            return source, "could not be read completely"
        if source not in self._run.filled:
            where = "standard input" if root.path == STDIN else source
            return where, "holds no document any more: delete the file, if that is meant"
        return None

    def _root_problem(self, root: Root) -> tuple[str, str] | None:
        if root.prefix not in self._of_root:
            self._of_root[root.prefix] = self._look_at_root(root)
        return self._of_root[root.prefix]

    def _look_at_root(self, root: Root) -> tuple[str, str] | None:
        shown = as_name(root.path)
        try:
            os.lstat(root.path)
        except OSError as error:
            return shown, f"is not there ({_why(error)}); is a drive not mounted?"
        problem = self._folder_problem(root.path)
        if problem is not None:
            return shown, problem
        away = root.mounted_on and self._points and root.mounted_on not in self._points
        if away and not self._was_read(root.prefix):
            return shown, f"was on a drive at {as_name(root.mounted_on)}, which is not mounted now"
        return None

    def _drive_problem(self, source: str, root: Root) -> tuple[str, str] | None:
        for mount in root.mounts:
            prefix = f"{root.prefix}{mount}/"
            folder = os.path.join(root.path, mount)
            if source.startswith(prefix) and not self._is_mounted(folder):
                if self._was_read(prefix):
                    continue
                return as_name(folder), "was a mounted drive, and is not mounted now"
        return None

    def _was_read(self, prefix: str) -> bool:
        """Whether most documents below a prefix were read again, so that it must be mounted."""
        seen, unseen = self._counts[prefix, True], self._counts[prefix, False]
        return seen >= ENOUGH * (seen + unseen)

    def _is_mounted(self, folder: str) -> bool:
        if folder in self._points:
            return True
        try:
            return os.stat(folder).st_dev != os.stat(os.path.dirname(folder)).st_dev
        except OSError:
            return False

    def _parents_problem(self, folder: str) -> tuple[str, str] | None:
        """What is wrong with the nearest folder that is there, above a file that is not."""
        while True:
            try:
                found = os.lstat(folder)
            except (FileNotFoundError, NotADirectoryError):
                folder = os.path.dirname(folder)
                continue
            except OSError as error:
                return as_name(folder), f"cannot be looked at: {_why(error)}"
            if stat.S_ISLNK(found.st_mode):
                return as_name(folder), "is a link, which is not followed"
            if not stat.S_ISDIR(found.st_mode):
                return None  # a file has taken the folder's place
            problem = self._folder_problem(folder)
            return None if problem is None else (as_name(folder), problem)

    def _folder_problem(self, folder: str) -> str | None:
        """Why nothing can be said of what lies in a folder; None if it was listed and is not empty."""
        if folder not in self._of_folder:
            self._of_folder[folder] = _look_into(folder)
        return self._of_folder[folder]

    def _listed(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._names[folder] = frozenset()
        return self._names[folder]


def _look_into(folder: str) -> str | None:
    try:
        with os.scandir(folder) as entries:
            if any(True for _ in entries):
                return None
    except NotADirectoryError:
        return "is not a folder any more"
    except OSError as error:
        return f"cannot be listed: {_why(error)}"
    return "is empty now; is a drive not mounted? If it was emptied, remove the folder"


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or reason(error))
