"""Signatures: who vouches for a bundle (FORMAT.md, "Signature").

A signature is over the manifest's bytes, which name the SHA-256 of every other file. It is Ed25519
(RFC 8032), computed by the package ``cryptography``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edge_mrl.bundle.files import read_bounded
from edge_mrl.bundle.known import recall
from edge_mrl.bundle.manifest import MANIFEST, SIGNATURE, parse_manifest
from edge_mrl.errors import (
    MissingDependencyError,
    MissingFileError,
    SignatureError,
    UsageError,
    brief,
)
from edge_mrl.machine import BINARY, sync_path

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = [
    "TRUST",
    "TrustedKeys",
    "make_key",
    "require_key",
    "sign_bundle",
    "signers",
    "vouch",
]

#: The environment variable that names a file of trusted keys.
TRUST = "EDGE_MRL_TRUST"
MOST_KEY_BYTES = 65_536
_HEADER = b"edge-mrl-signature 1\n"
_LINE = re.compile(rb"ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)\n")
MOST_SIGNATURES = 8
_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----\s[A-Za-z0-9+/=\s]+?-----END PUBLIC KEY-----")
_REVOKED = re.compile(r"revoke ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Public keys whose signatures count, and bundles that no longer do.

    Attributes:
        keys: Public keys by id.
        revoked: SHA-256 of manifests that are refused whoever signed them.
    """

    keys: dict[str, Ed25519PublicKey]
    revoked: frozenset[str]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TrustedKeys:
        """Read a file of public keys in PEM, one after the other, lines ``revoke SHA256``, and comments.

        Raises:
            UsageError: The file cannot be read, or holds something else.
            MissingDependencyError: The package ``cryptography`` is not installed.
        """
        text = _read_text(Path(path))
        keys = {}
        for block in _BLOCK.findall(text):
            key = _public_key(block, path)
            keys[key_id(key)] = key
        revoked = set()
        for line in _BLOCK.sub("\n", text).splitlines():
            match = _REVOKED.fullmatch(line.strip())
            if match:
                revoked.add(match[1])
            elif line.strip() and not line.lstrip().startswith("#"):
                raise UsageError(
                    f"{path} holds {brief(line.strip(), 60)!r}: expected public keys in PEM, lines "
                    "`revoke SHA256`, and comments behind #"
                )
        if not keys:
            raise UsageError(f"{path} holds no public key: expected one in PEM")
        return cls(keys, frozenset(revoked))

    def signer(self, data: bytes, signature: bytes) -> str | None:
        """The id of the first trusted key that signed a manifest's bytes; None if none did."""
        from cryptography.exceptions import InvalidSignature

        for named, value in parse_signature(signature):
            key = self.keys.get(named)
            if key is not None:
                try:
                    key.verify(value, data)
                except InvalidSignature:
                    continue
                return named
        return None


def vouch(folder: Path, data: bytes, trust: str | os.PathLike[str] | None) -> str | None:
    """Who vouches for a manifest, of which nothing has been parsed.

    A bundle that this machine made from a signed one, with another head, has no signature. The record
    that this machine keeps of it counts instead, as long as the signer of the first one is trusted.

    Args:
        folder: The bundle's folder.
        data: The manifest's bytes.
        trust: The file of trusted keys; None for the one that EDGE_MRL_TRUST names.

    Returns:
        The key's id; None if no keys were asked for.

    Raises:
        SignatureError: No trusted key vouches for it.
        UsageError: The file of keys cannot be read.
    """
    path = trust if trust is not None else os.environ.get(TRUST)
    if not path:
        return None
    trusted, digest = TrustedKeys.read(path), hashlib.sha256(data).hexdigest()
    if digest in trusted.revoked:
        raise SignatureError(f"the bundle {folder} is revoked in {path}: use a newer one")
    try:
        signature = read_bounded(folder, SIGNATURE)
    except MissingFileError:
        made = recall(digest).made
        if made is not None and made.signer in trusted.keys and made.base not in trusted.revoked:
            return made.signer
        raise SignatureError(
            f"the bundle {folder} is not signed, and only bundles signed by a key of {path} are opened: "
            "get a signed one, or sign it with `edge-mrl sign`"
        ) from None
    signer = trusted.signer(data, signature)
    if signer is None:
        named = ", ".join(name for name, _ in parse_signature(signature))
        raise SignatureError(
            f"the bundle {folder} was changed after it was signed, or its key {named} is not one of "
            f"{path}: get it again from who made it"
        )
    return signer


