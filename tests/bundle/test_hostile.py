"""Bundles that were made to harm: each is one clear error, and nothing outside its folder is read."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.bundle import files as bundle_files
from edge_mrl.bundle import graph as bundle_graph
from edge_mrl.bundle.files import check_files
from edge_mrl.bundle.graph import read_graph
from edge_mrl.bundle.manifest import GOLDEN, GRAPH, MANIFEST, TOKENIZER, WEIGHTS, read_manifest
from edge_mrl.bundle.patterns import check_pattern
from edge_mrl.bundle.tokens import check_tokenizer
from edge_mrl.encode import trial
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.verification import verify
from edge_mrl.errors import (
    BundleError,
    EncoderError,
    FormatError,
    GraphError,
    HashError,
    ManifestError,
    TokenizerError,
    TruncatedError,
)
from tests.support import onnxbytes as ob
from tests.support.bundles import TINY, copy_bundle, refresh_file, rewrite_manifest

SECRET = np.arange(1, 33, dtype=np.float32) / 7
SIZES = {WEIGHTS: 128}
GOOD = {"location": WEIGHTS, "offset": 0, "length": 128}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copy_bundle(tmp_path / "bundle")


def give_graph(bundle: Path, data: bytes, weights: bytes = bytes(128)) -> None:
    for name, value in ((GRAPH, data), (WEIGHTS, weights)):
        (bundle / name).write_bytes(value)
        refresh_file(bundle, name)


def leaking(places: dict[str, object]) -> bytes:
    """A graph whose full vector is the contents of a file."""
    weights = [ob.external("stolen", (1, 32), places), *ob.numbers(16)]
    return ob.model(ob.graph(ob.row_of("stolen"), weights, dim=16, full=32))


# Files


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "./model.onnx.data",
        "/etc/passwd",
        "model.onnx.data/../../secret.bin",
        "golden.json",
        "edge_mrl.json",
        "*/_ORT_MEM_ADDR_/*",
        "file:secret.bin",
        "",
        "model.onnx.data\0",
        "MODEL.ONNX.DATA",
    ],
)
def test_graph_that_reads_another_file_is_refused(bundle: Path, location: str) -> None:
    (bundle.parent / "secret.bin").write_bytes(SECRET.tobytes())
    give_graph(bundle, leaking({**GOOD, "location": location}))
    with pytest.raises(GraphError, match="reads the file"):
        Encoder.open(bundle, untried=True)


def test_graph_without_the_check_reads_what_it_names(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files above are worth refusing: such a graph gives its weights away as vectors."""
    give_graph(bundle, leaking(GOOD), SECRET.tobytes())
    monkeypatch.setattr("edge_mrl.encode.graph_session.check_outputs", lambda _: None)
    with Encoder.open(bundle, untried=True) as encoder:
        full = encoder.encode(["a"]).full
    assert full is not None
    assert np.array_equal(full[0], SECRET)


@pytest.mark.parametrize(
    "changed",
    [
        {"offset": 4},
        {"offset": -128},
        {"offset": "0x0"},
        {"offset": " 0"},
        {"offset": "٠"},
        {"length": 124},
        {"length": 1 << 63},
        {"length": ""},
        {"checksum": "0"},
        {"basepath": ".."},
    ],
)
def test_weight_that_is_not_in_its_file_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(GraphError):
        read_graph(leaking({**GOOD, **changed}), SIZES)


def in_attribute(field: int) -> bytes:
    constant = ob.attribute("value", 4, ob.chunk(field, ob.external("c", (1, 32), GOOD)))
    return ob.model(ob.graph([ob.node("Constant", [], ["c"], constant)], [], dim=16, full=32))


def nested(field: int) -> bytes:
    body = ob.graph([], [ob.external("w", (1, 32), GOOD)], dim=16, full=32)
    held = ob.attribute("body", 5, ob.chunk(field, body))
    return ob.model(ob.graph([ob.node("Identity", ["a"], ["b"], held)], [], dim=16, full=32))


def with_model(more: bytes) -> bytes:
    return ob.model(ob.graph([], [], dim=16, full=32), more)


