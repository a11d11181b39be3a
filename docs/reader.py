"""A reader in one file: a bundle and a store, read with NumPy and with nothing of edge-mrl.

    python docs/reader.py BUNDLE STORE

It was written from FORMAT.md alone, and shows that a reader in another language can be. It runs no
model: the golden texts of a bundle come with their codes, and serve as questions.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Consecutive rows: the first row's number, the documents' keys, and the levels of the codes.
Rows = tuple[int, NDArray[np.uint32], NDArray[np.float64]]


class Hit(NamedTuple):
    """A document that was found: its score, its id, and the passage that answers best."""

    score: float
    id: str
    passage: str


# Follows the section Manifest of FORMAT.md.
def read_manifest(bundle: Path) -> dict[str, Any]:
    """Read ``edge_mrl.json``; compare its own hash, and that of each file that it names."""
    data = (bundle / "edge_mrl.json").read_bytes()
    manifest: dict[str, Any] = json.loads(data)
    blank = re.sub(rb'("manifest_sha256": ")\w{64}', rb"\g<1>" + b"0" * 64, data)
    digests = {"edge_mrl.json": (blank, manifest["manifest_sha256"])}
    for name, entry in manifest["files"].items():
        digests[name] = ((bundle / name).read_bytes(), entry["sha256"])
    for name, (content, digest) in digests.items():
        require(hashlib.sha256(content).hexdigest() == digest, f"{name} is damaged")
    return manifest


# Follows the section Golden vectors.
def golden_codes(bundle: Path) -> dict[str, NDArray[np.int8]]:
    """The golden texts of a bundle, and the int8 code of each."""
    texts = json.loads((bundle / "golden.json").read_bytes())["texts"]
    return {one["text"]: np.frombuffer(base64.b64decode(one["coarse"]), "i1") for one in texts}


class Store:
    """A store, opened to be read."""

    # Follows the section Store.
    def __init__(self, path: Path) -> None:
        require(path.read_bytes()[68:72] == b"eMRL", f"{path} is no store")
        self.path = path
        self.database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        version = self.one("PRAGMA user_version")[0]
        require(version == 10, f"{path} has version {version}, this reader knows 10")
        self.rows, self.filed, self.generation = self.one(
            "SELECT next_row, filed, generation FROM state"
        )
        self.dim, self.kind, self.step, self.centre = self.one(
            "SELECT dim, stored, step, centre FROM binding"
        )
        self.planes = 2 if self.kind == "2bit" else 1

    def one(self, sql: str, *values: int) -> tuple[Any, ...]:
        """The first row that a statement gives."""
        row: tuple[Any, ...] = self.database.execute(sql, values).fetchone()
        return row

    # Follows the section Codes.
    def levels(self, raw: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The levels that stored codes stand for: uint8[n, bytes] to float64[n, dim]."""
        if self.kind == "int8":
            return raw[:, : self.dim].view(np.int8).astype(np.float64)
        if self.kind == "int4":
            halves = np.stack([raw >> 4, raw & 15], axis=2).reshape(len(raw), -1)
            return 2.0 * halves[:, : self.dim] - 15
        size = len(raw[0]) // self.planes
        levels = np.zeros((len(raw), self.dim))
        for plane in range(self.planes):
            bits = np.unpackbits(raw[:, plane * size : (plane + 1) * size], axis=1, count=self.dim)
            levels = 2 * levels + 2.0 * bits - 1
        centre = 0.0 if self.centre is None else np.frombuffer(self.centre, "i1")
        return np.asarray(centre + (self.step or 1) * levels, np.float64)

    def deleted(self) -> NDArray[np.bool_]:
        """Which rows are deleted: bool[rows]."""
        dead = np.zeros(-(-self.rows // 8192) * 8192, np.bool_)
        for block, crc, bits in self.database.execute("SELECT block, crc, bits FROM tombstones"):
            require(crc == checksum(block, bits), f"block {block} of deleted rows is damaged")
            flags = np.unpackbits(np.frombuffer(bits, "u1"), bitorder="little")
            dead[8192 * block : 8192 * (block + 1)] = flags
        return dead[: self.rows]

    def waiting(self) -> Iterator[Rows]:
        """Rows that the code file does not have yet, from the database."""
        sql = (
            "SELECT first_row, document, rows, crc, spans, codes FROM passages WHERE first_row >= ?"
        )
        for first, key, rows, crc, spans, codes in self.database.execute(sql, (self.filed,)):
            start = b"".join(n.to_bytes(8, "little") for n in (first, key, rows))
            require(crc == zlib.crc32(start + spans + codes), f"document {key} is damaged")
            raw = np.frombuffer(codes, "u1").reshape(rows, -1)
            yield first, np.full(rows, key, np.uint32), self.levels(raw)

    # Follows the section Code file.
    def in_file(self) -> Iterator[Rows]:
        """Rows of the code file, segment by segment."""
        if not self.filed:
            return
        data = Path(f"{self.path}-codes").read_bytes()
        version, dim, size = np.frombuffer(data[8:20], "<u4").tolist()
        require(
            (data[:8], version, dim) == (b"eMRLcode", 1, self.dim), "no code file of this store"
        )
        require(data[20:36] == self.generation, "the code file is of another state of the store")
        crc = int.from_bytes(data[36:40], "little")
        require(crc == zlib.crc32(data[:36]), "the code file's header is damaged")
        words = -(-dim // 64)
        used = {"int8": dim, "int4": -(-dim // 2)}.get(self.kind, 0)
        width = -(-used // 8) * 8
        columns = self.planes * words
        length = -(-size * (8 * columns + 4 + 4 + width) // 65_536) * 65_536
        for first in range(0, self.filed, size):
            segment = data[65_536 + first // size * length :]
            rows = min(size, self.filed - first)
            bits = np.frombuffer(segment, "<u8", columns * size).reshape(columns, size)
            checks, keys = np.frombuffer(segment, "<u4", 2 * size, 8 * columns * size).reshape(
                2, size
            )
            raw = np.ascontiguousarray(bits[:, :rows].T).view(np.uint8)
            if width:
                start = 8 * (columns + 1) * size
                raw = np.frombuffer(segment, "u1", rows * width, start).reshape(rows, width)
            sums = row_checks(raw, keys[:rows], first)
            require(bool((sums == checks[:rows]).all()), f"codes from row {first} on are damaged")
            yield first, keys[:rows], self.levels(raw)

    # Follows the last paragraph of the section Store.
    def search(self, code: NDArray[np.int8], k: int) -> list[Hit]:
        """The k best documents for the int8 code of a question; every passage is compared."""
        dead = self.deleted()
        best: dict[int, tuple[float, int]] = {}
        for first, keys, levels in (*self.in_file(), *self.waiting()):
            lengths = np.linalg.norm(levels, axis=1) * np.linalg.norm(code.astype(np.float64))
            scores = levels @ code / np.where(lengths > 0, lengths, 1)
            for row in np.flatnonzero(~dead[first : first + len(keys)]).tolist():
                key, score = int(keys[row]), float(scores[row])
                if key not in best or score > best[key][0]:
                    best[key] = (score, first + row)
        hits = [Hit(score, *self.passage(key, row)) for key, (score, row) in best.items()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]

    def passage(self, key: int, row: int) -> tuple[str, str]:
        """A document's id, and the text of its passage in a row."""
        name, text, first, spans = self.one(
            "SELECT id, text, first_row, spans FROM documents JOIN passages ON document = key"
            " WHERE key = ?",
            key,
        )
        start, end = np.frombuffer(spans, "<u4").reshape(-1, 2)[row - first].tolist()
        return name, text[start:end]


# Follows the paragraph Checksums of the section Store.
def checksum(*values: int | bytes) -> int:
    """The CRC-32 of a row's values."""
    crc = 0
    for value in values:
        if value is None:
            data = b"\0"
        elif isinstance(value, int):
            data = b"\1" + value.to_bytes(8, "little", signed=True)
        elif isinstance(value, float):
            data = b"\2" + np.float64(value).tobytes()
        else:
            raw = value.encode() if isinstance(value, str) else value
            tag = b"\3" if isinstance(value, str) else b"\4"
            data = tag + len(raw).to_bytes(8, "little") + raw
        crc = zlib.crc32(data, crc)
    return crc


# Follows the last paragraph of the section Code file.
def row_checks(raw: NDArray[np.uint8], keys: NDArray[np.uint32], first: int) -> NDArray[np.uint64]:
    """The check of each row: a sum modulo 2**64 of its values by odd factors, its upper half."""
    rows = np.arange(first + 1, first + 1 + len(keys), dtype=np.uint64)
    columns = [keys.astype(np.uint64), rows, *np.ascontiguousarray(raw).view("<u8").T]
    total = np.zeros(len(keys), np.uint64)
    for i, column in enumerate(columns, start=1):
        z = i * 0x9E3779B97F4A7C15 % 2**64  # SplitMix64 started at 0, its i-th output
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        total += column * np.uint64((z ^ z >> 31) | 1)
    return total >> np.uint64(32)


def require(good: bool, problem: str) -> None:  # noqa: FBT001  (it reads like an assertion)
    """Raise ValueError with a problem, unless all is good."""
    if not good:
        raise ValueError(problem)


def main() -> None:
    """Answer the golden texts of a bundle from a store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("store", type=Path)
    args = parser.parse_args()
    manifest, store = read_manifest(args.bundle), Store(args.store)
    print(f"{manifest['name']}: {store.rows} rows of {store.dim} dimensions, {store.kind}")
    for text, code in golden_codes(args.bundle).items():
        for hit in store.search(code, k=1):
            print(f"{hit.score:6.3f}  {text[:40]!r:44} {hit.id}: {hit.passage[:40]!r}")


if __name__ == "__main__":
    main()
