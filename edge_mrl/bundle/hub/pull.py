"""A bundle from a hub: its own files alone, into the hub's cache, with every check that a folder gets.

What is there already is used without a request. The manifest comes first: which files there are, and how
large, is decided by it. A branch is moved to a new commit last, when all is there and right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_mrl.bundle.files import MOST_BYTES, check_files
from edge_mrl.bundle.hub.cache import cached_snapshot, hub_cache, pin, sweep
from edge_mrl.bundle.hub.calls import ENTRY, asking, client, library
from edge_mrl.bundle.hub.names import HubName, hub_name, is_commit
from edge_mrl.bundle.manifest import MANIFEST, SIGNATURE, Manifest, read_manifest
from edge_mrl.errors import BundleError, FormatError, MissingFileError, NetworkError

__all__ = ["Pulled", "local_bundle", "pull_bundle"]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A bundle that came from a hub.

    Attributes:
        name: Its name there, with the revision that was asked for.
        commit: The commit that the revision stands for, 40 hexadecimal digits.
        folder: The folder of the hub's cache that has it.
        size_bytes: Size of its files.
        downloaded: Whether anything was fetched; False if all was there.
    """

    name: HubName
    commit: str
    folder: Path
    size_bytes: int
    downloaded: bool

    @property
    def pinned(self) -> str:
        """The name that always gives this very bundle: "hf://OWNER/NAME@COMMIT"."""
        return str(replace(self.name, revision=self.commit))


def pull_bundle(
    name: str | HubName,
    *,
    revision: str | None = None,
    update: bool = False,
    trust: str | os.PathLike[str] | None = None,
    token: str | None = None,
    advance: Callable[[str], None] | None = None,
) -> Pulled:
    """Fetch a bundle from the hub into its cache, and check it.

    Args:
        name: "OWNER/NAME", "hf://OWNER/NAME" or either with "@REVISION".
        revision: A branch, a tag or a commit (default: main).
        update: Ask the hub where the branch or tag is now, even if an earlier commit of it is there.
        trust: A file of keys, one of which must have signed the bundle; None for that of EDGE_MRL_TRUST.
        token: A token of the hub; None for HF_TOKEN's, or the one of `hf auth login`.
        advance: Called with the name of each file before it is fetched.

    Raises:
        UsageError: The name or the revision is none.
        BundleError: What the hub has there is no bundle, or a damaged one.
        SignatureError: No trusted key has signed it. Nothing but manifest and signature was fetched.
        ServerError: The hub refuses.
        NetworkError: The hub cannot be reached, and the bundle is not in the cache.
        MissingDependencyError: It must be fetched, and huggingface_hub is not installed.
        OSError: The cache cannot be written.
    """
    wanted = hub_name(name, revision)
    there = None if update else cached_snapshot(wanted)
    if there is not None and not _damaged(there, manifest := read_manifest(there, trust=trust)):
        return Pulled(wanted, there.name, there, manifest.size_bytes, downloaded=False)
    fetcher = _Fetcher(wanted, token, advance)
    folder = fetcher.begin()
    manifest = read_manifest(folder, trust=trust)
    _require_same_sizes(wanted, manifest, fetcher.sizes)
    for file in manifest.files:
        fetcher.fetch(file)
    for file in _damaged(folder, manifest):  # in the cache, not as it came
        fetcher.fetch(file, again=True)
    check_files(folder, manifest, hashes=True)
    pin(wanted, fetcher.commit)
    sweep(wanted)
    return Pulled(wanted, fetcher.commit, folder, manifest.size_bytes, downloaded=True)


def local_bundle(name: HubName, *, token: str | None = None, fetch: bool = True) -> Path:
    """The folder of a bundle of a hub, which is fetched only if it is not in the cache.

    Args:
        name: Its name.
        token: As for ``pull_bundle``.
        fetch: Whether it may be fetched.

    Raises:
        NetworkError: It is not there, and may not or cannot be fetched.
        EdgeMrlError: As ``pull_bundle``.
    """
    if (there := cached_snapshot(name)) is not None:
        return there
    if not fetch:
        raise NetworkError(
            f"{name} is not whole in {hub_cache()}: run `edge-mrl pull {name.repository}` where there "
            "is a network"
        )
    return pull_bundle(name, token=token).folder


