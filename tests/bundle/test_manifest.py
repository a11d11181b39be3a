from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.bundle.files import check_files
from edge_mrl.bundle.manifest import (
    GOLDEN,
    GRAPH,
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    dump_manifest,
    make_code,
    read_manifest,
)
from edge_mrl.codes.packing import INT8, Packing
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import verify
from edge_mrl.errors import (
    BundleError,
    FormatError,
    GraphError,
    HashError,
    ManifestError,
    MissingFileError,
    TruncatedError,
    UsageError,
)
from tests.support.bundles import (
    TINY,
    TINY_COARSE,
    TINY_STATIC,
    copy_bundle,
    refresh_file,
    rewrite_manifest,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copy_bundle(tmp_path / "bundle")


def test_manifest_round_trips_to_the_same_bytes() -> None:
    assert dump_manifest(read_manifest(TINY)) == (TINY / MANIFEST).read_bytes()


def test_read_manifest_without_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no bundle at"):
        read_manifest(tmp_path / "nowhere")


def test_read_manifest_without_manifest_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=MANIFEST):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, TOKENIZER, GOLDEN, "report.json", "report.html"])
def test_missing_file_is_detected_at_open(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(MissingFileError, match=name):
        Encoder.open(bundle)


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, TOKENIZER, GOLDEN, "report.json", "report.html"])
def test_truncated_file_is_detected_at_open(bundle: Path, name: str) -> None:
    path = bundle / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TruncatedError, match=name):
        Encoder.open(bundle)


def test_flipped_byte_anywhere_is_detected_by_verify(bundle: Path) -> None:
    rng = random.Random(11)
    for path in sorted(bundle.iterdir()):
        data = path.read_bytes()
        places = {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(12))}
        for place in places:
            flipped = bytearray(data)
            flipped[place] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            with pytest.raises(BundleError):
                verify(bundle)
        path.write_bytes(data)
    assert verify(bundle).passed


@pytest.mark.test
def test_flipped_byte_in_the_manifest_is_detected_at_open(bundle: Path) -> None:
    data = (bundle / MANIFEST).read_bytes()
    for place in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 4
        (bundle / MANIFEST).write_bytes(flipped)
        with pytest.raises(BundleError):
            read_manifest(bundle)


def test_flipped_byte_of_a_file_has_its_own_error(bundle: Path) -> None:
    path = bundle / WEIGHTS
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(HashError, match=WEIGHTS):
        check_files(bundle, read_manifest(bundle), hashes=True)
    with pytest.raises(HashError, match=WEIGHTS):
        Encoder.open(bundle, verify_hashes=True)


