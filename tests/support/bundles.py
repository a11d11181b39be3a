"""The committed bundles, and copies of them to damage."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_mrl.bundle.manifest import GOLDEN as VECTORS
from edge_mrl.bundle.manifest import (
    GRAPH,
    MANIFEST,
    dump_manifest,
    lowest_version,
    make_code,
    read_manifest,
)
from edge_mrl.codes.packing import Packing

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
TINY = GOLDEN / "tiny-bert-16"
TINY_COARSE = GOLDEN / "tiny-bert-coarse-8"
#: Without a transformer: an int8 table whose rows are shared by tokens of different weight.
TINY_STATIC = GOLDEN / "tiny-static-16"
#: Where exports are kept that tests share, by a digest of all that they depend on.
SHARED = ROOT / "build" / "test-bundles"
#: What an export depends on: the exporter, the runtime that verifies it, and these libraries.
SOURCES = ("export", "edge_mrl")
LIBRARIES = (
    *("numpy", "onnx-ir", "onnxruntime", "sentence-transformers", "tokenizers", "torch"),
    "transformers",
)


@functools.cache
def exporter_digest() -> str:
    """The same as long as an export of the same model by the same recipe is the same, hexadecimal."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".txt"):
                digest.update(path.read_bytes())
    for name in LIBRARIES:
        digest.update(importlib.metadata.version(name).encode())
    return digest.hexdigest()


def copy_bundle(target: Path, source: Path = TINY) -> Path:
    shutil.copytree(source, target)
    return target


def rewrite_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest's keys and give it a right hash, as a writer with a fault would."""
    data = json.loads((bundle / MANIFEST).read_bytes())
    change(data)
    data["manifest_sha256"] = "0" * 64
    blank = (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()
    digest = hashlib.sha256(blank).hexdigest()
    (bundle / MANIFEST).write_bytes(blank.replace(b"0" * 64, digest.encode(), 1))


def keep_codes_as(bundle: Path, packing: Packing) -> Path:
    """Make a copy's stores keep other codes than int8, as an export with ``--code`` does."""
    manifest = read_manifest(bundle)
    code = make_code(manifest.head.id, manifest.dim, scale=manifest.code.scale, packing=packing)
    version = lowest_version(code.stored, manifest.head.kind)
    changed = dataclasses.replace(manifest, version=version, code=code)
    (bundle / MANIFEST).write_bytes(dump_manifest(changed))
    return bundle


def refresh_file(bundle: Path, name: str) -> None:
    """Give the manifest the size and hash that a changed file has now."""
    manifest = read_manifest(bundle)
    data = (bundle / name).read_bytes()
    entry = dataclasses.replace(
        manifest.files[name], sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
    )
    changed = dataclasses.replace(manifest, files={**manifest.files, name: entry})
    (bundle / MANIFEST).write_bytes(dump_manifest(changed))


def with_dim(bundle: Path, dim: int) -> Path:
    """Give a copy of TINY codes of other dimensions, as an export with ``--dim`` does."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    from edge_mrl.encode import Encoder, encode_vector

    path = bundle / GRAPH
    model = onnx.load(path, load_external_data=False)
    (cut,) = (
        node for node in model.graph.node if node.op_type == "Slice" and node.input[0] == "full"
    )
    (end,) = (one for one in model.graph.initializer if one.name == cut.input[2])
    end.CopyFrom(numpy_helper.from_array(np.array([dim], np.int64), end.name))
    (coarse,) = (one for one in model.graph.output if one.name == "coarse")
    coarse.type.tensor_type.shape.dim[1].dim_value = dim
    path.write_bytes(model.SerializeToString())
    manifest = read_manifest(bundle)
    code = make_code(manifest.head.id, dim, scale=manifest.code.scale)
    dims = dataclasses.replace(manifest.dims, coarse=dim)
    (bundle / MANIFEST).write_bytes(
        dump_manifest(dataclasses.replace(manifest, dims=dims, code=code))
    )
    refresh_file(bundle, GRAPH)
    golden = json.loads((bundle / VECTORS).read_bytes())
    with Encoder.open(bundle, untried=True) as encoder:
        for entry in golden["texts"]:
            coarse_code = encoder.encode([entry["text"]], kind=entry["kind"]).coarse[0]
            entry["coarse"] = encode_vector(coarse_code, "i1")
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n"
    (bundle / VECTORS).write_bytes(text.encode("utf-8", "surrogatepass"))
    refresh_file(bundle, VECTORS)
    return bundle


def install_bundle(site: Path, name: str, value: str, *, package: str = "") -> Path:
    """A package with a bundle, as it is installed: a folder for sys.path.

    Args:
        site: The folder, which may hold others.
        name: The bundle's name.
        value: What the package gives as its bundle, in Python.
        package: The package's name (default: made of the bundle's).
    """
    package = package or f"bundle_{name}"
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").write_text(f"BUNDLE = {value}\n", "utf-8")
    about = site / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[edge_mrl.bundles]\n{name} = {package}:BUNDLE\n")
    return site