class _Fetcher:
    """Fetches files of one commit.

    Attributes:
        commit: The commit.
        sizes: Sizes in bytes of the repository's files by name; None where the hub does not say.
    """

    def __init__(
        self, name: HubName, token: str | None, advance: Callable[[str], None] | None
    ) -> None:
        self._name, self._token, self._advance = name, token, advance
        library()
        _require_online(name)
        with asking(name):
            found = client(token).model_info(
                name.repository, revision=name.revision, files_metadata=True
            )
            self.commit: str = found.sha
            self.sizes: dict[str, int | None] = {
                str(one.rfilename): one.size for one in found.siblings or []
            }
        if not is_commit(self.commit):
            raise NetworkError(f"the hub names no commit for {name}: it may be no hub")

    def begin(self) -> Path:
        """Fetch the manifest, and its signature before it; returns the folder."""
        if MANIFEST not in self.sizes:
            raise FormatError(
                f"{self._name} is no bundle: it has no {MANIFEST}; name a repository that was made by "
                "`edge-mrl push`, or turn the model into a bundle with `edge-mrl export`"
            )
        for file in (SIGNATURE, MANIFEST):
            self._require_small(file)
        if SIGNATURE in self.sizes:
            self.fetch(SIGNATURE)
        return self._fresh(MANIFEST).parent

    def _fresh(self, file: str) -> Path:
        """Fetch the manifest, and once more if what the cache has of it is damaged."""
        path = self.fetch(file)
        try:
            read_manifest(path.parent, trust="")
        except BundleError:
            path = self.fetch(file, again=True)
        return path

    def _require_small(self, file: str) -> None:
        size = self.sizes.get(file)
        if size is None and file in self.sizes:
            size = self._size_by_request(file)
        if size is not None and size > MOST_BYTES[file]:
            raise BundleError(
                f"{file} of {self._name} has {size} bytes, expected at most {MOST_BYTES[file]}"
            )

    def _size_by_request(self, file: str) -> int | None:
        hub = library()
        with asking(self._name):
            url = hub.hf_hub_url(self._name.repository, file, revision=self.commit)
            found: Any = hub.get_hf_file_metadata(url, token=self._token, **ENTRY)
        return None if found.size is None else int(found.size)

    def fetch(self, file: str, *, again: bool = False) -> Path:
        """Fetch a file, or what of it is missing, if it is not there; ``again`` if it is, too."""
        if self._advance is not None:
            self._advance(file)
        with asking(self._name):
            path: str = library().hf_hub_download(
                self._name.repository,
                file,
                revision=self.commit,
                cache_dir=hub_cache(),
                token=self._token,
                force_download=again,
                **ENTRY,
            )
        return Path(path)


def _require_online(name: HubName) -> None:
    """Check that requests are allowed.

    Raises:
        NetworkError: HF_HUB_OFFLINE is set.
    """
    if library().constants.HF_HUB_OFFLINE:
        raise NetworkError(
            f"{name} is not whole in {hub_cache()}, and HF_HUB_OFFLINE forbids to fetch it: run "
            f"`edge-mrl pull {name.repository}` where there is a network"
        )


def _require_same_sizes(name: HubName, manifest: Manifest, sizes: Mapping[str, int | None]) -> None:
    """Check that the hub has the files that the manifest names, before any is fetched.

    Raises:
        MissingFileError: One is not there.
        BundleError: One has another size.
    """
    for file, entry in manifest.files.items():
        if file not in sizes:
            raise MissingFileError(
                f"{file} is missing from {name}: push the bundle again, with all its files"
            )
        if sizes[file] not in (None, entry.size_bytes):
            raise BundleError(
                f"{file} of {name} has {sizes[file]} bytes, expected {entry.size_bytes}: push the "
                "bundle again"
            )


def _damaged(folder: Path, manifest: Manifest) -> list[str]:
    """Files that are there but not as the manifest says."""
    wrong = []
    for file, entry in manifest.files.items():
        try:
            check_files(folder, replace(manifest, files={file: entry}), hashes=True)
        except BundleError:
            wrong.append(file)
    return wrong