def with_graph(more: bytes) -> bytes:
    return ob.model(ob.graph([], [], dim=16, full=32, more=more))


SPARSE = ob.chunk(1, ob.external("w", (1, 32), GOOD))


@pytest.mark.parametrize(
    "data",
    [
        in_attribute(5),
        in_attribute(10),
        nested(6),
        nested(11),
        with_model(ob.chunk(20, ob.chunk(1, ob.graph([], [], dim=16, full=32)))),
        with_model(ob.chunk(25, ob.chunk(1, "f"))),
        with_model(ob.chunk(7, b"")),
        with_model(ob.number(99, 1)),
        with_graph(ob.chunk(15, SPARSE)),
        with_graph(ob.chunk(5, ob.external("w", (1, 32), GOOD)) * 2),
        with_graph(ob.chunk(1, ob.node("Loop", [], ["x"]))),
        with_graph(ob.chunk(1, ob.node("Add", ["a", "b"], ["x"], domain="my.ops"))),
        with_graph(ob.chunk(1, ob.node("RandomNormal", [], ["x"]))),
        with_graph(ob.chunk(1, ob.node("Add", ["a"], ["x"]) + ob.chunk(4, "Loop"))),
        with_graph(ob.chunk(1, ob.node("Add", ["a"], ["x"]) + ob.chunk(8, "variant"))),
        with_graph(b"\x2b\x2c"),
        with_graph(ob.varint(5 << 3 | 2) + ob.varint(1 << 40)),
        b"\x08" + b"\xff" * 11,
        b"",
        b"\x3a\x00" * 2,
    ],
    ids=[
        *("a constant", "constants", "a nested graph", "nested graphs", "training", "a function"),
        *("a second graph", "an unknown field", "sparse weights", "one name twice", "a loop"),
        *("a custom operator", "chance", "an operator twice", "an overload", "a group"),
        *("a cut field", "a long number", "no bytes", "two graphs"),
    ],
)
def test_graph_with_parts_that_no_bundle_has_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError, match=r"model\.onnx cannot be opened"):
        read_graph(data, SIZES)


def test_graph_that_reads_its_weights_again_and_again_is_refused() -> None:
    weights = [ob.external(f"w{i}", (1, 32), GOOD) for i in range(5)]
    with pytest.raises(GraphError, match="reads 640 bytes"):
        read_graph(ob.model(ob.graph([], weights, dim=16, full=32)), SIZES)


def test_graphs_of_bundles_are_read_whole() -> None:
    for folder in sorted(TINY.parent.glob("tiny-*")):
        manifest = read_manifest(folder)
        sizes = {WEIGHTS: manifest.files[WEIGHTS].size_bytes}
        graph = read_graph((folder / GRAPH).read_bytes(), sizes)
        assert graph.locations == {WEIGHTS}
        ends = [external.offset + external.length for external in graph.externals]
        assert max(ends) == sizes[WEIGHTS]


