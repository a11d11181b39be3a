"""Encoders by the names that tools of the hub use: from_pretrained, save_pretrained, push_to_hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edge_mrl.arguments import path_of
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_mrl.bundle import Publication, Pushed

__all__ = ["Pretrained"]


class Pretrained:
    """What an encoder has in common with models of the hub.

    Attributes:
        path: The bundle's folder.
    """

    path: Path
    if TYPE_CHECKING:
        open: Callable[..., Self]

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        **opening: Any,
    ) -> Self:
        """Open a bundle of the hub, or one that is here. What the hub's cache has is not fetched again.

        It needs the extra ``hub`` where something is fetched. HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and
        HF_TOKEN are honoured.

        Args:
            name: "OWNER/NAME" on the hub; or a folder, a .zip or the name of an installed bundle, which
                come first.
            revision: A branch, a tag or a commit of the hub (default: main).
            token: A token of the hub; None for HF_TOKEN's, or the one of `hf auth login`.
            local_files_only: Fetch nothing.
            **opening: As for ``Encoder.open``: ``threads``, ``low_memory``, ``verify_hashes``, ``trust``.

        Raises:
            UsageError: It is no name of the hub, and nothing is there.
            NetworkError: The hub cannot be reached or refuses, and the bundle is not in the cache.
            MissingDependencyError: It must be fetched, and huggingface_hub is not installed.
            BundleError: The bundle is damaged, or cannot be opened.
        """
        from edge_mrl.bundle import hub_name, installed_names, is_hub_name, local_bundle

        place = path_of("name", name)
        here = not is_hub_name(place) and (
            os.path.lexists(place) or str(place) in installed_names()
        )
        if here:
            if revision is not None:
                raise UsageError(f"{place} is no name on a hub, and has no revision {revision!r}")
            return cls.open(place, **opening)
        wanted = hub_name(place.as_posix(), revision)
        return cls.open(local_bundle(wanted, token=token, fetch=not local_files_only), **opening)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the bundle into a folder of its own, with a model card.

        Args:
            folder: A new or an empty folder. It appears once it is complete.

        Raises:
            UsageError: The folder is there and not empty.
            BundleError: The bundle is damaged.
            OSError: The folder cannot be written.
        """
        from edge_mrl.bundle import copy_bundle

        copy_bundle(self.path, path_of("folder", folder))

    def push_to_hub(
        self,
        name: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        publication: Publication | None = None,
    ) -> Pushed:
        """Publish the bundle with a model card, as one commit; see ``edge_mrl.bundle.push_bundle``.

        Args:
            name: "OWNER/NAME". The repository is made if it is not there.
            revision: A branch, which is made if it is not there (default: main).
            token: A token of the hub; None for HF_TOKEN's, or the one of `hf auth login`.
            publication: Whether it is private, the message, the licence, and what it may replace.

        Returns:
            The commit, and where people see it.

        Raises:
            UsageError: The repository holds something else than a bundle.
            BundleError: The bundle is damaged; nothing was sent.
            NetworkError: The hub cannot be reached, or refuses.
            MissingDependencyError: huggingface_hub is not installed.
        """
        from edge_mrl.bundle import push_bundle

        return push_bundle(self.path, name, revision=revision, token=token, publication=publication)
