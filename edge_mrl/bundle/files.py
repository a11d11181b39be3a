"""A bundle's files, as what they are: opened once, of a bounded size, with the bytes that were promised.

Nothing outside the folder counts. A link, as the caches of model hubs are made of, is followed only where
the bytes that it leads to are those that the manifest names, and that is compared each time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.errors import BundleError, HashError, MissingFileError, TruncatedError
from edge_mrl.machine import BINARY

if TYPE_CHECKING:
    from edge_mrl.bundle.manifest import FileEntry, Manifest

__all__ = [
    "MOST_BYTES",
    "MOST_FILES",
    "Identity",
    "check_files",
    "map_file",
    "read_bounded",
    "read_file",
    "require_sizes",
]

#: Most bytes of a file that is read as a whole, by name. The largest that we know: a manifest of 40 kB,
#: a graph of 1 MB, a tokenizer of 34 MB (262,000 tokens), golden texts of 1.3 MB, a head of 67 MB.
MOST_BYTES = {
    "edge_mrl.json": 1_000_000,
    "edge_mrl.sig": 16_384,
    "model.onnx": 64_000_000,
    "tokenizer.json": 64_000_000,
    "golden.json": 16_000_000,
    "head.npy": 300_000_000,
    "report.json": 16_000_000,
    "report.html": 64_000_000,
}
#: Most files that a manifest may name.
MOST_FILES = 64
_BLOCK = 1 << 20
#: Opened without waiting: a FIFO would wait for a writer for ever.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_FLAGS |= BINARY
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)

#: Inode, size, and the times of the last change of a file's bytes and of the file itself, in
#: nanoseconds. Only the system's administrator can set the last one.
Identity = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is open for reading.

    Attributes:
        file: The file.
        size_bytes: Its size as it was opened.
        linked: Whether its name is a link to a file elsewhere.
    """

    file: FileIO
    size_bytes: int
    linked: bool


def identity(status: os.stat_result) -> Identity:
    """What changes whenever a file is written to, replaced or renamed."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@contextlib.contextmanager
def opened(folder: Path, name: str) -> Iterator[Opened]:
    """Open a file of a bundle, without waiting for anything.

    Raises:
        MissingFileError: There is none.
        BundleError: It is no regular file, or may not be read.
    """
    path = folder / name
    linked = path.is_symlink()
    try:
        descriptor = os.open(path, _FLAGS | (0 if linked else _NO_LINK))
    except OSError as error:
        raise _unreadable(folder, name, error) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BundleError(f"{name} of the bundle {folder} is not a file: copy the bundle again")
    with FileIO(descriptor, "rb") as file:
        yield Opened(file, status.st_size, linked)


def _unreadable(folder: Path, name: str, error: OSError) -> BundleError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MissingFileError(
            f"{name} is missing from the bundle {folder}: copy the bundle again"
        )
    return BundleError(f"{name} of the bundle {folder} cannot be read: {error.strerror}")


def read_bounded(folder: Path, name: str) -> bytes:
    """Read a file that nothing promises yet: the manifest, or its signature.

    Raises:
        MissingFileError: There is none.
        BundleError: It is no file, or has more bytes than ``MOST_BYTES``.
    """
    with opened(folder, name) as open_:
        require_size(name, open_.size_bytes)
        return _read(open_, name, open_.size_bytes)


def read_file(folder: Path, name: str, entry: FileEntry) -> bytes:
    """Read a file, and compare its size and its SHA-256.

    Raises:
        MissingFileError: It is missing.
        TruncatedError: It has another size.
        HashError: It has other bytes.
        BundleError: It is no file, or too large.
    """
    require_size(name, entry.size_bytes)
    with opened(folder, name) as open_:
        _check_size(name, open_.size_bytes, entry)
        data = _read(open_, name, entry.size_bytes)
    _check_hash(name, hashlib.sha256(data).hexdigest(), entry)
    return data


def map_file(
    folder: Path, name: str, entry: FileEntry, *, known: Identity | None = None
) -> mmap.mmap | bytes:
    """Map a file into memory, and compare its size and its SHA-256.

    Args:
        folder: The bundle's folder.
        name: The file's name.
        entry: What the manifest says of it.
        known: The file whose SHA-256 was compared: if it is still the same one, that is enough.

    Raises:
        BundleError: As ``read_file``.
    """
    with opened(folder, name) as open_:
        _check_size(name, open_.size_bytes, entry)
        if not entry.size_bytes:
            return b""
        data = mmap.mmap(open_.file.fileno(), 0, access=mmap.ACCESS_READ)
        if known is None or known != identity(os.fstat(open_.file.fileno())):
            _check_hash(name, hashlib.sha256(data).hexdigest(), entry)
    return data


def check_files(
    bundle: str | os.PathLike[str],
    manifest: Manifest,
    *,
    hashes: bool,
    known: Mapping[str, Identity] | None = None,
) -> dict[str, Identity]:
    """Check that the bundle's files are there, complete and, with ``hashes``, unchanged.

    Args:
        bundle: The bundle's folder.
        manifest: Its manifest.
        hashes: Read every byte and compare SHA-256 too (about 0.1 s for 23 MB). Files that are links are
            always compared.
        known: With ``hashes``, files that need not be read again if they are still the same ones.

    Returns:
        The files' identities.

    Raises:
        MissingFileError: A file is missing.
        TruncatedError: A file has another size.
        HashError: A file has other bytes.
        BundleError: A name is no file, or may not be read.
    """
    folder, found = Path(bundle), {}
    for name, entry in manifest.files.items():
        with opened(folder, name) as open_:
            _check_size(name, open_.size_bytes, entry)
            found[name] = identity(os.fstat(open_.file.fileno()))
            same = known is not None and known.get(name) == found[name]
            if (hashes and not same) or open_.linked:
                digest = hashlib.file_digest(open_.file, "sha256").hexdigest()
                _check_hash(name, digest, entry)
    return found


def require_sizes(manifest: Manifest) -> None:
    """Check that the manifest's files are few, and none that is read as a whole is too large.

    Raises:
        BundleError: They are not.
    """
    if len(manifest.files) > MOST_FILES:
        raise BundleError(
            f"the manifest names {len(manifest.files)} files, expected at most {MOST_FILES}"
        )
    for name, entry in manifest.files.items():
        require_size(name, entry.size_bytes)


def require_size(name: str, size_bytes: int) -> None:
    """Check that a file that is read as a whole has a size that such a file can have.

    Raises:
        BundleError: It is larger.
    """
    most = MOST_BYTES.get(name)
    if most is not None and size_bytes > most:
        raise BundleError(f"{name} has {size_bytes} bytes, expected at most {most}")


def _read(open_: Opened, name: str, size_bytes: int) -> bytes:
    parts, missing = [], size_bytes + 1
    while missing and (part := open_.file.read(min(missing, _BLOCK))):
        parts.append(part)
        missing -= len(part)
    data = b"".join(parts)
    if len(data) != size_bytes:
        raise TruncatedError(f"{name} was changed while it was read: copy the bundle again")
    return data


def _check_size(name: str, size: int, entry: FileEntry) -> None:
    if size != entry.size_bytes:
        raise TruncatedError(
            f"{name} has {size} bytes, expected {entry.size_bytes}: copy the bundle again"
        )


def _check_hash(name: str, digest: str, entry: FileEntry) -> None:
    if digest != entry.sha256:
        raise HashError(
            f"{name} is damaged: SHA-256 {digest}, expected {entry.sha256}: copy the bundle again"
        )