def test_reader_without_one_check_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: each of these checks is what refuses its file."""
    monkeypatch.setattr(bundle_graph, "MOST_READS", 99)
    weights = [ob.external(f"w{i}", (1, 32), GOOD) for i in range(5)]
    assert len(read_graph(ob.model(ob.graph([], weights, dim=16, full=32)), SIZES).externals) == 5
    outside = leaking({**GOOD, "location": "../secret.bin"})
    assert read_graph(outside, {**SIZES, "../secret.bin": 128}).locations == {"../secret.bin"}


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, TOKENIZER, GOLDEN, MANIFEST])
@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device"])
def test_name_that_is_no_file_is_refused_at_once(
    bundle: Path, tmp_path: Path, name: str, kind: str
) -> None:
    path = bundle / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=r"is not a file|cannot be read"):
        Encoder.open(bundle)


def linked(bundle: Path, tmp_path: Path) -> Path:
    """The bundle as the cache of a hub has it: links to files elsewhere."""
    folder, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    folder.mkdir()
    blobs.mkdir()
    for path in bundle.iterdir():
        path.rename(blobs / path.name)
        (folder / path.name).symlink_to(Path("..") / "blobs" / path.name)
    return folder


@pytest.mark.test
def test_bundle_of_links_opens_and_gives_the_same_vectors(bundle: Path, tmp_path: Path) -> None:
    folder = linked(bundle, tmp_path)
    with Encoder.open(folder) as encoder, Encoder.open(TINY) as expected:
        texts = ["one note", "a longer note about nothing " * 20]
        assert np.array_equal(encoder.encode(texts).coarse, expected.encode(texts).coarse)
    assert verify(folder).passed


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, TOKENIZER, GOLDEN])
def test_link_to_other_bytes_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(read_manifest(bundle).files[name].size_bytes))
    (bundle / name).unlink()
    (bundle / name).symlink_to(secret)
    with pytest.raises(HashError, match=name):
        check_files(bundle, read_manifest(bundle), hashes=False)
    with pytest.raises(HashError, match=name):
        Encoder.open(bundle)


def test_weights_that_are_replaced_while_they_are_opened_are_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    real, path = onnxruntime.InferenceSession, bundle / WEIGHTS

    def slow(*args: Any, **options: Any) -> Any:
        path.rename(path.with_suffix(".kept"))
        path.write_bytes(path.with_suffix(".kept").read_bytes())
        session = real(*args, **options)
        path.with_suffix(".kept").replace(path)
        return session

    Encoder.open(bundle).close()
    monkeypatch.setattr(onnxruntime, "InferenceSession", slow)
    with pytest.raises(BundleError, match="was replaced while it was opened"):
        Encoder.open(bundle)


def test_flipped_weight_is_found_at_the_next_opening(bundle: Path) -> None:
    Encoder.open(bundle).close()
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[100] ^= 1
    (bundle / WEIGHTS).write_bytes(data)
    with pytest.raises(HashError, match=WEIGHTS):
        Encoder.open(bundle)


# Sizes


def test_files_that_are_too_large_are_refused_unread(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (GRAPH, TOKENIZER, GOLDEN, "report.json"):
        with monkeypatch.context() as changed:
            size = read_manifest(bundle).files[name].size_bytes
            changed.setitem(bundle_files.MOST_BYTES, name, size - 1)
            with pytest.raises(BundleError, match=f"{name} has {size} bytes, expected at most"):
                read_manifest(bundle)


def test_large_manifest_is_refused_unread(bundle: Path) -> None:
    with (bundle / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="has 1099511627776 bytes, expected at most 1000000"):
        read_manifest(bundle)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 400_000,
        '{"a":' * 150_000,
        "1" * 900_000,
        '{"format": "' + "x" * 900_000 + '"}',
        '{"format": "edge-mrl-bundle", "version": "' + "x" * 900_000 + '"}',
        '{"format": "edge-mrl-bundle", "version": 2, "' + "x" * 900_000 + '": 1}',
        '{"format": "edge-mrl-bundle", "version": 1, "version": 2}',
        '{"format": "edge-mrl-bundle", "version": true}',
    ],
    ids=["lists", "objects", "a number", "a format", "a version", "a key", "a key twice", "true"],
)
def test_manifest_of_nonsense_has_a_short_error(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_tokens", 1 << 70),
        ("padding", {"side": "right", "id": 1 << 40}),
        ("padding", {"side": "right", "id": -1}),
        ("dims", {"coarse": 1 << 40, "full": 32}),
        ("prompts", {"query": "x" * 20_000, "document": ""}),
        ("quality", {"cosine_mean": 10**400}),
    ],
)
def test_number_that_nothing_can_have_is_a_manifest_error(
    bundle: Path, key: str, value: object
) -> None:
    rewrite_manifest(bundle, lambda data: data.update({key: value}))
    with pytest.raises(ManifestError):
        read_manifest(bundle)


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".hidden", "a\n", "ä", "x" * 200, MANIFEST, "edge_mrl.sig"]
)
def test_file_with_another_name_than_a_plain_one_is_refused(bundle: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "size_bytes": 0}
    rewrite_manifest(bundle, lambda data: data["files"].update({name: entry}))
    with pytest.raises(ManifestError, match="files"):
        read_manifest(bundle)


# Tokenizers


def changed_tokenizer(change: Callable[[dict[str, Any]], None]) -> bytes:
    data = json.loads((TINY / TOKENIZER).read_bytes())
    change(data)
    return json.dumps(data).encode()


def replacing(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def growing() -> dict[str, Any]:
    parts = [replacing({"String": "a"}, "a" * 100) for _ in range(5)]
    return {"type": "Sequence", "normalizers": parts}


def charsmap(text: bytes) -> str:
    return base64.b64encode(struct.pack("<I", 4) + bytes(4) + text).decode()


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


BAD_PARTS: list[tuple[str, Any]] = [
    ("normalizer", growing()),
    ("normalizer", replacing({"String": ""}, "a")),
    ("normalizer", replacing({"Regex": "a*"}, "b")),
    ("normalizer", replacing({"Regex": "(a+)+$"}, "b")),
    ("normalizer", {"type": "Prepend", "prepend": "x" * 10_000}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": charsmap(b"x" * 1000 + b"\0")}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAA="}),
    ("normalizer", {"type": "Unheard"}),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 65}),
    ("normalizer", 3),
    ("pre_tokenizer", split("(a|aa)+b")),
    ("pre_tokenizer", split(r"(?=a)b")),
    ("pre_tokenizer", {"type": "FixedLength", "length": 0}),
    ("decoder", replacing({"Regex": "(a+)+$"}, "b")),
    ("decoder", {"type": ["x"]}),
    (
        "post_processor",
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2}
        | {"pair": [], "special_tokens": {}},
    ),
    (
        "post_processor",
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}]}
        | {"pair": [], "special_tokens": {"x": {"id": "x", "ids": [1] * 1000, "tokens": ["x"]}}},
    ),
    ("added_tokens", [{"content": "", "id": 1}]),
    ("added_tokens", [{"content": "x", "id": -1}]),
    ("model", {"type": "Other", "vocab": {}}),
    ("model", {"type": "WordPiece", "vocab": {"a": 1}, "unk_token": "b"}),
    (
        "model",
        {"type": "WordPiece", "vocab": {"a": 1}, "unk_token": "a"}
        | {"max_input_chars_per_word": 10**9},
    ),
    ("model", {"type": "WordPiece", "vocab": {"a": 1 << 40}, "unk_token": "a"}),
    ("model", {"type": "BPE", "vocab": {"a": 1}, "merges": [], "dropout": 0.5}),
    ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}),
    ("model", {"type": "Unigram", "vocab": [["a" * 10_000, 0.0]], "unk_id": 0}),
    ("model", {"vocab": {}}),
]


@pytest.mark.parametrize(("key", "value"), BAD_PARTS)
def test_tokenizer_that_could_hang_or_use_up_the_memory_is_refused(key: str, value: Any) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be opened") as caught:
        check_tokenizer(changed_tokenizer(lambda data: data.update({key: value})), max_tokens=48)
    assert len(str(caught.value)) < 1000


@pytest.mark.test
def test_refused_tokenizer_is_not_opened(bundle: Path) -> None:
    (bundle / TOKENIZER).write_bytes(changed_tokenizer(lambda d: d.update(normalizer=growing())))
    refresh_file(bundle, TOKENIZER)
    with pytest.raises(TokenizerError, match="10000000000 times as long"):
        Encoder.open(bundle)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
#: Texts that make backtracking slow.
NASTY = (
    "a" * 20_000,
    " " * 20_000 + "x",
    "aA" * 10_000,
    "'" * 20_000,
    "\n \n" * 7_000,
    "1" * 20_000,
)


@pytest.mark.parametrize(
    ("pattern", "shortest"),
    [
        *((GPT2, 1), (GPT4, 1), (GPT4O, 1), (BLOOM, 1), (CLIP, 1), (" {2,}", 2), (r"\s{3,}", 3)),
        *(
            (r"[0-9][0-9][0-9]", 3),
            (r"\w+|[^\w\s]+", 1),
            (r"\d{1,3}", 1),
            ("^ab", 2),
            (r"a?b?c+", 1),
        ),
    ],
)
def test_patterns_of_known_tokenizers_are_fast_on_any_text(pattern: str, shortest: int) -> None:
    from tokenizers import Regex, pre_tokenizers

    assert check_pattern(pattern) == shortest
    tried = pre_tokenizers.Split(Regex(pattern), "isolated")
    begun = time.thread_time()
    for text in NASTY:
        tried.pre_tokenize_str(text)
    assert time.thread_time() - begun < 20  # quadratic ones take minutes; the slowest here 0.1 s


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(a|aa)+b", "a*", r"\s+$", "a+b", "(?=a)b", r"(a)\1", "a?a?a?aaa", "[a&&b]"),
        *(
            "a{1000}",
            "(a|b|)",
            r"\bx",
            "a++b",
            "",
            "a||b",
            "(?<=a)b",
            "(",
            "[",
            "a{",
            "\\",
            "(a",
            "a)",
        ),
        *("[]", "(?i)a+", "[[:alpha:]]", r"\K", "a{3,2}", "(?>a)", "x" * 5000, "|".join("a" * 101)),
    ],
)
def test_pattern_that_a_text_could_make_slow_is_refused(pattern: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        check_pattern(pattern)
    assert len(str(caught.value)) < 500


# What a bundle does when it runs


@pytest.mark.test
def test_graph_of_one_vector_is_refused(bundle: Path) -> None:
    """Its golden texts agree with it, as a bundle's that was made to harm would."""
    unit = np.full((1, 32), 32**-0.5, np.float32)
    weights = [ob.tensor("w", unit), *ob.numbers(16)]
    give_graph(bundle, ob.model(ob.graph(ob.row_of("w"), weights, dim=16, full=32)))
    golden = json.loads((bundle / GOLDEN).read_bytes())
    for entry in golden["texts"]:
        entry["full"] = base64.b64encode(unit.tobytes()).decode()
        entry["coarse"] = base64.b64encode(bytes(16)).decode()
    (bundle / GOLDEN).write_text(json.dumps(golden))
    refresh_file(bundle, GOLDEN)
    with pytest.raises(GraphError, match="same vector for different texts"):
        Encoder.open(bundle)


