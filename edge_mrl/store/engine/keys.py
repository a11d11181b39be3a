"""Where a store's key comes from: never from beside the store, never from a passphrase."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from edge_mrl.errors import UsageError
from edge_mrl.store.engine.cipher import KEY_BYTES, Key

__all__ = ["key_from_descriptor", "key_from_environment", "key_from_file", "parse_key"]

#: The credential that a systemd unit loads: ``LoadCredential=edge-mrl-key:/path``.
CREDENTIAL = "edge-mrl-key"
#: The last resort: other programs of the user can read a process's environment.
VARIABLE = "EDGE_MRL_KEY"
#: Longer than any form of a key.
_MOST_BYTES = 1024


def parse_key(data: bytes, source: str) -> bytes:
    """A key from its 32 bytes, or from 64 hexadecimal digits.

    Raises:
        UsageError: It is neither.
    """
    if len(data) == KEY_BYTES:
        return data
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise UsageError(
            f"{source} holds no key: expected {KEY_BYTES} random bytes, or {2 * KEY_BYTES} hexadecimal "
            f"digits, for example from `openssl rand -hex {KEY_BYTES}`"
        )
    return key


def key_from_file(path: str | os.PathLike[str], store: str | os.PathLike[str]) -> Key:
    """The key in a file.

    Args:
        path: The key's file.
        store: The store that it opens.

    Raises:
        UsageError: The file lies beside the store, everybody can read it, or it holds no key.
    """
    file = Path(path)
    if Path(os.path.realpath(file)).parent == Path(os.path.realpath(store)).parent:
        raise UsageError(
            f"{file} lies in the folder of {os.fspath(store)}: who takes the store would have its key. "
            "Keep it elsewhere, on another medium if you can"
        )
    try:
        if file.stat().st_mode & 0o007 and hasattr(os, "geteuid") and file.is_file():
            raise UsageError(f"{file} can be read by every user: `chmod 600 {file}`")
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    key = parse_key(data, str(file))
    return lambda: key


def key_from_descriptor(descriptor: int) -> Key:
    """The key that an open file or pipe gives until its end; the descriptor is closed.

    Raises:
        UsageError: It cannot be read, or holds no key.
    """
    try:
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(_MOST_BYTES)
    except OSError as error:
        raise UsageError(f"descriptor {descriptor} cannot be read: {error.strerror}") from error
    key = parse_key(data, f"descriptor {descriptor}")
    return lambda: key


def key_from_environment(
    store: str | os.PathLike[str], environment: Mapping[str, str] | None = None
) -> Key | None:
    """The key of a systemd credential, or else of the variable EDGE_MRL_KEY; None without either.

    Args:
        store: The store that it opens.
        environment: Instead of the process's.

    Raises:
        UsageError: There is one, and it is no key.
    """
    values = os.environ if environment is None else environment
    folder = values.get("CREDENTIALS_DIRECTORY")
    if folder and (Path(folder) / CREDENTIAL).exists():
        return key_from_file(Path(folder) / CREDENTIAL, store)
    text = values.get(VARIABLE)
    if not text:
        return None
    key = parse_key(text.encode("ascii", "replace"), VARIABLE)
    return lambda: key
