"""The head of a bundle as a runtime reads it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.bundle.head import bundle_codes, derive_codes, head_id, read_head
from edge_mrl.bundle.manifest import HEAD, MANIFEST, read_manifest
from edge_mrl.codes import normalize
from edge_mrl.errors import HashError, ManifestError, MissingFileError, TruncatedError
from tests.support.bundles import TINY, copy_bundle, refresh_file, rewrite_manifest

Float = NDArray[np.float32]
WIDTH, DIM = 32, 16


def matrix_of(seed: int, shape: tuple[int, int] = (WIDTH, DIM)) -> Float:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def with_head(bundle: Path, matrix: NDArray[Any], kind: str = "rotation") -> Path:
    """Put a head beside the graph, named as an exporter would; the graph stays as it is."""
    np.save(bundle / HEAD, matrix)
    named = head_id(matrix.astype(np.float32), layer_norm=False)
    entry = {"sha256": "0" * 64, "size_bytes": 0}

    def change(data: dict[str, Any]) -> None:
        data["head"] = {"id": named, "kind": kind, "layer_norm": False}
        data["files"][HEAD] = entry

    rewrite_manifest(bundle, change)
    refresh_file(bundle, HEAD)
    return bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return with_head(copy_bundle(tmp_path / "bundle"), matrix_of(0))


def test_head_is_read_as_it_was_written(bundle: Path) -> None:
    matrix = read_head(bundle)
    assert matrix is not None
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, matrix_of(0))


def test_prefix_has_no_matrix() -> None:
    assert read_head(TINY) is None


def test_missing_head_is_named(bundle: Path) -> None:
    (bundle / HEAD).unlink()
    with pytest.raises(MissingFileError, match=HEAD):
        read_head(bundle)


def test_cut_head_is_truncated(bundle: Path) -> None:
    (bundle / HEAD).write_bytes((bundle / HEAD).read_bytes()[:-4])
    with pytest.raises(TruncatedError, match=HEAD):
        read_head(bundle)


@pytest.mark.parametrize("place", [3, 40, 400, -1])
def test_flipped_byte_of_a_head_is_found(bundle: Path, place: int) -> None:
    data = bytearray((bundle / HEAD).read_bytes())
    data[place] ^= 1
    (bundle / HEAD).write_bytes(data)
    with pytest.raises((HashError, ManifestError), match=HEAD):
        read_head(bundle)


def test_head_of_another_bundle_is_refused(bundle: Path) -> None:
    np.save(bundle / HEAD, matrix_of(1))
    refresh_file(bundle, HEAD)
    with pytest.raises(HashError, match="not the head that the manifest names"):
        read_head(bundle)


@pytest.mark.parametrize(
    "wrong",
    [
        matrix_of(0, (WIDTH, DIM + 1)),
        matrix_of(0, (WIDTH + 1, DIM)),
        matrix_of(0).astype(np.float64),
        matrix_of(0)[0],
        np.full((WIDTH, DIM), np.nan, np.float32),
    ],
    ids=["columns", "rows", "float64", "one row", "NaN"],
)
def test_head_of_another_shape_is_refused(tmp_path: Path, wrong: NDArray[Any]) -> None:
    bundle = with_head(copy_bundle(tmp_path / "bundle"), wrong)
    with pytest.raises(ManifestError, match=rf"float32\[{WIDTH}, {DIM}\]"):
        read_head(bundle)


@pytest.mark.parametrize(
    ("kind", "listed"), [("prefix", True), ("rotation", False), ("magic", True)]
)
def test_kind_and_file_must_fit_together(bundle: Path, kind: str, listed: bool) -> None:
    def change(data: dict[str, Any]) -> None:
        data["head"]["kind"] = kind
        if not listed:
            del data["files"][HEAD]

    rewrite_manifest(bundle, change)
    with pytest.raises(ManifestError, match="head" if kind == "magic" else "files"):
        read_manifest(bundle)


def test_codes_of_a_hand_made_head() -> None:
    full = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], np.float32)
    swap = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32)
    assert derive_codes(full, swap, dim=2).tolist() == [[102, 76], [0, 0]]
    assert derive_codes(full, None, dim=2).tolist() == [[127, 0], [0, 127]]
    # Centred: 0.6, 0, 0.8 less their mean, 0.4667.
    assert derive_codes(full[:1], None, dim=2, layer_norm=True).tolist() == [[35, -122]]
    assert derive_codes(full[:1], swap[:, :1], dim=1, layer_norm=True).tolist() == [[127]]


def test_head_id_is_what_the_format_says() -> None:
    matrix = matrix_of(3)
    named = {
        "kind": "matrix",
        "layer_norm": True,
        "sha256": hashlib.sha256(matrix.astype("<f4").tobytes()).hexdigest(),
        "shape": [WIDTH, DIM],
    }
    expected = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    assert head_id(matrix, layer_norm=True) == expected
    assert head_id(np.asfortranarray(matrix), layer_norm=True) == expected
    assert head_id(matrix, layer_norm=False) != expected
    assert head_id(matrix + np.float32(1e-6), layer_norm=True) != expected
    golden = json.loads((TINY / MANIFEST).read_bytes())["head"]
    assert head_id(None, layer_norm=False) == golden["id"]


def test_a_bundles_codes_are_those_of_its_dimensions_norm_and_scale() -> None:
    manifest = read_manifest(TINY)
    full = normalize(np.random.default_rng(3).standard_normal((5, 32), dtype=np.float32))
    for layer_norm in (False, True):
        head = dataclasses.replace(manifest.head, layer_norm=layer_norm)
        code = dataclasses.replace(manifest.code, scale=0.5)
        changed = dataclasses.replace(manifest, head=head, code=code)
        wanted = derive_codes(full, None, dim=manifest.dim, layer_norm=layer_norm, scale=0.5)
        assert (bundle_codes(full, None, changed) == wanted).all()
        assert (bundle_codes(full, None, manifest) != wanted).any()
