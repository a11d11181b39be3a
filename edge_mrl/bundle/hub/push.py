"""A bundle onto a hub: its own files and a model card, as one commit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mrl.bundle.files import MOST_BYTES, check_files
from edge_mrl.bundle.hub.cache import hub_cache
from edge_mrl.bundle.hub.calls import ENTRY, asking, client, library
from edge_mrl.bundle.hub.card import CARD, is_made, make_card
from edge_mrl.bundle.hub.copying import own_files
from edge_mrl.bundle.hub.names import MAIN, HubName, hub_name
from edge_mrl.bundle.manifest import MANIFEST, SIGNATURE, Manifest, parse_manifest, read_manifest
from edge_mrl.errors import BundleError, UsageError

__all__ = ["Publication", "Pushed", "push_bundle"]

_MOST_CARD_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Publication:
    """How a bundle is published.

    Attributes:
        private: Whether a repository that is made is private; None for the owner's setting.
        message: The commit's message; None for one that names the bundle.
        licence: The hub's name of the weights' licence; None for what the manifest says.
        force: Replace a card that a person wrote, and files of a repository that holds no bundle.
    """

    private: bool | None = None
    message: str | None = None
    licence: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """A bundle that is on a hub now.

    Attributes:
        name: Its name there.
        commit: The commit that has it; always the same bundle.
        url: Where people see it.
        card_kept: Whether the repository's card is a person's, and was left as it is.
    """

    name: HubName
    commit: str
    url: str
    card_kept: bool


def push_bundle(
    bundle: str | os.PathLike[str],
    name: str | HubName,
    *,
    revision: str | None = None,
    token: str | None = None,
    publication: Publication | None = None,
) -> Pushed:
    """Publish a bundle: all its files, and a model card, in one commit; what it no longer has is removed.

    The repository is made if it is not there. The commit is refused if somebody else pushes meanwhile.

    Args:
        bundle: The bundle's folder.
        name: "OWNER/NAME" or "hf://OWNER/NAME".
        revision: A branch, which is made if it is not there (default: main).
        token: A token of the hub; None for HF_TOKEN's, or the one of `hf auth login`.
        publication: How it is published.

    Raises:
        UsageError: The name is none, or the repository holds something else than a bundle.
        BundleError: The bundle is damaged; nothing was sent.
        ServerError: The hub refuses.
        NetworkError: The hub cannot be reached.
        MissingDependencyError: huggingface_hub is not installed.
    """
    how = Publication() if publication is None else publication
    folder, wanted = Path(bundle), hub_name(name, revision)
    if wanted.is_pinned:
        raise UsageError(f"{wanted.revision} is a commit, expected a branch to push to")
    manifest = read_manifest(folder, trust="")
    check_files(folder, manifest, hashes=True)
    there = _Repository(wanted, token)
    there.require(how)
    sent = own_files(folder, manifest)
    there.require_bundle_or_nothing(sent, force=how.force)
    kept = not how.force and not there.card_is_made()
    add = library().CommitOperationAdd
    operations = [add(path_in_repo=file, path_or_fileobj=str(folder / file)) for file in sent]
    if not kept:
        card = make_card(manifest, name=wanted.repository, licence=how.licence)
        operations.append(add(path_in_repo=CARD, path_or_fileobj=card.encode()))
    delete = library().CommitOperationDelete
    operations += [delete(path_in_repo=file) for file in there.outdated(sent)]
    message = how.message or f"Publish the bundle {manifest.name}, {manifest.dim} dimensions"
    return there.commit(operations, message, card_kept=kept)


class _Repository:
    """A repository on the hub, as it is before the commit."""

    def __init__(self, name: HubName, token: str | None) -> None:
        self._name, self._token, self._client = name, token, client(token)
        self._head = ""
        self._files: set[str] = set()
        self._manifest: Manifest | None = None

    def require(self, how: Publication) -> None:
        """Make the repository and the branch if they are not there, and look what they hold."""
        with asking(self._name, act="change"):
            self._client.create_repo(self._name.repository, private=how.private, exist_ok=True)
            if self._name.revision != MAIN:
                self._client.create_branch(
                    self._name.repository, branch=self._name.revision, exist_ok=True
                )
            found = self._client.model_info(
                self._name.repository, revision=self._name.revision, files_metadata=True
            )
            self._head = str(found.sha)
            sizes = {str(one.rfilename): one.size for one in found.siblings or []}
        self._files = set(sizes)
        self._card_is_small = _fits(sizes, CARD, _MOST_CARD_BYTES)
        if MANIFEST in sizes and _fits(sizes, MANIFEST, MOST_BYTES[MANIFEST]):
            try:
                self._manifest = parse_manifest(self._read(MANIFEST))
            except BundleError:  # of a damaged bundle, or a newer one: it is replaced
                self._manifest = None

    def _read(self, file: str) -> bytes:
        with asking(self._name):
            path: str = library().hf_hub_download(
                self._name.repository,
                file,
                revision=self._head,
                cache_dir=hub_cache(),
                token=self._token,
                **ENTRY,
            )
        return Path(path).read_bytes()

    def require_bundle_or_nothing(self, sent: list[str], *, force: bool) -> None:
        """Check that no file of another model is replaced.

        Raises:
            UsageError: There is one.
        """
        foreign = sorted(self._files & set(sent)) if MANIFEST not in self._files else []
        if foreign and not force:
            raise UsageError(
                f"{self._name} holds a model that is no bundle, with a {foreign[0]} of its own: push to "
                "another name, or replace its files with --force (force=True)"
            )

    def card_is_made(self) -> bool:
        """Whether there is no card, or one that a push has made and nobody has changed."""
        if CARD not in self._files:
            return True
        if not self._card_is_small:
            return False
        return is_made(self._read(CARD).decode("utf-8", "replace"))

    def outdated(self, sent: list[str]) -> list[str]:
        """Files of the former bundle that the new one does not have."""
        former = {SIGNATURE} | (set() if self._manifest is None else set(self._manifest.files))
        return sorted((former & self._files) - set(sent))

    def commit(self, operations: list[Any], message: str, *, card_kept: bool) -> Pushed:
        """Send all of it, on top of what was looked at."""
        with asking(self._name, act="change"):
            done = self._client.create_commit(
                self._name.repository,
                operations,
                commit_message=message,
                revision=self._name.revision,
                parent_commit=self._head,
            )
            return Pushed(self._name, str(done.oid), str(done.commit_url), card_kept)


def _fits(sizes: Mapping[str, int | None], file: str, most: int) -> bool:
    size = sizes.get(file)
    return size is None or size <= most