def parse_signature(data: bytes) -> list[tuple[str, bytes]]:
    """Key ids and signatures of a signature file.

    Raises:
        SignatureError: It is something else.
    """
    found = []
    if data.startswith(_HEADER):
        at = len(_HEADER)
        while match := _LINE.match(data, at):
            found.append((match[1].decode(), base64.b64decode(match[2])))
            at = match.end()
        if at == len(data) and 1 <= len(found) <= MOST_SIGNATURES:
            return found
    raise SignatureError(f"{SIGNATURE} is not a signature of edge-mrl: get the bundle again")


def signers(bundle: str | os.PathLike[str]) -> list[str]:
    """Ids of the keys that a bundle says it was signed with; [] if it is not signed.

    Raises:
        SignatureError: The signature's file is something else.
    """
    try:
        data = read_bounded(Path(bundle), SIGNATURE)
    except MissingFileError:
        return []
    return [named for named, _ in parse_signature(data)]


def sign_bundle(bundle: str | os.PathLike[str], key: str | os.PathLike[str]) -> str:
    """Sign a bundle; signatures of other keys are kept, so that keys can take turns.

    Args:
        bundle: The bundle's folder. Its files are not checked: verify it first.
        key: A file with an Ed25519 private key in PEM.

    Returns:
        The key's id.

    Raises:
        UsageError: The key cannot be read.
        BundleError: The manifest is damaged.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    folder = Path(bundle)
    private = require_key(key)
    data = read_bounded(folder, MANIFEST)
    parse_manifest(data)
    own = key_id(private.public_key())
    try:
        earlier = parse_signature(read_bounded(folder, SIGNATURE))
    except MissingFileError:
        earlier = []
    kept = [pair for pair in earlier if pair[0] != own][: MOST_SIGNATURES - 1]
    lines = [_HEADER]
    for named, value in [*kept, (own, private.sign(data))]:
        lines.append(f"ed25519 {named} {base64.b64encode(value).decode()}\n".encode())
    part = folder / f".{SIGNATURE}.part"
    part.write_bytes(b"".join(lines))
    sync_path(part)
    part.replace(folder / SIGNATURE)
    sync_path(folder)
    return own


def require_key(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    """Read a private key, before anything is done for which it is needed.

    Raises:
        UsageError: It cannot be read.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    return _private_key(Path(path))


def make_key(path: str | os.PathLike[str]) -> tuple[str, Path]:
    """Make a key pair: the private key at ``path``, for its owner's eyes only, the public one beside it.

    Returns:
        The key's id, and the file of the public key, whose name ends in ``.pub``.

    Raises:
        UsageError: A file of that name exists, or cannot be written.
        MissingDependencyError: The package ``cryptography`` is not installed.
    """
    ed25519, serialization = _library()
    private = ed25519.Ed25519PrivateKey.generate()
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    shown = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    public = Path(f"{os.fspath(path)}.pub")
    for file, data, mode in ((Path(path), secret, 0o600), (public, shown, 0o644)):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, mode)
        except OSError as error:
            raise UsageError(f"cannot write {file}: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as written:
            written.write(data)
        sync_path(file)
    return key_id(private.public_key()), public


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'signatures need {error.name}: pip install "edge-mrl[signed]"'
        ) from error
    return ed25519, serialization


def _read_text(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | BINARY)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{path} is not a file: expected keys in PEM")
            data = file.read(MOST_KEY_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the keys in {path}: {error.strerror}") from error
    if len(data) > MOST_KEY_BYTES:
        raise UsageError(f"{path} has more than {MOST_KEY_BYTES} bytes: expected keys in PEM")
    return data.decode("utf-8", "replace")


def _public_key(block: str, path: str | os.PathLike[str]) -> Ed25519PublicKey:
    ed25519, serialization = _library()
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key = serialization.load_pem_public_key(block.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} holds a damaged public key: {brief(error)}") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise UsageError(f"{path} holds a key of another kind: expected Ed25519")
    return cast("Ed25519PublicKey", key)


def _private_key(path: Path) -> Ed25519PrivateKey:
    text = _read_text(path)
    ed25519, serialization = _library()
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path} holds no private key that can be read: expected Ed25519 in PEM, without a password"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} holds a key of another kind: expected Ed25519")
    return cast("Ed25519PrivateKey", key)
