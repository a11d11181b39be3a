"""Finding files: what folders, patterns and names on a command line stand for."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from edge_mrl.errors import UsageError, reason
from edge_mrl.sources.formats import extra_reads
from edge_mrl.sources.kinds import STDIN, is_parsed, left_out_as, markup_of, suffix_of

__all__ = [
    "Problem",
    "Scan",
    "Search",
    "SourceFile",
    "as_name",
    "find_sources",
    "is_pattern",
    "size_of",
]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read documents from.

    Attributes:
        path: Where it is; "-" is standard input.
        size_bytes: Its size; 0 for standard input.
        name: Begins the ids of its documents, and is their source; "" for the path as it is given.
        numbered: Whether documents in JSON Lines without an id have NAME:LINE as id, as in stores of
            earlier versions. Else the id is made of their content.
        parsed: Whether it is read by the reader of its suffix, and not as text.
        place: Its path in its root; "" if it has none.
    """

    path: str
    size_bytes: int
    name: str = ""
    numbered: bool = False
    parsed: bool = False
    place: str = ""

    @property
    def below(self) -> str:
        """Its path in its root, or as it is given, with forward slashes."""
        return self.place or as_name(self.path)

    @property
    def source(self) -> str:
        """What its documents name as their source."""
        return self.name or as_name(self.path)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that should have been read and could not be.

    Attributes:
        path: A file, a folder or a link.
        why: In words.
    """

    path: str
    why: str


@dataclass(slots=True)
class Scan:
    """What was found.

    Attributes:
        files: Each file once, in the order of the paths; sorted within a folder or pattern.
        problems: Folders that could not be listed, links that were not followed, and the like.
        left_out: How many files in folders were left out, by their suffix.
        folders: Folders that were listed, and the device (``st_dev``) each of them is on.
    """

    files: list[SourceFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    folders: dict[str, int] = field(default_factory=dict)


class Search:
    """Looks for files.

    Args:
        include: Patterns of names that are read from folders too, such as "*.rst".
        as_text: Whether files with markup are read as they are.
    """

    def __init__(self, *, include: Iterable[str] = (), as_text: bool = False) -> None:
        self._include = tuple(include)
        self._as_text = as_text

    def named(self, path: str) -> str:
        """A file that is named itself; it may have any suffix that is not known to hold markup.

        Raises:
            UsageError: Its markup would be read as if it were text.
        """
        markup = None if self._as_text or is_parsed(path) else markup_of(path)
        if markup is not None:
            extra = (
                'pip install "edge-mrl[files]" reads it; ' if extra_reads(suffix_of(path)) else ""
            )
            raise UsageError(
                f"{path} is {markup}, and would be indexed with its markup: {extra}convert it to text, "
                "or index it as it is with --as-text"
            )
        return path

    def parses(self, path: str) -> bool:
        """Whether a file is read by the reader of its suffix."""
        return not self._as_text and is_parsed(path)

    def matched(self, path: str, scan: Scan) -> list[str]:
        """Files that a pattern matches. Those with markup are counted as left out."""
        found = []
        for match in sorted(matches(path)):
            if self._as_text or markup_of(match) is None or is_parsed(match):
                found.append(os.path.normpath(match))
            else:
                scan.left_out[suffix_of(match)] += 1
        return found

    def below(self, folder: str, scan: Scan) -> list[str]:
        """Files below a folder, without hidden ones, and without following links to folders."""
        base = os.path.normpath(folder)
        found: list[str] = []
        waiting = [base]
        while waiting:
            parent = waiting.pop()
            try:
                with os.scandir(parent) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
                scan.folders[parent] = os.stat(parent).st_dev
            except OSError as error:
                scan.problems.append(Problem(as_name(parent), f"cannot be listed: {_why(error)}"))
                continue
            for entry in listed:
                if not entry.name.startswith("."):
                    path = entry.name if parent == "." else os.path.join(parent, entry.name)
                    self._sort(entry, path, (found, waiting), scan)
        return sorted(found)

    def _sort(
        self,
        entry: os.DirEntry[str],
        path: str,
        into: tuple[list[str], list[str]],
        scan: Scan,
    ) -> None:
        """Put an entry of a folder where it belongs: among files, folders or problems."""
        files, folders = into
        suffix = left_out_as(entry.name, self._include, as_text=self._as_text)
        try:
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_dir():
                scan.problems.append(
                    Problem(as_name(path), "a link to a folder, which is not followed")
                )
            elif entry.is_file() and suffix is None:
                files.append(path)
            elif entry.is_file():
                scan.left_out[suffix or ""] += 1
            elif entry.is_symlink():
                why = "a link that cannot be followed: what it names is not there"
                scan.problems.append(Problem(as_name(path), why))
            elif suffix is None:
                scan.problems.append(Problem(as_name(path), "not a regular file"))
        except OSError as error:
            scan.problems.append(Problem(as_name(path), f"cannot be followed: {_why(error)}"))


def find_sources(paths: Iterable[str | os.PathLike[str]]) -> list[SourceFile]:
    """Find the files that paths stand for: files, folders, patterns, and "-".

    Folders are read recursively, without hidden files and without following links to folders. A path such
    as ``notes/**/*.md`` is a pattern, unless a file has that name. The ids of documents begin with paths
    as they are given; ``find_in_roots`` gives ids that do not depend on that.

    Returns:
        Each file once, in the order of the paths; sorted within a folder or pattern.

    Raises:
        UsageError: A path does not exist, or a pattern matches no file.
    """
    search, scan = Search(as_text=True), Scan()
    found: dict[str, None] = {}
    for each in paths:
        path = os.fspath(each)
        if path == STDIN:
            files = [path]
        elif os.path.isdir(path):
            files = search.below(path, scan)
        elif is_pattern(path):
            files = search.matched(path, scan)
        else:
            files = [os.path.normpath(path)]
        found.update(dict.fromkeys(files))
    return [SourceFile(path, size_of(path)) for path in found]


def is_pattern(path: str) -> bool:
    """Whether a path is a pattern and not the name of a file.

    Raises:
        UsageError: It is neither: there is no such file.
    """
    if os.path.exists(path):
        return False
    if not glob.has_magic(path):
        raise UsageError(f"no file or folder {path}")
    return True


def matches(pattern: str) -> list[str]:
    """Files that match a pattern.

    Raises:
        UsageError: No file does.
    """
    found = glob.glob(pattern, recursive=True)
    files = [match for match in found if os.path.isfile(match)]
    if not files:
        raise UsageError(f"no file matches {pattern}")
    return files


def size_of(path: str) -> int:
    """A file's size in bytes; 0 for standard input, and where it cannot be told."""
    try:
        return 0 if path == STDIN else os.stat(path).st_size
    except OSError:
        return 0


def as_name(path: str) -> str:
    """A path with forward slashes; bytes that are not UTF-8 are escaped as in Python."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _why(error: OSError) -> str:
    return str(error.strerror or reason(error))
