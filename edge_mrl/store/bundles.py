"""The bundle that made a store's codes: where it is now, and what a store keeps of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.bundle import (
    bundle_folder,
    installed_bundle,
    installed_names,
    is_hub_name,
    name_of_snapshot,
    read_manifest,
)
from edge_mrl.errors import BindingError, BundleError, SignatureError, UsageError
from edge_mrl.store.records import Binding

if TYPE_CHECKING:
    from edge_mrl.bundle import Manifest
    from edge_mrl.store.store import Store

__all__ = ["binding_of", "find_bundle"]


def find_bundle(store: Store, *, trust: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a store's bundle: beside the store as it was, at its former path, or installed.

    Args:
        store: The open store.
        trust: A file of keys, one of which must have signed it; None for the one of EDGE_MRL_TRUST.

    Raises:
        UsageError: There is no bundle at these places.
        BindingError: The bundle that is there now has another embedding space or code.
        SignatureError: No trusted key has signed the bundle that is there now.
    """
    wrong: BindingError | SignatureError | None = None
    for place, own in _candidates(store):
        try:
            folder = bundle_folder(place)
            binding = binding_of(read_manifest(folder, trust=trust), place.resolve())
            store.require(binding)
        except (BindingError, SignatureError) as error:
            wrong = error if own else wrong
        except (UsageError, BundleError):
            continue
        else:
            return folder
    if wrong is not None:
        raise wrong
    former = name_of_snapshot(Path(store.binding.bundle))
    again = "" if former is None else f", or fetch it again with `edge-mrl pull {former}`"
    raise UsageError(
        f"the bundle of {store.path} is not at {store.binding.bundle} any more: "
        f"say where it is with --bundle DIR{again}"
    )


def _candidates(store: Store) -> Iterator[tuple[Path, bool]]:
    """Where the bundle may be, and whether the store was told so; installed ones take time to find."""
    for place in store.bundle_candidates():
        if not is_hub_name(place):  # a store alone fetches nothing
            yield place, True
    for name in installed_names():
        with suppress(BundleError):  # of a package that is not complete
            yield installed_bundle(name), False


def binding_of(manifest: Manifest, folder: Path) -> Binding:
    """What a store that is made with this bundle is bound to."""
    return Binding(
        space_id=manifest.space_id,
        code_id=manifest.code_id,
        dim=manifest.dim,
        scale=manifest.code.scale,
        bundle=str(folder),
        full_dim=manifest.full_dim,
        packing=manifest.code.packing,
    )