@pytest.mark.test
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 0.5])
def test_vectors_that_are_none_are_refused_at_opening_and_at_each_text(
    bundle: Path, value: float
) -> None:
    weights = [ob.tensor("w", np.full((1, 32), value, np.float32)), *ob.numbers(16)]
    give_graph(bundle, ob.model(ob.graph(ob.row_of("w"), weights, dim=16, full=32)))
    with pytest.raises(GraphError, match=r"not finite or not of unit length|codes out of range"):
        Encoder.open(bundle)
    with (
        Encoder.open(bundle, untried=True) as encoder,
        pytest.raises(EncoderError, match=r"not finite or not of unit length|codes out of range"),
    ):
        encoder.encode(["a text"])


@pytest.mark.test
def test_padding_that_the_table_lacks_is_refused(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda data: data["padding"].update(id=50_000))
    with pytest.raises(GraphError, match="cannot read this text"):
        Encoder.open(bundle)


def huge() -> bytes:
    """A graph that asks for 4 TB."""
    nodes = [
        ob.node("ConstantOfShape", ["much"], ["zeros"]),
        ob.node("ReduceSum", ["zeros"], ["sum"]),
        ob.node("Add", ["w", "sum"], ["v"]),
        *ob.row_of("v"),
    ]
    weights = [
        ob.tensor("w", np.ones((1, 32), np.float32)),
        ob.tensor("much", np.array([1 << 40], np.int64)),
        *ob.numbers(16),
    ]
    return ob.model(ob.graph(nodes, weights, dim=16, full=32))


