"""The projection head: the linear map from full vectors to codes (FORMAT.md, "Codes").

It is part of a bundle's graph. The bundle also has the matrix in a file of its own, so that a program
with full vectors can derive codes without the model: a server, or a device that changes its head.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle.files import read_file
from edge_mrl.bundle.manifest import HEAD, Manifest, read_manifest
from edge_mrl.codes import normalize, quantize
from edge_mrl.errors import HashError, ManifestError

#: The beginning of a file as NumPy writes it: magic, version, and the header's length and text.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..(\{'descr': '<f4', 'fortran_order': False, "
    rb"'shape': \((\d{1,9}), (\d{1,9})\), \} *\n)",
    re.DOTALL,
)

__all__ = ["bundle_codes", "derive_codes", "head_id", "head_inputs", "is_head", "read_head"]

#: A head's values are about 1. Far beyond, lengths of what it makes are no float32 any more.
MAX_VALUE = 1e9


def head_inputs(full: NDArray[np.float32], *, layer_norm: bool) -> NDArray[np.float32]:
    """What the head reads: ``full``, centred if the model's recipe has a layer norm.

    Args:
        full: float32[n, D].
        layer_norm: The manifest's ``head.layer_norm``.

    Returns:
        float32[n, D].
    """
    return full - full.mean(axis=1, keepdims=True) if layer_norm else full


def derive_codes(
    full: NDArray[np.float32],
    matrix: NDArray[np.float32] | None,
    *,
    dim: int,
    layer_norm: bool = False,
    scale: float = 1.0,
) -> NDArray[np.int8]:
    """Derive codes from full vectors, as a bundle's graph does.

    Args:
        full: float32[n, D], unit length.
        matrix: float32[D, at least dim] of the head, or None for the prefix.
        dim: Dimensions of the code.
        layer_norm: Whether vectors are centred first.
        scale: The value that 127 stands for.

    Returns:
        int8[n, dim].
    """
    inputs = head_inputs(full, layer_norm=layer_norm)
    vectors = inputs if matrix is None else inputs @ matrix
    return quantize(normalize(vectors[:, :dim]), scale=scale)


def bundle_codes(
    full: NDArray[np.float32], matrix: NDArray[np.float32] | None, manifest: Manifest
) -> NDArray[np.int8]:
    """Derive codes from full vectors as the bundle of a manifest does, with its head or another.

    Args:
        full: float32[n, D], unit length.
        matrix: float32[D, dim] of the head, or None for the prefix.
        manifest: The bundle's.

    Returns:
        int8[n, dim].
    """
    return derive_codes(
        full,
        matrix,
        dim=manifest.dim,
        layer_norm=manifest.head.layer_norm,
        scale=manifest.code.scale,
    )


def head_id(matrix: NDArray[np.float32] | None, *, layer_norm: bool) -> str:
    """SHA-256 that names a head (FORMAT.md, "Space"): equal matrices have equal names.

    Args:
        matrix: float32[D, dim], or None for the prefix.
        layer_norm: Whether vectors are centred first.
    """
    named: dict[str, object] = {"kind": "prefix", "layer_norm": layer_norm}
    if matrix is not None:
        values = np.ascontiguousarray(matrix, dtype="<f4")
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        named |= {"kind": "matrix", "shape": list(values.shape), "sha256": digest}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def is_head(matrix: NDArray[np.float32]) -> bool:
    """Whether a matrix, float32[D, dim], can make codes: it is not empty, and its sums are finite."""
    # A comparison with what is not finite is False.
    return bool(matrix.size) and bool((np.abs(matrix) <= MAX_VALUE).all())


def read_head(
    bundle: str | os.PathLike[str], manifest: Manifest | None = None
) -> NDArray[np.float32] | None:
    """Read and check the head of the bundle in a folder.

    Args:
        bundle: The bundle's folder.
        manifest: Its manifest; None to read it.

    Returns:
        float32[D, dim], or None if the head is the prefix.

    Raises:
        MissingFileError: The head's file is missing.
        TruncatedError: The file is shorter or longer than the manifest says.
        ManifestError: The file does not hold a matrix of the manifest's dimensions.
        HashError: The matrix, or the file, is not the one that the manifest names.
    """
    manifest = manifest or read_manifest(bundle)
    if manifest.head.kind == "prefix":
        return None
    matrix = _matrix(read_file(Path(bundle), HEAD, manifest.files[HEAD]))
    if matrix is None or not _fits(matrix, manifest):
        width = "D" if manifest.full_dim is None else manifest.full_dim
        found = "something else" if matrix is None else f"{matrix.dtype}{list(matrix.shape)}"
        raise ManifestError(
            f"{HEAD} holds {found}, expected finite float32[{width}, {manifest.dim}] in NumPy's format "
            "1.0: export the bundle again"
        )
    if head_id(matrix, layer_norm=manifest.head.layer_norm) != manifest.head.id:
        raise HashError(f"{HEAD} is not the head that the manifest names: copy the bundle again")
    return matrix


def _matrix(data: bytes) -> NDArray[np.float32] | None:
    """The matrix in NumPy's format 1.0, in the one form that FORMAT.md has; NumPy reads many more."""
    header = _HEADER.match(data)
    if header is None or len(header[1]) != int.from_bytes(data[8:10], "little"):
        return None
    shape = (int(header[2]), int(header[3]))
    if len(data) - header.end() != 4 * shape[0] * shape[1]:
        return None
    return np.frombuffer(data, "<f4", offset=header.end()).reshape(shape)


def _fits(matrix: NDArray[np.float32], manifest: Manifest) -> bool:
    shaped = matrix.dtype == np.dtype("<f4") and matrix.ndim == 2
    return (
        shaped
        and matrix.shape[1] == manifest.dim
        and manifest.full_dim in (None, matrix.shape[0])
        and is_head(matrix)
    )
