"""The reader of bundles in Kotlin refuses what Python refuses, with the same kind of error."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.bundle import GOLDEN, GRAPH, HEAD, MANIFEST, TOKENIZER, WEIGHTS, read_head
from edge_mrl.bundle.manifest import read_manifest, read_signed
from edge_mrl.bundle.patterns import check_pattern
from edge_mrl.encode import Encoder
from edge_mrl.encode.verification import read_golden
from edge_mrl.errors import EdgeMrlError
from tests.android.probe import KotlinError, Probe
from tests.bundle import test_head, test_hostile, test_manifest
from tests.support.bundles import (
    TINY,
    TINY_COARSE,
    TINY_STATIC,
    copy_bundle,
    refresh_file,
    rewrite_manifest,
)

pytestmark = pytest.mark.test

Change = Callable[[Path], object]
Case = tuple[str, Change]


def cases_of(test: Any) -> list[Any]:
    """The values that a test of the Python reader is run with."""
    (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize")
    return list(mark.args[1])


def write(name: str, data: bytes, *, named: bool = True) -> Change:
    """Give a file other bytes, and the manifest their hash."""

    def change(bundle: Path) -> None:
        (bundle / name).write_bytes(data)
        if named:
            refresh_file(bundle, name)

    return change


def edit(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda bundle: rewrite_manifest(bundle, change)


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    def changed(bundle: Path) -> None:
        data = json.loads((bundle / name).read_bytes())
        change(data)
        write(name, json.dumps(data).encode())(bundle)

    return changed


def put(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.update({key: value})


def manifests() -> Iterator[Case]:
    text = (TINY / MANIFEST).read_text("utf-8")
    for data, _ in cases_of(test_manifest.test_foreign_manifest_is_a_format_error):
        yield f"foreign {data!r}", write(MANIFEST, data, named=False)
    for nonsense in cases_of(test_hostile.test_manifest_of_nonsense_has_a_short_error):
        yield f"nonsense {nonsense[:40]}", write(MANIFEST, nonsense.encode(), named=False)
    yield "edited", write(MANIFEST, text.replace("48", "47", 1).encode(), named=False)
    yield "version 4", edit(put("version", 4))
    yield "unknown key", edit(put("pooling", "cls"))
    yield "stored in version 1", edit(lambda data: data["code"].update(stored="1bit"))
    yield "half a character", edit_text('"name": "', '"name": "\\ud800')
    for key in test_manifest.KEYS:
        yield f"without {key}", edit_raw(lambda data, key=key: data.pop(key))
    yield "without code.scale", edit(lambda data: data["code"].pop("scale"))
    for path, value in cases_of(test_manifest.test_wrong_value_is_a_manifest_error):
        if value != value:  # NaN is no JSON: refused, as another kind of fault
            continue
        if path == "files.model.onnx":
            yield path, edit(lambda data, value=value: data["files"].update({GRAPH: value}))
        else:
            yield f"{path} is {value!r}", edit(test_manifest._set(path, value))
    for key, value in cases_of(test_hostile.test_number_that_nothing_can_have_is_a_manifest_error):
        yield f"{key} is {str(value)[:40]}", edit(put(key, value))
    for kept in cases_of(test_manifest.test_kept_codes_that_cannot_be_are_a_manifest_error):
        yield f"keeps {kept}", lambda bundle, kept=kept: test_manifest.keep(bundle, **kept)
    entry = {"sha256": "0" * 64, "size_bytes": 0}
    for name in cases_of(test_hostile.test_file_with_another_name_than_a_plain_one_is_refused):
        yield f"file {name[:30]!r}", edit(lambda data, n=name: data["files"].update({n: entry}))
    many = {f"f{i}": entry for i in range(65)}
    yield "many files", edit(lambda data: data["files"].update(many))
    yield "large graph", edit(lambda data: data["files"][GRAPH].update(size_bytes=64_000_001))
    yield "size of -1", edit(lambda data: data["files"][GRAPH].update(size_bytes=-1))


def edit_text(old: str, new: str) -> Change:
    """Replace in the manifest's text; its own hash stays right."""

    def change(bundle: Path) -> None:
        data = json.loads((bundle / MANIFEST).read_text("utf-8").replace(old, new))
        (bundle / MANIFEST).write_text(json.dumps(data), "utf-8")

    return change


