"""A bundle's own files, copied into a new folder, and nothing else of where they lie."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from edge_mrl.bundle.files import check_files
from edge_mrl.bundle.hub.card import CARD, make_card
from edge_mrl.bundle.manifest import MANIFEST, SIGNATURE, Manifest, read_manifest
from edge_mrl.errors import UsageError
from edge_mrl.machine import sync_path

__all__ = ["copy_bundle", "own_files", "require_new_folder"]


def own_files(folder: Path, manifest: Manifest) -> list[str]:
    """Names of a bundle's files: the manifest, its signature if there is one, and what it names."""
    signed = [SIGNATURE] if (folder / SIGNATURE).is_file() else []
    return [MANIFEST, *signed, *manifest.files]


def copy_bundle(bundle: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a bundle into a new folder, with a model card, and compare every hash of the copy.

    Args:
        bundle: The bundle's folder. Links in it are followed, so that the copy has none.
        target: The new folder, or an empty one. It appears once it is complete.

    Raises:
        UsageError: The target is there and not empty, or there is no folder for it.
        BundleError: The bundle is damaged.
        OSError: The target cannot be written.
    """
    folder, place = Path(bundle), Path(target)
    manifest = read_manifest(folder, trust="")
    require_new_folder(place)
    staging = Path(tempfile.mkdtemp(dir=place.absolute().parent, prefix=".edge-mrl-"))
    try:
        for name in own_files(folder, manifest):
            shutil.copyfile(folder / name, staging / name)
        check_files(staging, read_manifest(staging, trust=""), hashes=True)
        (staging / CARD).write_text(make_card(manifest), "utf-8")
        for path in staging.iterdir():
            sync_path(path)
        staging.chmod(0o755)
        if place.is_dir():
            place.rmdir()
        staging.rename(place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_path(place.absolute().parent)


def require_new_folder(target: str | os.PathLike[str]) -> None:
    """Check that a folder can be made, or is empty.

    Raises:
        UsageError: It cannot, or is not.
    """
    place = Path(target)
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        raise UsageError(f"{place} is there already: name a new or an empty folder")
    if not place.absolute().parent.is_dir():
        raise UsageError(f"{place}: there is no folder {place.absolute().parent}")
