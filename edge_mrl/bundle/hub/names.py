"""Names of bundles on a hub: ``hf://OWNER/NAME``, or with ``@REVISION`` behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from edge_mrl.documents import shorten
from edge_mrl.errors import UsageError

__all__ = ["MAIN", "HubName", "hub_name", "hub_name_of_path", "is_commit", "is_hub_name"]

SCHEME = "hf:"
#: The branch of a name without a revision.
MAIN = "main"
_PART = r"\w(?:[\w.-]{0,94}\w)?"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@(.+))?", re.ASCII)
_REVISION = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_REVISION_CHARS = 200


@dataclass(frozen=True, slots=True)
class HubName:
    """A bundle on a hub.

    Attributes:
        repository: "OWNER/NAME".
        revision: A branch, a tag, or the 40 hexadecimal digits of a commit, which never changes.
    """

    repository: str
    revision: str = MAIN

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return is_commit(self.revision)

    @property
    def cache_name(self) -> str:
        """The folder of the repository in the hub's cache."""
        return "models--" + self.repository.replace("/", "--")

    def __str__(self) -> str:
        behind = "" if self.revision == MAIN else f"@{self.revision}"
        return f"hf://{self.repository}{behind}"


def is_commit(revision: object) -> bool:
    """Whether a revision is the name of a commit, in full."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def hub_name(given: str | HubName, revision: str | None = None) -> HubName:
    """A name as it was given: "OWNER/NAME", "OWNER/NAME@REVISION", either with hf:// before it.

    Args:
        given: The name.
        revision: A revision that was given besides.

    Raises:
        UsageError: It is no name of a repository, the revision is none, or there are two.
    """
    if isinstance(given, HubName):
        return given if revision is None else replace(given, revision=_checked(revision))
    text = given if isinstance(given, str) else ""
    text = text.removeprefix(f"{SCHEME}//").removeprefix(f"{SCHEME}/")  # as a path has it
    match = _NAME.fullmatch(text)
    if match is None or ".." in match[1] or "--" in match[1] or match[1].endswith(".git"):
        raise UsageError(
            f"{shorten(given)} is no name on a hub, expected OWNER/NAME or hf://OWNER/NAME@REVISION"
        )
    if match[2] is not None and revision is not None and match[2] != revision:
        raise UsageError(f"{shorten(given)} has a revision of its own, and {revision!r} was given")
    chosen = match[2] if revision is None else revision
    return HubName(match[1], MAIN if chosen is None else _checked(chosen))


def _checked(revision: object) -> str:
    fits = isinstance(revision, str) and len(revision) <= _MOST_REVISION_CHARS
    if not isinstance(revision, str) or not fits or _REVISION.fullmatch(revision) is None:
        raise UsageError(f"revision is {shorten(revision)}, expected a branch, a tag or a commit")
    if ".." in revision or revision.endswith(".lock"):
        raise UsageError(f"revision is {shorten(revision)}, which no branch and no tag can be")
    return revision


def is_hub_name(given: Path) -> bool:
    """Whether a path is meant as a name on a hub: it begins with hf:."""
    return given.parts[:1] == (SCHEME,)


def hub_name_of_path(given: Path) -> HubName:
    """The name that a path stands for, in which the two slashes have become one.

    Raises:
        UsageError: It is none.
    """
    return hub_name("/".join(given.parts[1:]))
