"""A bundle as one file: a zip whose entries are stored, not deflated. It is unpacked once, into a cache.

What comes out is a folder, and is checked like any other. Nothing else in the archive is believed: an
entry that leads elsewhere, is compressed, is no plain file, is there twice or shares its bytes with
another one ends it before a byte is written.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edge_mrl.bundle.files import MOST_BYTES, MOST_FILES, check_files
from edge_mrl.bundle.hub.cache import name_of_snapshot
from edge_mrl.bundle.installed import installed_bundle, installed_names
from edge_mrl.bundle.manifest import MANIFEST, SIGNATURE, read_manifest
from edge_mrl.bundle.tidy import mark_used, remove, tidy
from edge_mrl.errors import BundleError, FormatError, UsageError, reason
from edge_mrl.machine import sync_path

__all__ = ["has_own_place", "pack_bundle", "unpacked"]

#: The environment variable that names another folder for what was unpacked.
CACHE = "EDGE_MRL_CACHE"
#: Entries may be more than the manifest names: folders, a README, what macOS adds.
MOST_ENTRIES = 4 * MOST_FILES
#: Bytes of the table of contents; of 64 plain names it has 6 kB.
MOST_TABLE_BYTES = 1 << 18
#: The end of a zip: its signature, its length, and where it has the size of the table of contents.
_END, _END_BYTES, _TABLE = b"PK\x05\x06", 22, slice(12, 16)
_MOST_COMMENT_BYTES = 65_535
_HEADER_BYTES = 30
_BLOCK = 1 << 20
_SAFE = re.compile(r"[^\\:\x00-\x1f]+")
#: A zip says of each entry when it was changed; equal bundles give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def has_own_place(folder: Path) -> bool:
    """Whether a bundle lies where its user put it: neither in a package nor in a cache."""
    if name_of_snapshot(folder) is not None:
        return False
    shared = [] if (cache := _cache_folder()) is None else [cache.resolve()]
    for name in installed_names():
        with suppress(BundleError):
            shared.append(installed_bundle(name).parent)
    return not any(folder.resolve().is_relative_to(one) for one in shared)


def pack_bundle(bundle: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Write a bundle into a zip, stored, so that it can be passed on as one file.

    The same bundle gives the same bytes. A signature goes with it.

    Args:
        bundle: The bundle's folder.
        target: The .zip, which is replaced if it is there. It appears once it is complete.

    Returns:
        Its size in bytes.

    Raises:
        UsageError: There is no bundle, or no folder for the zip.
        BundleError: The bundle is damaged.
        OSError: The zip cannot be written.
    """
    folder, zipped = Path(bundle), Path(target)
    manifest = read_manifest(folder, trust="")
    check_files(folder, manifest, hashes=True)
    if not zipped.absolute().parent.is_dir():
        raise UsageError(f"output {zipped}: there is no folder {zipped.parent}")
    signed = [SIGNATURE] if (folder / SIGNATURE).is_file() else []
    descriptor, temporary = tempfile.mkstemp(dir=zipped.absolute().parent, prefix=".edge-mrl-")
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name in [MANIFEST, *signed, *manifest.files]:
                _add(archive, folder, name)
        Path(temporary).chmod(0o644)
        sync_path(Path(temporary))
        Path(temporary).replace(zipped)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_path(zipped.absolute().parent)
    return zipped.stat().st_size


def _add(archive: zipfile.ZipFile, folder: Path, name: str) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix, also where it is not
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = (folder / name).stat().st_size
    with (folder / name).open("rb") as source, archive.open(info, "w") as entry:
        shutil.copyfileobj(source, entry, _BLOCK)


def unpacked(place: Path) -> Path:
    """The folder of the cache that has the bundle of a .zip, which is unpacked if it is not there.

    Raises:
        FormatError: The file is no zip of a bundle, or has entries that none has.
        BundleError: It cannot be read, or there is no room to unpack it.
    """
    with _opened(place) as file:
        try:
            _require_small_table(file, place)
            with zipfile.ZipFile(file) as archive:
                entries = _entries(archive, place)
                return _in_cache(archive, entries, place)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
            raise FormatError(
                f"{place} cannot be unpacked: {reason(error)}: copy it again"
            ) from error


@contextmanager
def _opened(place: Path) -> Iterator[IO[bytes]]:
    try:
        file = place.open("rb")
    except OSError as error:
        raise BundleError(f"{place} cannot be read: {reason(error)}") from error
    with file:
        yield file


