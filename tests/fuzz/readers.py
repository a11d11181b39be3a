"""Every reader of bytes that others may have written, and what may come out: a documented error, or a
right result."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from edge_mrl.bundle import graph, head, known, manifest, trust
from edge_mrl.bundle.files import check_files
from edge_mrl.encode.tokenizer import load_tokenizer, tokenizing
from edge_mrl.encode.verification import read_golden
from edge_mrl.errors import (
    BundleError,
    EdgeMrlError,
    EncoderError,
    StoreError,
    UsageError,
    WireError,
)
from edge_mrl.index import Index
from edge_mrl.sources import find_sources, read_documents
from edge_mrl.store import Store
from edge_mrl.store.codefile import cache as codecache
from edge_mrl.store.codefile.file import code_path
from edge_mrl.sync.credentials import Credentials, credentials_path
from edge_mrl.sync.pulls.part_file import PartFile
from edge_mrl.wire.frames import (
    Item,
    Message,
    decode_items,
    decode_message,
    decode_readable_items,
    encode_items,
    encode_message,
)
from edge_mrl.wire.frames import digest as _digest
from tests.fuzz.answers import ANSWERS
from tests.fuzz.reader import Reader
from tests.fuzz.requests import REQUESTS
from tests.support.bundles import TINY, TINY_STATIC, copy_bundle, refresh_file

__all__ = ["READERS"]

GRAPH, TOKENIZER, GOLDEN, MANIFEST = "model.onnx", "tokenizer.json", "golden.json", "edge_mrl.json"
TEXTS = ["a", "", "the training of a model, 1234 times!", "ﬁ ½ … ٣ 漢字 \u0000 \ufffd", "a" * 600]


def _files(name: str) -> Callable[[Path], list[bytes]]:
    return lambda _: [(folder / name).read_bytes() for folder in (TINY, TINY_STATIC)]


def _rehashed(data: bytes) -> bytes:
    """A manifest with its own hash made right, so that what lies behind that check is reached."""
    zeros = b"0" * 64
    match = manifest._OWN_HASH.search(data)
    if match is None:
        return data
    blank = data[: match.start(1)] + zeros + data[match.end(1) :]
    return blank.replace(zeros, hashlib.sha256(blank).hexdigest().encode(), 1)


def read_manifest(data: bytes, _: Path) -> None:
    try:
        found = manifest.parse_manifest(data)
    except BundleError:
        found = manifest.parse_manifest(_rehashed(data))
    assert found.max_tokens >= 1
    assert all("/" not in name for name in found.files)
    again = manifest.parse_manifest(manifest.dump_manifest(found))
    assert dataclasses.replace(again, manifest_sha256="") == dataclasses.replace(
        found, manifest_sha256=""
    )


def _copied(scratch: Path, name: str, data: bytes) -> Path:
    folder = scratch / "bundle"
    if not folder.exists():
        copy_bundle(folder)
    (folder / name).write_bytes(data)
    refresh_file(folder, name)
    return folder


def read_tokenizer(data: bytes, scratch: Path) -> None:
    folder = _copied(scratch, TOKENIZER, data)
    try:
        loaded = load_tokenizer(folder, manifest.read_manifest(folder), checked=False)
    finally:
        shutil.copyfile(TINY / TOKENIZER, folder / TOKENIZER)
        refresh_file(folder, TOKENIZER)
    loaded.no_padding()
    with tokenizing():
        loaded.enable_truncation(48)
        for text in TEXTS:
            assert len(loaded.encode(text).ids) <= 48


def read_graph(data: bytes, _: Path) -> None:
    found = graph.read_graph(data, {"model.onnx.data": 34_304})
    assert found.locations <= {"model.onnx.data"}
    _compare_with_onnx(data, found)


def _compare_with_onnx(data: bytes, found: graph.Graph) -> None:
    """Whatever onnx itself finds outside of the file, the reader has found and compared."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        return
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return
    seen = set()
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            places = {entry.key: entry.value for entry in tensor.external_data}
            seen.add((tensor.name, places["location"], int(places.get("offset", 0))))
    assert seen == {(x.name, x.location, x.offset) for x in found.externals}


