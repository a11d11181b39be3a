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

from edge_mrl.bundle import graph, head, jsontext, known, trust
from edge_mrl.encode import tokenizer
from edge_mrl.sync.credentials import Credentials, credentials_path
from edge_mrl.wire import frames
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


@pytest.mark.parametrize("name", READERS)
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
}


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
