"""Each reader stands files that were changed at random, and a reader with one check less is found out."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.bundle import files, graph, head, jsontext, known, trust
from edge_mrl.documents import Document
from edge_mrl.encode import tokenizer, verification
from edge_mrl.errors import ServerError
from edge_mrl.sources import lines
from edge_mrl.store import view
from edge_mrl.store.codefile.cache import CodeCache
from edge_mrl.sync import pull, remote
from edge_mrl.sync.credentials import Credentials, credentials_path
from edge_mrl.sync.pulls.page import ChangePage
from edge_mrl.sync.pulls.part_file import PartFile
from edge_mrl.wire import Item, frames
from edge_mrl_server.http import handlers
from edge_mrl_server.http.heads import HeadCache
from tests.fuzz import answers, limits
from tests.fuzz.reader import Reader
from tests.fuzz.readers import READERS
from tests.fuzz.run import campaign, corpus, keep

#: Another seed in each run; this one, if it is set, to repeat a run.
SEED = int(os.environ.get("EDGE_MRL_FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))


def fuzz(name: str, rounds: int) -> None:
    rounds = max(rounds // READERS[name].cost, 1)
    tally = campaign(name, random.Random(f"{SEED} {name}"), rounds=rounds)
    problems = [f"{finding.problem}: {keep(finding)}" for finding in tally.findings]
    assert not problems, f"python -m tests.fuzz.run '{name}' --seed {SEED}: {problems}"
    assert tally.results + tally.errors == rounds


@pytest.mark.parametrize("name", [name for name in READERS if name not in answers.ANSWERS])
def test_reader_stands_files_that_were_changed(name: str) -> None:
    fuzz(name, 15)


@pytest.mark.test
@pytest.mark.parametrize("name", READERS)
def test_reader_stands_more_of_them(name: str) -> None:
    fuzz(name, 300)


@pytest.mark.nightly
@pytest.mark.parametrize("name", READERS)
def test_reader_stands_very_many_of_them(name: str) -> None:
    fuzz(name, 30_000)


@pytest.mark.test
@pytest.mark.parametrize("name", READERS)
def test_files_of_the_corpus_are_read_or_refused(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    reader.seeds(tmp_path)
    for data in corpus(name):
        with contextlib.suppress(reader.allowed):
            reader.read(data, tmp_path)


def _matrix(data: bytes) -> Any:
    match = head._HEADER.match(data)
    return None if match is None else np.frombuffer(data, "<f4", offset=match.end())


def _external(self: Any, name: str, kind: int, dims: list[int], entries: dict[str, str]) -> Any:
    del self, kind, dims
    return graph.External(name, entries.get("location", ""), 0, 0)


def _credentials(store: Path) -> Credentials:
    return Credentials(**json.loads(credentials_path(store).read_bytes()))


def _golden(entry: dict[str, Any], _: Any) -> Any:
    vectors = {name: verification.decode_vector(entry[name], "i1") for name in ("coarse", "source")}
    return verification.Golden(entry["text"], entry["kind"], entry["ids"], None, **vectors)


def _segment(self: CodeCache, number: int, rows: int) -> Any:
    return None if self._file is None else self._file.segment(number, rows)


def _page(_: Any, header: Any, __: int, offset_ms: int) -> ChangePage:
    said = [header[name] for name in ("cursor", "more", "fence", "epoch", "kept")]
    return ChangePage((), *said, offset_ms)


def _items(message: Any, **_: Any) -> Any:
    rows, none = message.header["items"], message.vectors[:0]
    return [Item(row["id"], int(row["v"], 16), none, row.get("del", False)) for row in rows], []


def _refused(_: str, response: Any) -> ServerError:
    error = json.loads(response.body)["error"]
    return ServerError(error["message"], status=409, code=error["code"], details=error)


def _parsed_line(line: bytes, where: str, *_: Any) -> Document:
    entry = json.loads(line)
    return Document(str(entry.get("id", where)), entry["text"], entry.get("metadata", {}))


#: Readers with one check taken out: what is replaced, and by what.
SABOTAGE: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "manifest": (jsontext, "_encodable", lambda _: True),
    "tokenizer": (tokenizer, "_is_the_librarys", lambda _: False),
    "graph": (graph._Reader, "external", _external),
    "head": (head, "_matrix", _matrix),
    "signature": (trust.TrustedKeys, "signer", lambda *_: "0" * 16),
    "keys": (trust, "_read_text", lambda path: path.read_text("utf-8")),
    "known": (known, "_parse", json.loads),
    "frame": (frames, "_is_count", lambda _: True),
    "credentials": (Credentials, "read", _credentials),
    "files": (files, "_check_hash", lambda *_: None),
    "golden": (verification, "_golden", _golden),
    "part": (PartFile, "sound", lambda _: True),
    "store": (view, "sound_document", lambda *_: True),
    "code file": (CodeCache, "_read", _segment),
    "lines": (lines, "_parse_line", _parsed_line),
    "push": (handlers, "_is_long", lambda _: True),
    "query": (handlers, "check_id", lambda name: name),
    "matrix": (HeadCache, "get", lambda self, *of: self._find(*of[:2], of[2].head)),
    "enroll": (handlers, "_nonce", lambda nonce: nonce),
    "token": (handlers, "_nonce", lambda nonce: nonce),
    "address": (handlers, "_number", lambda text, *_: int(text)),
    "page": (remote.Remote, "_page", _page),
    "snapshot": (pull, "decode_readable_items", _items),
    "answer": (remote, "offset_of", lambda clock, _: clock),
    "refusal": (answers, "_refusal", _refused),
}


def test_every_reader_has_a_check_that_is_found_to_be_missing() -> None:
    assert set(SABOTAGE) == set(READERS)


def _wasteful(data: bytes, _: Path) -> None:
    np.zeros(limits.MOST_BYTES // 4 + len(data), np.float64).fill(1)


def _slow(_: bytes, __: Path) -> None:
    while True:
        pass


def _unbounded(data: bytes, _: Path) -> None:
    np.zeros(2 * limits.MOST_ADDRESSES + len(data), np.uint8)


@pytest.mark.parametrize(
    ("read", "what"),
    [(_wasteful, "bytes of memory"), (_slow, "more than"), (_unbounded, "MemoryError")],
)
def test_reader_that_costs_too_much_is_found_out(
    read: Callable[[bytes, Path], None], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_CPU_S", 0.1)
    seeds: list[bool] = []

    def sometimes(data: bytes, scratch: Path) -> None:
        if seeds:  # the first file is a seed, which nobody changed
            read(data, scratch)
        seeds.append(True)

    monkeypatch.setitem(READERS, "costly", Reader(lambda _: [b"{}"], sometimes, ()))
    tally = campaign("costly", random.Random(1), rounds=1)
    assert what in tally.findings[0].problem


@pytest.mark.test
@pytest.mark.parametrize("name", SABOTAGE)
def test_reader_without_one_check_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, what, instead = SABOTAGE[name]
    monkeypatch.setattr(where, what, instead)
    try:
        findings = campaign(name, random.Random(1), rounds=3000, enough=1).findings
    except AssertionError:  # its results are wrong even for files that nobody changed
        return
    assert findings
