"""Bundles with another head, made without the exporter, on the device that will use them.

The graph reads its head as plain values: from head.npy or, if the head was the prefix, from a unit matrix
in model.onnx.data (FORMAT.md, "Head"). So a new bundle only needs other values there. It is written
beside the old one, compared with the head's own arithmetic, and verified as any bundle is. Only then does
it get its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import (
    GOLDEN,
    HEAD,
    MANIFEST,
    WEIGHTS,
    FileEntry,
    Head,
    Made,
    Manifest,
    bundle_codes,
    check_files,
    dump_manifest,
    head_id,
    make_code,
    read_head,
    read_manifest,
    read_signed,
    recall,
    remember_made,
)
from edge_mrl.codes import Packing
from edge_mrl.encode import Encoder, encode_vector, verify
from edge_mrl.errors import BundleError, UsageError
from edge_mrl.machine import sync_path
from edge_mrl.native import reference_engine

__all__ = ["NewHead", "place_for_head", "with_head"]

Float = NDArray[np.float32]

#: The export's reports. They describe a graph with another head, so the new bundle has none.
REPORTS = ("report.json", "report.html")
#: The products of the graph and of numpy differ in the last digit, so that an element of a code may
#: differ by one: at most this share of the elements.
ROUNDING, MOST_ROUNDED = 1, 0.02


@dataclass(frozen=True, slots=True, eq=False)
class NewHead:
    """A head to put into a bundle.

    Attributes:
        matrix: float32[D, dim].
        kind: How it was made: one of ``edge_mrl.bundle.manifest.HEAD_KINDS`` except "prefix".
        packing: How stores pack its codes.
    """

    matrix: Float
    kind: str
    packing: Packing


def place_for_head(bundle: Path) -> int | None:
    """Find where the graph reads its head.

    Args:
        bundle: The bundle's folder.

    Returns:
        The offset in model.onnx.data in bytes, or None if the graph reads head.npy.

    Raises:
        UsageError: The graph has no place for a head: the bundle gives codes only, or was made by an
            earlier version, or its codes have all dimensions of the model.
        BundleError: The bundle is damaged.
    """
    manifest = read_manifest(bundle)
    matrix = read_head(bundle, manifest)
    if manifest.full_dim is None:
        raise UsageError(
            f"the bundle {bundle} gives codes only, and fitting a head needs full vectors: "
            "export the model without --coarse-only"
        )
    if matrix is None:
        matrix = np.eye(manifest.full_dim, manifest.dim, dtype=np.float32)
    sought = matrix.tobytes()
    with (
        (bundle / WEIGHTS).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        at = data.find(sought)
        again = at >= 0 and data.find(sought, at + 1) >= 0
    if again or (at < 0 and manifest.head.kind == "prefix"):
        raise UsageError(
            f"the graph of {bundle} has no place for a head: export the model again with this "
            "version of edge-mrl, and with fewer dimensions than the model has"
        )
    return at if at >= 0 else None


def with_head(
    bundle: Path, output: Path, head: NewHead, *, trust: str | os.PathLike[str] | None = None
) -> Manifest:
    """Write a bundle that differs from another one in its head only.

    Args:
        bundle: The other bundle's folder.
        output: The new folder. If a bundle of the same code is there already, it is kept.
        head: The new head.
        trust: A file of keys, one of which must have signed the other bundle; None for the one of
            EDGE_MRL_TRUST. The new bundle has no signature; this machine remembers what it was made from.

    Returns:
        The new bundle's manifest.

    Raises:
        UsageError: The bundle has no place for a head, or ``output`` holds something else.
        BundleError: The bundle is damaged, or the new one's codes are not those of its head.
    """
    base = read_signed(bundle, trust=trust)
    manifest = base.manifest
    check_files(bundle, manifest, hashes=True)
    place = place_for_head(bundle)
    named = head_id(head.matrix, layer_norm=manifest.head.layer_norm)
    code = make_code(named, manifest.dim, scale=manifest.code.scale, packing=head.packing)
    if output.exists():
        return _same(output, code.id)
    changed = dataclasses.replace(
        manifest,
        head=Head(named, head.kind, manifest.head.layer_norm),
        code=code,
        quality={k: v for k, v in manifest.quality.items() if not k.startswith("code_")},
    )
    with _staging(output) as folder:
        for name in manifest.files.keys() - {HEAD, *REPORTS}:
            shutil.copyfile(bundle / name, folder / name)
        _write_values(folder, head.matrix, place)
        _write_manifest(folder, changed)
        _write_golden(folder, head.matrix)
        written = _write_manifest(folder, changed)
        result = verify(folder, untried=True)
        if not result.passed:
            raise BundleError(f"the new bundle failed its check: {'; '.join(result.failures)}")
        if base.signer is not None:
            _vouch(folder, base.digest, base.signer)
        _publish(folder, output)
    return written


def _vouch(folder: Path, base: str, signer: str) -> None:
    """Remember that this machine made a bundle from a signed one, because nobody signs it."""
    first = recall(base).made
    made = Made(signer, base if first is None else first.base)
    try:
        remember_made(read_signed(folder, trust="").digest, made)
    except OSError as error:
        raise UsageError(
            f"a signed bundle was asked for, and it cannot be remembered that this machine makes one "
            f"from it ({error.strerror or error}): set EDGE_MRL_STATE to a folder that can be written"
        ) from error


def _same(output: Path, code_id: str) -> Manifest:
    """The manifest of the bundle that an interrupted run left."""
    manifest = read_manifest(output)
    if manifest.code_id != code_id:
        raise UsageError(f"{output} holds another bundle: choose another folder with -o")
    check_files(output, manifest, hashes=True)
    return manifest


def _write_values(folder: Path, matrix: Float, place: int | None) -> None:
    values = np.ascontiguousarray(matrix, dtype="<f4")
    with (folder / HEAD).open("wb") as file:
        np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)
    if place is not None:
        with (folder / WEIGHTS).open("r+b") as file:
            file.seek(place)
            file.write(values.tobytes())


def _write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[path.name] = FileEntry(digest, path.stat().st_size)
    written = dataclasses.replace(manifest, files=files)
    (folder / MANIFEST).write_bytes(dump_manifest(written))
    return read_manifest(folder, trust="")


def _write_golden(folder: Path, matrix: Float) -> None:
    """Give the golden texts the codes that this machine computes, after comparing them with the head."""
    golden = json.loads((folder / GOLDEN).read_bytes())
    with reference_engine(), Encoder.open(folder, untried=True) as encoder:
        manifest = encoder.manifest
        for entry in golden["texts"]:
            encoding = encoder.encode([entry["text"]], kind=entry["kind"])
            assert encoding.full is not None
            wanted = bundle_codes(encoding.full, matrix, manifest)
            off = np.abs(encoding.coarse.astype(np.int16) - wanted)
            if off.max() > ROUNDING or (off > 0).mean() > MOST_ROUNDED + 1 / off.size:
                raise BundleError(
                    f"the graph of {folder} does not read its head from the expected place: "
                    "export the model again"
                )
            entry["coarse"] = encode_vector(encoding.coarse[0], "i1")
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (folder / GOLDEN).write_bytes((text + "\n").encode("utf-8", "surrogatepass"))


@contextlib.contextmanager
def _staging(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output``; it is removed unless it was renamed to ``output``."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UsageError(f"cannot write to {output.parent}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, output: Path) -> None:
    """Give a finished folder its name, after all of it has reached the storage device."""
    folder.chmod(0o755)
    for path in (*folder.iterdir(), folder):
        sync_path(path)
    folder.rename(output)
    sync_path(output.parent)
