"""Every command that looks at a store or a bundle, with each kind of code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.cli import main
from edge_mrl.documents import Document
from edge_mrl.index import Index
from tests.support.bundles import copy_bundle, keep_codes_as, with_dim
from tests.support.stores import PACKINGS, packing

pytestmark = pytest.mark.test

WORDS = ("the cat", "a dog", "barking", "training", "model", "it", "testing", "0 1 2")
DOCUMENTS = [
    Document(f"d{n}", f"{WORDS[n % 8]} and {WORDS[(n // 8 + 3 * n) % 8]} {n % 3}", {"n": n})
    for n in range(24)
]
#: Kinds of codes with all dimensions of the model, and the bytes that a passage takes.
CODES = {name: {"int8": 32, "int4": 16, "2bit": 8, "1bit": 4}[name.split()[0]] for name in PACKINGS}


@pytest.mark.parametrize("name", CODES)
def test_commands_take_every_code(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = keep_codes_as(with_dim(copy_bundle(tmp_path / "bundle"), 32), packing(name, 32))
    path, kind, size = tmp_path / "s.db", name.split(maxsplit=1)[0], CODES[name]
    with Index.open(path, bundle) as index:
        index.put(DOCUMENTS)
        index.delete(["d3"])

    def run(*arguments: object) -> Any:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    def ids(*options: object) -> list[str]:
        found = run("search", "the cat and it", "--store", path, "-k", 9, *options)
        return [hit["id"] for hit in found["hits"]]

    assert run("inspect", bundle)["passage_bytes"] == size
    assert main(["inspect", str(bundle)]) == 0
    assert f"{kind}, {size} B per passage" in capsys.readouterr().out
    stats = run("stats", "--store", path)
    assert (stats["code"], stats["code_bytes"], stats["passages"]) == (kind, size, 23)
    exact = ids("--exact")
    assert len(exact) == 9
    assert ids() == exact  # so few rows are all scored
    few = ids("--filter", "n<6")
    assert set(few) == {"d0", "d1", "d2", "d4", "d5"}
    assert len(ids("--mode", "hybrid")) == 9
    assert set(ids("--mode", "hybrid", "--filter", "n<6")) == set(few)
    with Index.open(path) as index:
        index.tune("32x1" if kind == "1bit" else f"32x1:23,32x{size // 4}")
    assert len(ids()) == 9
    assert run("compact", "--store", path)["rows_dropped"] == 1
    assert run("check", "--store", path)["sound"]
    assert set(ids("--filter", "n<6")) == set(few)
