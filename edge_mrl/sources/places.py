"""Which root each path on a command line belongs to, so that a file has one id however it is named."""

from __future__ import annotations

import glob
import itertools
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge_mrl.arguments import path_of
from edge_mrl.documents import id_problem
from edge_mrl.errors import UsageError
from edge_mrl.sources.files import as_name, is_pattern
from edge_mrl.sources.kinds import STDIN
from edge_mrl.store import Root, read_roots, sources_below

if TYPE_CHECKING:
    from edge_mrl.store import Store

__all__ = ["Move", "Place", "Places", "ids_of_paths", "shown_path", "split_name"]

#: Letters and digits after a root's name that no other device has: 40 bits, so that of 1,000 devices
#: with a folder of the same name two are the same with a chance of 1 in 2 million.
TAG_CHARS = 8
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_TAGGED = re.compile(rf"(?P<base>.+)@[{_ALPHABET}]{{{TAG_CHARS}}}")
#: Files that are looked for to tell whether a folder is the one that a store has documents of.
SAMPLE = 200
#: The share of them that has to be there.
ENOUGH = 0.5
NAME_CHARS = 100


@dataclass(frozen=True, slots=True)
class Move:
    """Documents that are to get new ids: those of one root become another's."""

    old: Root
    new: Root


@dataclass(frozen=True, slots=True)
class Place:
    """A path, and the root that it belongs to.

    Attributes:
        given: The path, as it was given, without a name.
        kind: Whether it is a folder, a file, a pattern or standard input; "missing" if it was indexed
            and is not there now.
        real: The absolute path without links of the folder that is searched, or of the file's folder.
        root: Its root.
    """

    given: str
    kind: str
    real: str
    root: Root

    @property
    def inside(self) -> str:
        """The folder inside the root, with forward slashes; "" for the root itself."""
        inside = os.path.relpath(self.real, self.root.path) if self.real != STDIN else "."
        return "" if inside == "." else as_name(inside)

    @property
    def scope(self) -> str:
        """What the sources of this path's documents begin with; for a file, its source."""
        if self.kind == "file":
            return _scope_in(self.root, self.real) + as_name(os.path.basename(self.given))
        scope = _scope_in(self.root, self.real)
        return scope.rstrip("/") if self.kind == "missing" and self.inside else scope

    def covers(self, source: str) -> bool:
        """Whether a file was, or may have been, read because of this path."""
        if self.kind == "file" or self.real == STDIN:
            return source == self.scope
        if self.kind == "missing" and self.inside:
            return source == self.scope or source.startswith(f"{self.scope}/")
        return source.startswith(self.scope)