def edit_raw(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the manifest, and leave its own hash as it was."""

    def changed(bundle: Path) -> None:
        data = json.loads((bundle / MANIFEST).read_bytes())
        change(data)
        (bundle / MANIFEST).write_text(json.dumps(data), "utf-8")

    return changed


def files() -> Iterator[Case]:
    names = (GRAPH, WEIGHTS, TOKENIZER, GOLDEN, "report.json", "report.html")
    for name in (*names, MANIFEST):
        data = (TINY / name).read_bytes()
        yield f"{name} missing", lambda bundle, name=name: (bundle / name).unlink()
        yield f"{name} cut", write(name, data[:-1], named=False)
        yield f"{name} longer", write(name, data + b"x", named=False)
        yield f"{name} a folder", lambda bundle, name=name: into(bundle / name, Path.mkdir)
        yield f"{name} a pipe", lambda bundle, name=name: into(bundle / name, os.mkfifo)
        yield (
            f"{name} a device",
            lambda bundle, name=name: into(
                bundle / name, lambda path: path.symlink_to("/dev/zero")
            ),
        )
    for name in names:
        yield f"{name} flipped", lambda bundle, name=name: flip(bundle / name)
        yield f"{name} a link to other bytes", lambda bundle, name=name: link(bundle, name)
    yield "rubbish for a graph", write(GRAPH, b"rubbish")
    yield "rubbish for a tokenizer", write(TOKENIZER, b"rubbish")
    yield "no object for a tokenizer", write(TOKENIZER, b"[]")


def into(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(bundle: Path, name: str) -> None:
    secret = bundle.parent / f"secret-{name}"
    secret.write_bytes(bytes(read_manifest(bundle).files[name].size_bytes))
    into(bundle / name, lambda path: path.symlink_to(secret))


def graphs() -> Iterator[Case]:
    for location in cases_of(test_hostile.test_graph_that_reads_another_file_is_refused):
        data = test_hostile.leaking({**test_hostile.GOOD, "location": location})
        yield (
            f"reads {location!r}",
            lambda bundle, data=data: test_hostile.give_graph(bundle, data),
        )
    for changed in cases_of(test_hostile.test_weight_that_is_not_in_its_file_is_refused):
        data = test_hostile.leaking({**test_hostile.GOOD, **changed})
        yield f"weight {changed}", lambda bundle, data=data: test_hostile.give_graph(bundle, data)
    for i, data in enumerate(
        cases_of(test_hostile.test_graph_with_parts_that_no_bundle_has_is_refused)
    ):
        yield f"graph {i}", lambda bundle, data=data: test_hostile.give_graph(bundle, data)
    weights = [test_hostile.ob.external(f"w{i}", (1, 32), test_hostile.GOOD) for i in range(5)]
    again = test_hostile.ob.model(test_hostile.ob.graph([], weights, dim=16, full=32))
    yield "reads again and again", lambda bundle: test_hostile.give_graph(bundle, again)


def tokenizers() -> Iterator[Case]:
    for i, (key, value) in enumerate(test_hostile.BAD_PARTS):
        yield f"tokenizer {i} ({key})", edit_json(TOKENIZER, put(key, value))
    yield "no model", edit_json(TOKENIZER, lambda data: data.pop("model"))


def golden() -> Iterator[Case]:
    for i, change in enumerate(
        cases_of(test_hostile.test_golden_texts_of_nonsense_are_a_format_error)
    ):
        yield f"golden {i}", edit_json(GOLDEN, change)


def heads() -> Iterator[Case]:
    for i, wrong in enumerate(cases_of(test_head.test_head_of_another_shape_is_refused)):
        yield f"head {i}", lambda bundle, wrong=wrong: test_head.with_head(bundle, wrong)
    for kind, listed in cases_of(test_head.test_kind_and_file_must_fit_together):

        def change(bundle: Path, kind: str = kind, listed: bool = listed) -> None:
            test_head.with_head(bundle, test_head.matrix_of(0))
            rewrite_manifest(bundle, lambda data: data["head"].update(kind=kind))
            if not listed:
                rewrite_manifest(bundle, lambda data: data["files"].pop(HEAD))

        yield f"head of the kind {kind}, {listed}", change

    def other(bundle: Path) -> None:
        test_head.with_head(bundle, test_head.matrix_of(0))
        np.save(bundle / HEAD, test_head.matrix_of(1))
        refresh_file(bundle, HEAD)

    yield "head of another bundle", other


def python(bundle: Path) -> str:
    """The class of Python's refusal; "" if it takes the bundle."""
    try:
        manifest = read_manifest(bundle)
        Encoder.open(bundle, untried=True).close()
        read_head(bundle, manifest)
        read_golden(bundle, manifest)
    except EdgeMrlError as error:
        return type(error).__name__.removesuffix("Error")
    return ""


def in_kotlin(kotlin: Probe, bundle: Path) -> tuple[str, str]:
    try:
        kotlin("bundle.open", path=str(bundle), hashes=True)
    except KotlinError as error:
        refusal = error
    else:
        return "", ""
    assert refusal.kind.endswith("Exception"), refusal
    assert len(str(refusal)) < 1000
    return refusal.kind.removesuffix("Exception"), str(refusal)


@pytest.mark.parametrize("source", [manifests, files, graphs, tokenizers, golden, heads])
def test_what_python_refuses_is_refused_with_the_same_kind_of_error(
    kotlin: Probe, tmp_path: Path, source: Callable[[], Iterator[Case]]
) -> None:
    differences, refused = [], 0
    for i, (what, change) in enumerate(source()):
        bundle = copy_bundle(tmp_path / str(i) / "bundle")
        change(bundle)
        expected = python(bundle)
        got, message = in_kotlin(kotlin, bundle)
        refused += expected != ""
        if got != expected:
            differences.append(
                f"{what}: Python {expected or 'opens it'}, Kotlin {message or 'too'}"
            )
    assert not differences, "\n".join(differences)
    assert refused > 5


def test_flipped_byte_anywhere_is_found(kotlin: Probe, tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "bundle")
    rng = random.Random(5)
    for path in sorted(bundle.iterdir()):
        data = path.read_bytes()
        for place in (0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(5))):
            flipped = bytearray(data)
            flipped[place] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
            assert in_kotlin(kotlin, bundle)[0], f"{path.name} {place}"
        path.write_bytes(data)
    assert in_kotlin(kotlin, bundle) == ("", "")