@pytest.mark.test
def test_graph_that_takes_all_memory_is_one_error_and_this_process_lives(bundle: Path) -> None:
    give_graph(bundle, huge())
    with pytest.raises((BundleError, Exception), match=r"bundle|memory") as caught:
        Encoder.open(bundle)
    assert type(caught.value).__name__ in ("BundleError", "GraphError", "OutOfMemoryError")


def test_bundle_that_takes_too_long_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(trial, "TRIAL_S", 0.05)  # less than Python needs to start
    with pytest.raises(BundleError, match="took more than 0 s"):
        Encoder.open(bundle)


@pytest.mark.test
def test_bundle_that_ends_the_process_is_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(trial, "TRIAL_BYTES", 30_000_000)  # numpy alone has more
    monkeypatch.setattr(trial, "TRIAL_BYTES_PER_BYTE", 0)
    with pytest.raises(Exception, match=r"ended the process that tried it|memory"):
        Encoder.open(bundle)


@pytest.mark.test
def test_bundle_is_tried_once_and_where_no_process_can_be_started(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    tried: list[str] = []
    real = trial.run_apart

    def counted(*args: Any, **options: Any) -> Any:
        tried.append(options["step"])
        return real(*args, **options)

    monkeypatch.setattr(trial, "run_apart", counted)
    for _ in range(3):
        Encoder.open(bundle).close()
    assert tried == ["try"]
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "another"))
    monkeypatch.setattr("sys.executable", "/bin/false")
    Encoder.open(bundle).close()
    assert tried == ["try", "try"]


