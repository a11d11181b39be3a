"""An Android app bundle (AAB), which a store makes APKs of: one module, and two messages of protobuf.

bundletool makes the same, but for its runtime library: what Maven Central has of it lacks the classes of
aapt2's messages. The format is that of bundletool's `config.proto` and `files.proto`
(https://github.com/google/bundletool/tree/1.17.2/src/main/proto).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from android_demo.tools.archive import Entry, write_zip

__all__ = ["ABI_NUMBERS", "FORMAT_VERSION", "write_app_bundle"]

#: The release of bundletool whose rules for bundles of this age apply.
FORMAT_VERSION = "1.17.2"
#: `Abi.AbiAlias` of targeting.proto.
ABI_NUMBERS = {"armeabi-v7a": 2, "arm64-v8a": 3, "x86": 4, "x86_64": 5}
#: `PageAlignment.PAGE_ALIGNMENT_16K` of config.proto.
PAGES_OF_16_KB = 2
MANIFEST = "AndroidManifest.xml"


def write_app_bundle(target: Path, entries: Iterable[Entry], abis: Sequence[str]) -> None:
    """Write an app bundle with one module, `base`. Its bytes depend on nothing but the arguments.

    Args:
        target: The file, which is replaced.
        entries: What an APK has: the manifest and `resources.pb` as aapt2 writes them for app bundles,
            `*.dex`, `res/`, `assets/`, `lib/`, and what belongs into the APK's root.
        abis: The kinds of processors of `lib/`.

    Raises:
        ValueError: A kind of processor is unknown, or the entries lack a manifest.
    """
    placed = [Entry(f"base/{_place(entry.name)}", entry.data) for entry in entries]
    names = {entry.name for entry in placed}
    if not {f"base/manifest/{MANIFEST}", "base/resources.pb"} <= names:
        raise ValueError("the module lacks its manifest or its resources")
    unknown = set(abis) - set(ABI_NUMBERS)
    if unknown:
        raise ValueError(f"unknown kinds of processors: {', '.join(sorted(unknown))}")
    own = [Entry("BundleConfig.pb", _config()), Entry("base/native.pb", _native(abis))]
    write_zip(target, [*placed, *own], align=False)


def _place(name: str) -> str:
    """Where an APK's file lies in a module."""
    if name == MANIFEST:
        return f"manifest/{name}"
    if name.endswith(".dex"):
        return f"dex/{name}"
    if name.startswith(("res/", "assets/", "lib/")) or name == "resources.pb":
        return name
    return f"root/{name}"


def _config() -> bytes:
    """`BundleConfig`: libraries lie in APKs uncompressed, at multiples of 16 KB, and are mapped."""
    libraries = _number(1, 1) + _number(2, PAGES_OF_16_KB)
    return _bytes(1, _bytes(2, FORMAT_VERSION.encode())) + _bytes(2, _bytes(2, libraries))


def _native(abis: Sequence[str]) -> bytes:
    """`NativeLibraries`: which folder is for which kind of processor."""
    return b"".join(
        _bytes(
            1, _bytes(1, f"lib/{abi}".encode()) + _bytes(2, _bytes(1, _number(1, ABI_NUMBERS[abi])))
        )
        for abi in sorted(abis)
    )


def _number(field: int, value: int) -> bytes:
    """A field of a message with a small number."""
    return bytes([field << 3, value])


def _bytes(field: int, value: bytes) -> bytes:
    """A field of a message with bytes, fewer than 128."""
    assert len(value) < 128
    return bytes([field << 3 | 2, len(value)]) + value