@dataclass(slots=True)
class Places:
    """The places of paths in a store, and what has to be written and said about their roots.

    Args:
        store: The store, to read its roots and sources; None for one that is not made yet.
        move_ids: Whether documents may get new ids.
    """

    store: Store | None
    move_ids: bool = False
    places: list[Place] = field(default_factory=list)
    roots: dict[str, Root] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.store is None:
            return
        self.roots = {root.prefix: root for root in read_roots(self.store)}
        for root in list(self.roots.values()):  # moves that were interrupted
            target = None if root.moves_to is None else self.roots.get(root.moves_to)
            if target is not None:
                self._move(root, target)

    def resolve(self, paths: Sequence[str]) -> list[Place]:
        """Find the place of each path.

        Raises:
            UsageError: A path does not exist, a name cannot be given to a folder, or it cannot be told
                whether a folder is the one that documents were read from.
        """
        for argument in paths:
            name, path = split_name(argument)
            kind, folder = self._located(path)
            root = self._root_of(name, path, folder)
            self.roots[root.prefix] = root
            self.places.append(Place(path, kind, folder, root))
        return self.places

    def roots_in_use(self) -> list[Root]:
        """The roots of these places, each once."""
        used = {place.root.prefix: place.root for place in self.places}
        return [used[prefix] for prefix in sorted(used)]

    def covering(self, folder: str) -> Root | None:
        """The innermost root that a folder lies in."""
        around = [root for root in self.roots.values() if _lies_in(folder, root.path)]
        # Of two roots of one folder, one is being moved to the other.
        return max(around, key=lambda root: (len(root.path), root.moves_to is None), default=None)

    def covering_of(self, path: str, default: Root) -> Root:
        """The innermost root of a file that was found below a place."""
        return self.covering(os.path.dirname(path)) or default

    def _located(self, path: str) -> tuple[str, str]:
        """What a path is, and the folder that its root is looked up by.

        Raises:
            UsageError: There is no such file or folder, and no documents were read from it.
        """
        if path == STDIN:
            return "stdin", STDIN
        real = os.path.realpath(path)
        if os.path.isdir(path):
            return "folder", real
        if os.path.exists(path) and not any(root.path == real for root in self.roots.values()):
            return "file", os.path.realpath(os.path.dirname(path) or ".")
        if os.path.exists(path) or (not glob.has_magic(path) and self._is_known(real)):
            return "missing", real
        is_pattern(path)
        parts = itertools.takewhile(lambda part: not glob.has_magic(part), path.split(os.sep))
        fixed = os.sep.join(parts) or (os.sep if path[0] == os.sep else ".")
        return "pattern", os.path.realpath(fixed)

    def _is_known(self, real: str) -> bool:
        """Whether documents were read from a path that is not there now."""
        around = self.covering(real)
        return around is not None and self._has_sources(_scope_in(around, real).rstrip("/"))

    def _root_of(self, name: str | None, given: str, folder: str) -> Root:
        around = self.covering(folder)
        if name is not None:
            return self._named(name, given, folder, around)
        if around is None:
            around = self._former(given, folder) or self._relocated(folder)
        if around is None:
            return _new(folder)
        if self.move_ids and around.numbered:
            return self._move(around, _new(around.path))
        return around

    def _named(self, name: str, given: str, folder: str, around: Root | None) -> Root:
        """The root of a folder that was given a name."""
        prefix = name if folder == STDIN else f"{name}/"
        known = self.roots.get(prefix)
        if known is not None and known.path == folder:
            plain = replace(known, numbered=False)
            return self._move(known, plain) if self.move_ids and known.numbered else known
        if known is not None:
            if any(place.root.prefix == prefix for place in self.places) or _has_files(known.path):
                raise UsageError(
                    f"the name {name!r} stands for {known.path}, which is still there: choose another "
                    f"name for {folder}"
                )
            self.notes.append(f"{name} was {known.path} and is {folder} from now on")
            return replace(known, path=folder, mounted_on="", mounts=())
        if around is None and self._has_former(prefix):
            around = _found_again(prefix, folder)
            return self._move(around, Root(prefix, folder)) if self.move_ids else around
        around = around or self._former(given, folder)
        if around is None or not self._has_sources(_scope_in(around, folder)):
            return Root(prefix, folder)
        scope = _scope_in(around, folder)
        if not self.move_ids:
            raise UsageError(
                f"{folder} has documents whose ids begin with {scope!r}: leave out the name, or add "
                f"--move-ids to let their ids begin with {prefix!r}"
            )
        return self._move(replace(around, prefix=scope, path=folder), Root(prefix, folder))

    def _has_former(self, prefix: str) -> bool:
        return self.store is not None and any(True for _ in self._sources(prefix))

    def _move(self, old: Root, new: Root) -> Root:
        self.moves.append(Move(old, new))
        self.roots.pop(old.prefix, None)
        return new

    def _former(self, given: str, folder: str) -> Root | None:
        """The root of documents whose ids are paths as an earlier version was given them.

        Also of documents whose root is not known any more.

        Raises:
            UsageError: Some of their files are in this folder, and most are not.
        """
        if self.store is None:
            return None
        doubtful: tuple[str, float] | None = None
        for prefix in self._former_prefixes(given, folder):
            share = self._share_there(prefix, folder)
            if share is None:
                continue
            if share >= ENOUGH:
                return _found_again(prefix, folder)
            if share > 0 and doubtful is None and prefix not in ("", "/"):
                doubtful = (prefix, share)
        if doubtful is not None:
            prefix, share = doubtful
            raise UsageError(
                f"the store has documents whose ids begin with {prefix!r}, and {share:.0%} of their "
                f"files are in {folder}: if it is the same folder, say so with "
                f"{prefix.rstrip('/')}={given}; if it is not, give it another name with NAME={given}"
            )
        return None

    def _former_prefixes(self, given: str, folder: str) -> Iterator[str]:
        if folder == STDIN:
            yield STDIN
            return
        as_given = given if os.path.isdir(given) else os.path.dirname(given)
        names = [as_name(os.path.normpath(as_given or ".")), as_name(os.path.abspath(as_given))]
        parts = as_name(folder).strip("/").split("/")
        names += [as_name(folder), *("/".join(parts[first:]) for first in range(len(parts)))]
        yield from dict.fromkeys(f"{name.rstrip('/')}/" for name in names if name != ".")
        yield from self._orphaned(parts[-1])
        yield ""

    def _orphaned(self, base: str) -> Iterator[str]:
        """Prefixes with a tag, of a folder of this name, that are no root's."""
        assert self.store is not None
        for _, source in sources_below(self.store, f"{base}@"):
            prefix = f"{source.partition('/')[0]}/"
            if prefix not in self.roots and _TAGGED.fullmatch(prefix[:-1]):
                yield prefix
                return

    def _share_there(self, prefix: str, folder: str) -> float | None:
        """The share of a prefix's files that are below a folder; None if it has no documents."""
        files = list(itertools.islice(self._sources(prefix), SAMPLE))
        if not files:
            return None
        if folder == STDIN:
            return 1.0
        there = sum(os.path.lexists(os.path.join(folder, name[len(prefix) :])) for name in files)
        return there / len(files)

    def _sources(self, prefix: str) -> Iterator[str]:
        """Sources that begin with a prefix and are in no root whose prefix is longer."""
        assert self.store is not None
        others = [root.prefix for root in self.roots.values() if len(root.prefix) > len(prefix)]
        for _, source in sources_below(self.store, prefix):
            odd = prefix == "" and source.startswith(("/", "../"))
            piped = source == STDIN and prefix != STDIN
            if not odd and not piped and not source.startswith(tuple(others)):
                yield source

    def _has_sources(self, scope: str) -> bool:
        return self.store is not None and any(True for _ in sources_below(self.store, scope))

    def _relocated(self, folder: str) -> Root | None:
        """A root of this name that is not at its place any more, and whose files are in this folder."""
        base = _base(folder)
        for root in list(self.roots.values()):
            tagged = _TAGGED.fullmatch(root.name)
            if tagged is None or tagged["base"] != base or os.path.lexists(root.path):
                continue
            share = self._share_there(root.prefix, folder) if self.store is not None else None
            if share is not None and share >= ENOUGH:
                self.notes.append(
                    f"{root.name} was {root.path}, which is not there: its files are in {folder}"
                )
                return replace(root, path=folder, mounted_on="", mounts=())
        return None