def _tensors(message: Any) -> Any:
    """Every tensor anywhere in a model."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            many = value if hasattr(value, "__len__") else [value]
            for part in many:
                yield from _tensors(part)


def read_golden_texts(data: bytes, scratch: Path) -> None:
    folder = _copied(scratch, GOLDEN, data)
    found = read_golden(folder, manifest.read_manifest(folder))
    assert all(len(golden.coarse) == 16 for golden in found)


def head_seeds(_: Path) -> list[bytes]:
    found = []
    for shape in ((32, 16), (4, 2)):
        file = io.BytesIO()
        values = np.arange(shape[0] * shape[1], dtype="<f4").reshape(shape)
        np.lib.format.write_array(file, values, version=(1, 0))
        found.append(file.getvalue())
    return found


def read_head(data: bytes, _: Path) -> None:
    found = head._matrix(data)
    if found is not None:
        assert np.array_equal(found, np.load(io.BytesIO(data), allow_pickle=False), equal_nan=True)


def signature_seeds(scratch: Path) -> list[bytes]:
    trust.make_key(scratch / "k")
    folder = copy_bundle(scratch / "signed")
    trust.sign_bundle(folder, scratch / "k")
    return [(folder / "edge_mrl.sig").read_bytes()]


def read_signature(data: bytes, scratch: Path) -> None:
    keys = trust.TrustedKeys.read(scratch / "k.pub")
    signed = (scratch / "signed" / MANIFEST).read_bytes()
    if keys.signer(signed, data) is not None:
        good = (scratch / "signed" / "edge_mrl.sig").read_bytes().splitlines()[1]
        assert good in data.splitlines()
    assert keys.signer(signed + b" ", data) is None


def keys_seeds(scratch: Path) -> list[bytes]:
    trust.make_key(scratch / "k")
    return [(scratch / "k.pub").read_bytes() + b"# a comment\nrevoke " + b"0" * 64 + b"\n"]


def read_keys(data: bytes, scratch: Path) -> None:
    (scratch / "keys").write_bytes(data)
    assert trust.TrustedKeys.read(scratch / "keys").keys


def known_seeds(_: Path) -> list[bytes]:
    files = {"a": (1, 2, 3, 4)}
    values = {"format": known.FORMAT, "tried": {"a": "1"}, "places": {"/x": files}}
    return [
        json.dumps({**values, "made": made}).encode()
        for made in (None, {"signer": "a", "base": "b"})
    ]


def read_known(data: bytes, scratch: Path) -> None:
    path = scratch / "bundles" / "0.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    known._parse(known._read_own(path))


def _items() -> list[Item]:
    unit = np.full((2, 4), 0.5, np.float16)
    return [
        Item(
            "a", 1 << 16, unit, text="one note and more", spans=[(0, 4), (4, 17)], metadata={"n": 1}
        ),
        Item("b", 2 << 16, unit[:0], deleted=True),
    ]


def frame_seeds(_: Path) -> list[bytes]:
    like = np.zeros((0, 4), np.float16)
    return [
        encode_items({"cursor": 3, "epoch": "e"}, _items(), like=like),
        encode_message({"ids": ["a"], "k": 3}, np.ones((3, 4), np.int8)),
    ]


def read_frame(data: bytes, _: Path) -> None:
    message = decode_message(data)
    if "items" not in message.header:
        return
    items, _unreadable = decode_readable_items(message)
    try:
        strict = decode_items(message)
    except WireError:
        return
    strict = [item for item in strict if item.problem is None]
    assert [item.id for item in strict] == [item.id for item in items]
    message = Message({}, np.concatenate([message.vectors[:0], *(x.vectors for x in strict)]))
    again = decode_message(encode_items({}, strict, like=message.vectors[:0]))
    assert np.array_equal(again.vectors, message.vectors, equal_nan=True)
    assert [item.id for item in decode_items(again)] == [item.id for item in strict]


def _frames(scratch: Path) -> bytes:
    return b"".join(len(f).to_bytes(4, "little") + f for f in frame_seeds(scratch))


def part_seeds(scratch: Path) -> list[bytes]:
    frames = _frames(scratch)
    with PartFile(scratch / "part", "code") as part:
        part.add(frames, size_bytes=len(frames), etag="e", digest=_digest(frames))
    return [(scratch / "part").read_bytes()]


def read_part(data: bytes, scratch: Path) -> None:
    (scratch / "part").write_bytes(data)
    with PartFile(scratch / "part", "code") as part:
        if part.size and part.complete:
            sound, frames = part.sound(), list(part.frames())
            if sound and part._digest == _digest(_frames(scratch)):
                assert frames == frame_seeds(scratch)


def _text(n: int) -> str:
    return f"the cat number {n}" + ", and then a dog that comes after it" * 8


def _store(scratch: Path) -> Path:
    """A store of 40 documents, its code file written, and no log beside it."""
    from edge_mrl.documents import Document

    path = scratch / "seed.db"
    if not path.exists():
        with Index.open(path, TINY) as index:
            index.put([Document(f"d{n}", _text(n), {"n": n}) for n in range(40)])
            index.search("cat")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def store_seeds(scratch: Path) -> list[bytes]:
    return [_store(scratch).read_bytes()]


def read_store(data: bytes, scratch: Path) -> None:
    path = Path(tempfile.mkdtemp(dir=scratch)) / "s.db"
    try:
        path.write_bytes(data)
        with Store.open(path) as store:
            for n in range(40):
                for document in store.get([f"d{n}"]).values():
                    assert document.text == _text(n)
            store.count()
    finally:
        shutil.rmtree(path.parent)


@contextmanager
def small_segments() -> Iterator[None]:
    """Code files that begin with few rows."""
    with mock.patch.multiple(codecache, SEGMENT_ROWS=16, STAGE_ROWS=8):
        yield


def code_file_seeds(scratch: Path) -> list[bytes]:
    with small_segments():
        return [code_path(_store(scratch)).read_bytes()]


def read_code_file(data: bytes, scratch: Path) -> None:
    """The code file is a cache: whatever it holds, the search is right."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        path = folder / "s.db"
        shutil.copyfile(_store(scratch), path)
        code_path(path).write_bytes(data)
        with small_segments(), Index.open(path, TINY) as index:
            hits = index.search("the cat number 7", k=3)
            assert [hit.id for hit in hits] == _expected(scratch)
    finally:
        shutil.rmtree(folder)