def test_edited_manifest_has_its_own_error(bundle: Path) -> None:
    path = bundle / MANIFEST
    path.write_text(
        path.read_text("utf-8").replace('"max_tokens": 48', '"max_tokens": 47'), "utf-8"
    )
    with pytest.raises(HashError, match="edited"):
        read_manifest(bundle)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "format is 'list'"),
        (b'{"format": "something else"}', "something else"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_foreign_manifest_is_a_format_error(bundle: Path, data: bytes, message: str) -> None:
    (bundle / MANIFEST).write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_manifest(bundle)


def test_unknown_version_is_a_format_error(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda data: data.update(version=4))
    with pytest.raises(FormatError, match="version 4, this edge-mrl reads 1 to 3"):
        read_manifest(bundle)


def keep(bundle: Path, **kept: Any) -> None:
    """Write a manifest of version 2, or of version 3 where codes have 2 bits."""

    def change(data: dict[str, Any]) -> None:
        data["version"] = 3 if kept.get("stored") == "2bit" else 2
        data["code"] |= {"stored": None, "step": None, "centre": None, **kept}

    rewrite_manifest(bundle, change)


def test_manifest_without_kept_codes_keeps_int8() -> None:
    assert read_manifest(TINY).code.packing == INT8


@pytest.mark.parametrize(
    ("kept", "packing"),
    [
        ({"stored": "int4", "step": 10.5}, Packing("int4", 10.5)),
        ({"stored": "2bit", "step": 4.0}, Packing("2bit", 4.0)),
        ({"stored": "1bit"}, Packing("1bit")),
        (
            {"stored": "1bit", "step": 9.0, "centre": list(range(16))},
            Packing("1bit", 9.0, tuple(range(16))),
        ),
    ],
)
def test_manifest_of_version_2_says_what_is_kept(
    bundle: Path, kept: dict[str, Any], packing: Packing
) -> None:
    keep(bundle, **kept)
    manifest = read_manifest(bundle)
    assert manifest.code.packing == packing
    assert dump_manifest(manifest) == (bundle / MANIFEST).read_bytes()


@pytest.mark.parametrize(
    "kept",
    [
        {"stored": "int8"},
        {"stored": "int2"},
        {"stored": "int4"},
        {"stored": "int4", "step": 0},
        {"stored": "int4", "step": 2.5, "centre": [0] * 16},
        {"stored": "2bit"},
        {"stored": "2bit", "step": 43},
        {"stored": "1bit", "step": 9},
        {"stored": "1bit", "centre": [0] * 16},
        {"stored": "1bit", "step": 9.5, "centre": [0] * 16},
        {"stored": "1bit", "step": 9, "centre": [0] * 15},
        {"stored": "1bit", "step": 100, "centre": [28] * 16},
    ],
)
def test_kept_codes_that_cannot_be_are_a_manifest_error(bundle: Path, kept: dict[str, Any]) -> None:
    keep(bundle, **kept)
    with pytest.raises(ManifestError, match=r"invalid value of code\.stored"):
        read_manifest(bundle)


def test_manifest_of_version_1_says_nothing_of_kept_codes(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda data: data["code"].update(stored="1bit"))
    with pytest.raises(ManifestError, match="unknown stored in code"):
        read_manifest(bundle)


def test_a_manifest_has_the_lowest_version_that_can_describe_it(bundle: Path) -> None:
    keep(bundle, stored="2bit", step=4)
    rewrite_manifest(bundle, lambda data: data.update(version=2))
    with pytest.raises(ManifestError, match=r"invalid value of code\.stored"):
        read_manifest(bundle)


def test_code_id_of_int8_codes_is_that_of_earlier_bundles() -> None:
    for folder in (TINY, TINY_COARSE, TINY_STATIC):
        manifest = read_manifest(folder)
        code = make_code(manifest.head.id, manifest.dim, scale=manifest.code.scale)
        assert code == manifest.code


def test_code_id_names_what_is_kept() -> None:
    kinds = (INT8, Packing("int4", 10.5), Packing("int4", 10.0), Packing("1bit"))
    centred = (Packing("1bit", 9.0, (0,) * 16), Packing("1bit", 9.0, (1,) * 16))
    codes = [make_code("h", 16, scale=1.0, packing=packing) for packing in (*kinds, *centred)]
    assert len({code.id for code in codes}) == len(codes)
    assert [code.packing for code in codes] == [*kinds, *centred]


KEYS = sorted(set(json.loads((TINY / MANIFEST).read_bytes())) - {"format", "version"})


@pytest.mark.parametrize("key", KEYS)
def test_missing_key_is_named(bundle: Path, key: str) -> None:
    data = json.loads((bundle / MANIFEST).read_bytes())
    del data[key]
    (bundle / MANIFEST).write_text(json.dumps(data), "utf-8")
    with pytest.raises(ManifestError, match=f"missing {key}"):
        read_manifest(bundle)


def test_missing_inner_key_is_named(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda data: data["code"].pop("scale"))
    with pytest.raises(ManifestError, match="missing scale in code"):
        read_manifest(bundle)


def test_unknown_key_is_named(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda data: data.update(pooling="cls"))
    with pytest.raises(ManifestError, match="unknown pooling"):
        read_manifest(bundle)


def _set(path: str, value: Any) -> Any:
    def change(data: dict[str, Any]) -> None:
        *parents, key = path.split(".")
        for parent in parents:
            data = data[parent]
        data[key] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("max_tokens", "48"),
        ("max_tokens", True),
        ("max_tokens", 0),
        ("dims.coarse", 16.5),
        ("dims.coarse", 0),
        ("dims.full", "32"),
        ("code.scale", None),
        ("code.scale", 0.0),
        ("code.scale", float("nan")),
        ("padding.side", "left"),
        ("prompts", {"query": ""}),
        ("prompts.query", 3),
        ("outputs", {"coarse": "int8"}),
        ("inputs", ["input_ids"]),
        ("files", {}),
        ("files.model.onnx", 5),
        ("source", "a name"),
    ],
)
def test_wrong_value_is_a_manifest_error(bundle: Path, path: str, value: Any) -> None:
    change = _set(path, value)
    if path == "files.model.onnx":
        change = lambda data: data["files"].update({GRAPH: value})  # noqa: E731 - a key with a dot
    rewrite_manifest(bundle, change)
    with pytest.raises(ManifestError):
        read_manifest(bundle)


def test_file_name_outside_the_bundle_is_refused(bundle: Path) -> None:
    entry = {"sha256": "0" * 64, "size_bytes": 1}
    rewrite_manifest(bundle, lambda data: data["files"].update({"../outside": entry}))
    with pytest.raises(ManifestError, match="files"):
        read_manifest(bundle)


def test_graph_of_another_shape_is_a_graph_error(bundle: Path) -> None:
    rewrite_manifest(bundle, _set("dims.coarse", 12))
    with pytest.raises(GraphError, match="16"):
        Encoder.open(bundle)


def test_graph_with_other_outputs_is_a_graph_error(bundle: Path) -> None:
    for name in (GRAPH, WEIGHTS):
        (bundle / name).write_bytes((TINY_COARSE / name).read_bytes())
        refresh_file(bundle, name)
    with pytest.raises(GraphError, match="full"):
        Encoder.open(bundle)


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_rubbish_with_a_right_hash_is_a_bundle_error(bundle: Path, name: str) -> None:
    (bundle / name).write_bytes(b"rubbish")
    refresh_file(bundle, name)
    with pytest.raises(BundleError, match=r"cannot be opened|is not valid JSON"):
        Encoder.open(bundle)


def test_other_golden_vectors_fail_verification(bundle: Path) -> None:
    path = bundle / GOLDEN
    data = json.loads(path.read_bytes())
    texts = data["texts"]
    texts[3]["full"], texts[4]["full"] = texts[4]["full"], texts[3]["full"]
    texts[5]["ids"][1] += 1
    path.write_text(json.dumps(data), "utf-8")
    refresh_file(bundle, GOLDEN)
    result = verify(bundle)
    assert not result.passed
    assert not result.same_ids
    assert any("token ids differ" in failure for failure in result.failures)
    assert any("vectors differ" in failure for failure in result.failures)


@pytest.mark.parametrize("folder", [TINY, TINY_COARSE, TINY_STATIC], ids=lambda path: path.name)
def test_committed_bundles_verify_on_this_machine(folder: Path) -> None:
    result = verify(folder)
    assert result.failures == ()
    assert result.texts >= 8
    assert (result.full_cosine_mean is None) == (folder == TINY_COARSE)