def _require_small_table(file: IO[bytes], place: Path) -> None:
    """Check that the table of contents is small, before it is read.

    Raises:
        FormatError: It is large, or the file is no zip.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - _MOST_COMMENT_BYTES))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + _END_BYTES:
        raise FormatError(f"{place} is no bundle: expected a folder, or a .zip of one")
    table = int.from_bytes(tail[at:][_TABLE], "little")
    if table > MOST_TABLE_BYTES:
        raise FormatError(
            f"{place} has a table of contents of {table:,} bytes, expected at most {MOST_TABLE_BYTES:,}"
        )
    file.seek(0)


def _entries(archive: zipfile.ZipFile, place: Path) -> dict[str, zipfile.ZipInfo]:
    """The bundle's files by name: those beside the manifest.

    Raises:
        FormatError: There is an entry that no bundle's zip has, or no manifest.
    """
    found = archive.infolist()
    if len(found) > MOST_ENTRIES:
        raise FormatError(f"{place} has {len(found):,} entries, expected at most {MOST_ENTRIES}")
    for info in found:
        if (problem := _problem(info)) is not None:
            raise FormatError(f"{place} has the entry {info.filename!r}, which {problem}")
    _require_apart(found, archive.start_dir, place)
    tops = [
        name.removesuffix(MANIFEST)
        for name in (info.filename for info in found)
        if name.rpartition("/")[2] == MANIFEST and name.count("/") <= 1
    ]
    if len(tops) != 1:
        raise FormatError(
            f"{place} has {len(tops)} files {MANIFEST}, expected one: pack one bundle"
        )
    files = {
        info.filename.removeprefix(tops[0]): info
        for info in found
        if info.filename.startswith(tops[0]) and not info.is_dir()
    }
    return {name: info for name, info in files.items() if "/" not in name}


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Why an entry is none that a bundle's zip has, in words."""
    name, mode = info.orig_filename, info.external_attr >> 16
    parts = name.removesuffix("/").split("/")
    if _SAFE.fullmatch(name) is None or any(part in ("", ".", "..") for part in parts):
        return "leads out of the bundle's folder, or has a name that no file has"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, expected a file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        return "is compressed, expected it stored (as by `zip -0`)"
    most = MOST_BYTES.get(parts[-1])
    if most is not None and info.file_size > most:
        return f"has {info.file_size:,} bytes, expected at most {most:,}"
    return None


def _require_apart(found: list[zipfile.ZipInfo], end: int, place: Path) -> None:
    """Check that no name is there twice, and no two entries share bytes.

    Raises:
        FormatError: They do.
    """
    names: set[str] = set()
    for info in found:
        name = info.filename.rstrip("/").casefold()
        if name in names:
            raise FormatError(f"{place} has the entry {info.filename!r} twice")
        names.add(name)
    before = 0
    for info in sorted(found, key=lambda info: info.header_offset):
        if info.header_offset < before:
            raise FormatError(f"{place} has entries that share their bytes")
        before = info.header_offset + _HEADER_BYTES + len(info.orig_filename) + info.file_size
    if before > end:
        raise FormatError(f"{place} has an entry that ends beyond the file")


def _in_cache(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], place: Path
) -> Path:
    """The folder of the cache that has the files, made if it is not there."""
    cache = _cache_folder()
    if cache is None:
        raise BundleError(f"{place} must be unpacked, and this user has no cache: set {CACHE}")
    digest = hashlib.sha256()
    for name in (MANIFEST, SIGNATURE):
        digest.update(archive.read(entries[name]) if name in entries else b"")
    for name, info in sorted(entries.items()):
        digest.update(f"\0{name}\0{info.file_size}\0{info.CRC}".encode())
    folder = cache / "bundles" / digest.hexdigest()
    try:
        if _is_whole(folder, entries):
            mark_used(folder)
        else:
            _unpack(archive, entries, folder)
            tidy(folder.parent)
    except OSError as error:
        raise BundleError(
            f"{place} cannot be unpacked into {folder.parent}: {reason(error)}: make room there, or "
            f"name another folder with {CACHE}"
        ) from error
    return folder


def _cache_folder() -> Path | None:
    if named := os.environ.get(CACHE):
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if base and Path(base).is_absolute():
        return Path(base) / "edge-mrl"
    try:
        return Path.home() / ".cache" / "edge-mrl"
    except RuntimeError:  # no home
        return None


def _is_whole(folder: Path, entries: Mapping[str, zipfile.ZipInfo]) -> bool:
    """Whether a folder has all files in their sizes, and nobody else can have written them."""
    try:
        status = folder.lstat()
        owner = getattr(os, "geteuid", lambda: status.st_uid)()
        if not stat.S_ISDIR(status.st_mode):
            return False
        if status.st_uid != owner or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BundleError(
                f"{folder} belongs to somebody else, or others may write there: remove it"
            )
        return all(
            stat.S_ISREG((one := (folder / name).lstat()).st_mode) and one.st_size == info.file_size
            for name, info in entries.items()
        )
    except FileNotFoundError:
        return False


def _unpack(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], folder: Path) -> None:
    """Write the files into a folder that appears once it is complete."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))  # mode 0700
    try:
        for name, info in entries.items():
            with archive.open(info) as source, (temporary / name).open("xb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
            sync_path(temporary / name)
        _put_in_place(temporary, folder, entries)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_path(folder.parent)


def _put_in_place(temporary: Path, folder: Path, entries: Mapping[str, zipfile.ZipInfo]) -> None:
    """Rename a complete folder to its name, unless another process has done the same."""
    for last in (False, False, True):
        try:
            temporary.rename(folder)
        except OSError:
            if _is_whole(folder, entries):
                return
            if last:
                raise
            remove(folder)  # a power cut, or somebody tidied up a part of it
        else:
            return