@pytest.mark.test
def test_state_that_others_wrote_or_that_is_damaged_counts_for_nothing(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edge_mrl.bundle import recall
    from edge_mrl.bundle.manifest import read_signed

    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "state"))
    Encoder.open(bundle).close()
    digest = read_signed(bundle).digest
    (path,) = (tmp_path / "state" / "bundles").iterdir()
    good = path.read_bytes()
    assert recall(digest).tried is not None
    assert path.stat().st_mode & 0o777 == 0o600
    for data in (b"", b"{", b"[]", good[:-5], good.replace(b"known 1", b"known 9"), b"[" * 90_000):
        path.write_bytes(data)
        assert recall(digest).tried is None
    path.write_bytes(good)
    path.chmod(0o666)
    assert recall(digest).tried is None


@pytest.mark.test
def test_folder_for_state_that_cannot_be_written_is_no_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGE_MRL_STATE", str(tmp_path / "file" / "state"))
    Encoder.open(bundle).close()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(texts=[]),
        lambda d: d.update(texts=3),
        lambda d: d["texts"][0].update(text=5),
        lambda d: d["texts"][0].update(kind="other"),
        lambda d: d["texts"][0].update(ids="12"),
        lambda d: d["texts"][0].update(coarse="AAAA"),
        lambda d: d["texts"][0].update(full="AAAA"),
        lambda d: d["texts"][0].update(full=None),
        lambda d: d["texts"][0].update(source="AA"),
        lambda d: d["texts"][0].pop("source"),
        lambda d: d.update(version="x" * 100_000),
    ],
)
def test_golden_texts_of_nonsense_are_a_format_error(
    bundle: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    golden = json.loads((bundle / GOLDEN).read_bytes())
    change(golden)
    (bundle / GOLDEN).write_text(json.dumps(golden))
    refresh_file(bundle, GOLDEN)
    with pytest.raises(FormatError, match=GOLDEN) as caught:
        verify(bundle, untried=True)
    assert len(str(caught.value)) < 1000


def test_text_that_is_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mrl.encode.encoder.MOST_TEXT_CHARS", 10)
    with Encoder.open(TINY) as encoder, pytest.raises(EncoderError, match="has 11 characters"):
        encoder.encode(["short", "x" * 11])


def test_file_that_grows_while_it_is_read_is_truncated(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = bundle / GRAPH, bundle_files._check_size

    def slow(name: str, size: int, entry: Any) -> None:
        real(name, size, entry)
        with path.open("ab") as file:
            file.write(b"x")

    monkeypatch.setattr(bundle_files, "_check_size", slow)
    with pytest.raises(TruncatedError, match="was changed while it was read"):
        bundle_files.read_file(bundle, GRAPH, read_manifest(bundle).files[GRAPH])