@pytest.mark.parametrize("folder", [TINY, TINY_COARSE, TINY_STATIC], ids=lambda path: path.name)
def test_bundles_are_read_as_python_reads_them(kotlin: Probe, folder: Path) -> None:
    signed = read_signed(folder)
    found = kotlin("bundle.open", path=str(folder), hashes=True)
    texts = read_golden(folder, signed.manifest)
    assert found["digest"] == signed.digest
    assert found["size_bytes"] == signed.manifest.size_bytes
    assert found["dims"] == [signed.manifest.dim, signed.manifest.full_dim]
    assert [text["ids"] for text in found["golden"]] == [text.ids for text in texts]
    assert [text["source"] for text in found["golden"]] == [text.source.tolist() for text in texts]


def test_links_to_the_right_bytes_are_read_and_heads_too(kotlin: Probe, tmp_path: Path) -> None:
    bundle = test_head.with_head(copy_bundle(tmp_path / "bundle"), test_head.matrix_of(0))
    assert kotlin("bundle.open", path=str(bundle), hashes=True)["head"] == [32, 16]
    linked = test_hostile.linked(bundle, tmp_path)
    assert kotlin("bundle.open", path=str(linked), hashes=False)["head"] == [32, 16]


def test_without_hashes_changed_weights_are_not_read(kotlin: Probe, tmp_path: Path) -> None:
    """The twin of the tests above: it is the hashes that find a flipped weight."""
    bundle = copy_bundle(tmp_path / "bundle")
    flip(bundle / WEIGHTS)
    assert kotlin("bundle.open", path=str(bundle), hashes=False)["stored"] == "int8"


def test_patterns_are_taken_and_refused_as_in_python(kotlin: Probe) -> None:
    known = cases_of(test_hostile.test_patterns_of_known_tokenizers_are_fast_on_any_text)
    for pattern, shortest in known:
        assert kotlin("bundle.pattern", pattern=pattern) == shortest == check_pattern(pattern)
    for pattern in cases_of(test_hostile.test_pattern_that_a_text_could_make_slow_is_refused):
        with pytest.raises(KotlinError, match="TokenizerException"):
            kotlin("bundle.pattern", pattern=pattern)