def _expected(scratch: Path) -> list[str]:
    kept = scratch / "expected.json"
    if not kept.exists():
        with Index.open(_store(scratch), TINY) as index:
            kept.write_text(json.dumps([hit.id for hit in index.search("the cat number 7", k=3)]))
    found: list[str] = json.loads(kept.read_text())
    return found


def credentials_seeds(scratch: Path) -> list[bytes]:
    Credentials("https://a", "t", "d", "secret").write(scratch / "c.db")
    return [credentials_path(scratch / "c.db").read_bytes()]


def read_credentials(data: bytes, scratch: Path) -> None:
    credentials_path(scratch / "c.db").write_bytes(data)
    found = Credentials.read(scratch / "c.db")
    assert found is not None
    assert found.token


def lines_seeds(_: Path) -> list[bytes]:
    lines = [
        {"id": "a", "text": "one", "metadata": {"n": 1, "tags": ["x"]}},
        {"_id": 5, "text": "two", "title": "T", "lang": "en"},
        {"text": "three"},
    ]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


def read_lines(data: bytes, scratch: Path) -> None:
    path = scratch / "in.jsonl"
    path.write_bytes(data)
    for document in read_documents(find_sources([path]), skipped=lambda *_: None):
        assert document.id
        json.dumps(document.metadata, allow_nan=False).encode("utf-8")


def check_bundle_files(data: bytes, scratch: Path) -> None:
    """A manifest that was accepted never leads out of its folder."""
    folder = _copied(scratch, GOLDEN, (TINY / GOLDEN).read_bytes())
    found = manifest.parse_manifest(_rehashed(data))
    check_files(folder, found, hashes=True)
    for name, entry in found.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry.sha256


BUNDLE = (BundleError,)
READERS: dict[str, Reader] = {
    "manifest": Reader(_files(MANIFEST), read_manifest, BUNDLE),
    "files": Reader(lambda _: [(TINY / MANIFEST).read_bytes()], check_bundle_files, BUNDLE, 2),
    "tokenizer": Reader(_files(TOKENIZER), read_tokenizer, (BundleError, EncoderError), 4),
    "graph": Reader(_files(GRAPH), read_graph, BUNDLE, 4),
    "golden": Reader(_files(GOLDEN), read_golden_texts, BUNDLE, 2),
    "head": Reader(head_seeds, read_head, ()),
    "signature": Reader(signature_seeds, read_signature, BUNDLE, 2),
    "keys": Reader(keys_seeds, read_keys, (UsageError,)),
    "known": Reader(known_seeds, read_known, ()),
    "frame": Reader(frame_seeds, read_frame, (WireError,)),
    "part": Reader(part_seeds, read_part, (EdgeMrlError,)),
    "store": Reader(store_seeds, read_store, (StoreError, UsageError), 8),
    "code file": Reader(code_file_seeds, read_code_file, (StoreError,), 60),
    "credentials": Reader(credentials_seeds, read_credentials, (StoreError,)),
    "lines": Reader(lines_seeds, read_lines, (UsageError,)),
    **REQUESTS,
    **ANSWERS,
}