def ids_of_paths(store: Store, names: Sequence[str]) -> dict[str, str]:
    """Ids by the paths of files, of those names that are no id and are a file of one of the roots."""
    known = set(store.keys([name for name in names if id_problem(name) is None]).values())
    unknown = [name for name in names if name not in known]
    places, found = Places(store), {}
    for name in unknown:
        try:
            path_of("path", name or "\0")
        except UsageError:  # no file can have this name
            continue
        folder = os.path.realpath(os.path.dirname(name) or ".")
        root = places.covering(folder)
        if root is not None:
            found[name] = _scope_in(root, folder) + as_name(os.path.basename(name))
    return found


def shown_path(roots: Sequence[Root], source: str | None, *, folder: str) -> str | None:
    """Where the file of a document is, seen from a folder; None if it has none here.

    Args:
        roots: The store's roots.
        source: The document's source.
        folder: An absolute path without links; files below it are shown by their paths in it.
    """
    fitting = [root for root in roots if source is not None and source.startswith(root.prefix)]
    root = max(fitting, key=lambda root: len(root.prefix), default=None)
    if root is None or source is None or root.path == STDIN:
        return None
    path = os.path.join(root.path, source[len(root.prefix) :])
    below = folder.rstrip(os.sep) + os.sep
    return as_name(path.removeprefix(below))


def split_name(argument: str) -> tuple[str | None, str]:
    """NAME=PATH as a name and a path; a path alone has no name.

    Raises:
        UsageError: The name cannot begin ids.
    """
    if os.path.lexists(argument) or "=" not in argument:
        return None, argument
    name, path = argument.split("=", 1)
    if not path or "/" in name or os.sep in name:
        return None, argument
    wrong = not name or name in (".", "..", STDIN) or len(name) > NAME_CHARS or name != name.strip()
    if wrong or any(
        unicodedata.category(char) in ("Cc", "Cs", "Cn") or char == "#" for char in name
    ):
        raise UsageError(
            f"{name!r} cannot name a folder: expected 1 to {NAME_CHARS} characters without '/', '#' and "
            "control characters"
        )
    return name, path


def _lies_in(folder: str, root: str) -> bool:
    if STDIN in (folder, root):
        return folder == root
    return folder == root or folder.startswith(root.rstrip(os.sep) + os.sep)


def _scope_in(root: Root, folder: str) -> str:
    if folder == STDIN or folder == root.path:
        return root.prefix
    return root.source_of(f"{as_name(os.path.relpath(folder, root.path))}/")


def _found_again(prefix: str, folder: str) -> Root:
    """A root that is made of the documents of a folder: those of an earlier version have no tag."""
    return Root(prefix, folder, numbered=_TAGGED.fullmatch(prefix.rstrip("/")) is None)


def _has_files(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it is there, and cannot be looked into


def _base(folder: str) -> str:
    base = "stdin" if folder == STDIN else as_name(os.path.basename(folder)) or "files"
    return "".join("_" if char in "#@" or not char.isprintable() else char for char in base)


def _new(folder: str) -> Root:
    tag = "".join(secrets.choice(_ALPHABET) for _ in range(TAG_CHARS))
    name = f"{_base(folder)}@{tag}"
    return Root(name if folder == STDIN else f"{name}/", folder)
