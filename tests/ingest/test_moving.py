"""A store moves from one bundle of a model to another: all kinds of codes, more and fewer dimensions.

Kills are real: a child process stops itself with SIGKILL at a given step, wherever that is.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.bundle import derive_codes
from edge_mrl.cli import main
from edge_mrl.documents import Document
from edge_mrl.encode import Encoder
from edge_mrl.errors import StoreError
from edge_mrl.index import Index
from edge_mrl.ingest import Tally, again
from edge_mrl.machine import FileSystem, facts
from edge_mrl.store import reindex
from tests.support.bundles import copy_bundle, keep_codes_as, with_dim
from tests.support.keys import KEY
from tests.support.stores import levels, packing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store import Key

FULL_DIM = 32
WORDS = ("the cat", "a dog", "barking", "training", "model", "it", "testing", "0 1 2")
KINDS = ("int8", "int4", "2bit", "1bit")


def documents(number: int = 12) -> list[Document]:
    texts = [f"{WORDS[n % 8]} and {WORDS[(n // 8 + 3 * n) % 8]} {n % 3}" for n in range(number)]
    return [Document(f"d{n}", text, {"n": n}) for n, text in enumerate(texts)]


def make_bundle(folder: Path, kind: str, dim: int) -> Path:
    bundle = copy_bundle(folder / f"{kind}-{dim}")
    if dim != 16:
        with_dim(bundle, dim)
    return keep_codes_as(bundle, packing(kind, dim))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Bundles of one model by kind of code and dimensions, each made once."""
    folder = tmp_path_factory.mktemp("bundles")
    made: dict[tuple[str, int], Path] = {}

    def bundle(kind: str, dim: int) -> Path:
        if (kind, dim) not in made:
            made[kind, dim] = make_bundle(folder, kind, dim)
        return made[kind, dim]

    return bundle


def stored(index: Index) -> dict[str, list[int]]:
    """The levels of each document's code, by id."""
    with index.store.reading() as view:
        table = view.codes
        rows = np.setdiff1d(np.arange(table.rows), table.dead)
        found, keys = table.gather_levels(rows)
        names = index.store.ids(sorted(set(keys.tolist())))
    return {names[key]: row for key, row in zip(keys.tolist(), found.tolist(), strict=True)}


def fulls(index: Index) -> dict[str, NDArray[np.float32]]:
    with index.store.reading() as view:
        keys = index.store.keys([one.id for one in documents(99)])
        return {keys[key]: full for key, full in view.fulls(list(keys)).items()}


def assert_moved(index: Index, bundle: Path, number: int) -> None:
    """Codes are the new bundle's, of the kept vectors or of the texts, and searches find them."""
    texts = {one.id: one.text for one in documents(number)}
    with Encoder.open(bundle) as encoder:
        manifest = encoder.manifest
        if index.keep_full is None:
            names = list(texts)
            codes = encoder.encode(list(texts.values())).coarse
        else:
            kept = fulls(index)
            assert kept.keys() == texts.keys()
            names = list(kept)
            codes = derive_codes(np.concatenate(list(kept.values())), None, dim=manifest.dim)
    packed = manifest.code.packing
    assert stored(index) == dict(zip(names, levels(codes, packed).tolist(), strict=True))
    stats = index.stats()
    assert (stats.dim, stats.code, stats.reindexing) == (manifest.dim, packed.kind, None)
    assert stats.code_bytes == packed.bytes(manifest.dim)
    assert index.check().sound
    assert len(index.search("a dog", k=99)) == number


def make_store(path: Path, bundle: Path, keep_full: str | None, key: Key | None = None) -> Index:
    index = Index.open(path, bundle, keep_full=keep_full, key=key)
    index.put(documents())
    return index


#: From kind to kind and size to size: each kind is left for each other one, up and down in dimensions.
TOUR = [
    *(("int4", 32), ("int8", 8), ("2bit", 32), ("int8", 16), ("1bit", 32), ("int8", 16)),
    *(("1bit", 8), ("int4", 16), ("1bit", 32), ("2bit", 8), ("int4", 32), ("2bit", 16)),
    *(("1bit", 16), ("int8", 16), ("int8", 32), ("int4", 8), ("int4", 16), ("2bit", 32)),
]


def test_tour_has_all_pairs_of_codes() -> None:
    kinds = ["int8", *(kind for kind, _ in TOUR)]
    pairs = {(a, b) for a in KINDS for b in KINDS if a != b}
    assert pairs <= set(itertools.pairwise(kinds))


def travel(
    path: Path,
    bundles: Callable[[str, int], Path],
    keep_full: str | None,
    tour: list[tuple[str, int]],
) -> None:
    with make_store(path, bundles("int8", 16), keep_full) as index:
        before = {name: full.tolist() for name, full in fulls(index).items()}
        for kind, dim in tour:
            tally = Tally()
            made = index.reindex(bundles(kind, dim), tally=tally)
            assert (tally.kept, tally.embedded) == ((0, 12) if keep_full is None else (12, 0))
            assert made == tally.embedded
            assert_moved(index, bundles(kind, dim), 12)
        assert {name: full.tolist() for name, full in fulls(index).items()} == before


@pytest.mark.test
@pytest.mark.parametrize("keep_full", [None, "fp16"])
def test_store_moves_to_more_dimensions_of_fewer_bits_and_back(
    keep_full: str | None, tmp_path: Path, bundles: Callable[[str, int], Path]
) -> None:
    travel(tmp_path / "s.db", bundles, keep_full, [("int4", 32), ("int8", 16)])


@pytest.mark.nightly
@pytest.mark.parametrize("keep_full", [None, "fp16", "int8", "until-synced"])
def test_store_moves_between_all_codes(
    keep_full: str | None, tmp_path: Path, bundles: Callable[[str, int], Path]
) -> None:
    travel(tmp_path / "s.db", bundles, keep_full, TOUR)


# --- kills

#: Steps of a move: the function, whether the process ends before or after it, and at which call.
STEPS = {
    "begun": ("reindex.begin", "after", 1),
    "staging": ("reindex._values", "before", 7),
    "staged": ("reindex.stage", "after", 2),
    "finishing": ("reindex.finish", "before", 1),
    "swapping": ("reindex._take_vectors", "before", 1),
    "bound": ("reindex.write_bound", "after", 1),
    "committed": ("Store.refresh", "before", 1),
    "without its file": ("cache.remove", "after", 1),
    "filed": ("reindex.finish", "after", 1),
}
COMMITTED = ("committed", "without its file", "filed")
CHILD = """
import os, signal, sys
from edge_mrl.index import Index
from edge_mrl.ingest import again
from edge_mrl.store import Store, reindex
from tests.support.keys import KEY

again.REINDEX_DOCUMENTS = 4
path, bundle, step, when, call, encrypted = sys.argv[1:]
left = [int(call)]

def dying(*arguments, **options):
    left[0] -= 1
    if left[0] == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **options)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

with Index.open(path, key=KEY if encrypted == "1" else None) as index:
    owner, name = step.split(".")
    owner = {"reindex": reindex, "Store": Store, "cache": type(index.store._cache)}[owner]
    original = getattr(owner, name)
    setattr(owner, name, dying)
    index.reindex(bundle)
"""


def kill_while_moving(path: Path, bundle: Path, step: str, *, encrypted: bool) -> None:
    where, when, call = STEPS[step]
    command = [
        sys.executable,
        "-c",
        CHILD,
        path,
        bundle,
        where,
        when,
        str(call),
        str(int(encrypted)),
    ]
    child = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr


def answers(index: Index) -> list[list[tuple[str, float]]]:
    found = index.search_many(["the cat", "a dog barking"], k=9)
    return [[(hit.id, hit.score) for hit in hits] for hits in found]


def survive(
    path: Path,
    bundles: Callable[[str, int], Path],
    step: str,
    keep_full: str | None,
    *,
    encrypted: bool,
) -> None:
    """Kill a move at a step, then run it again: old answers until the switch, and nothing done twice."""
    key, target = KEY if encrypted else None, bundles("int4", 32)
    with make_store(path, bundles("int8", 16), keep_full, key) as index:
        before = answers(index)
    kill_while_moving(path, target, step, encrypted=encrypted)
    with Index.open(path, key=key) as index:
        done, _ = reindex.progress(index.store)
        committed = index.binding.dim == 32
        assert committed == (step in COMMITTED)
        assert committed or answers(index) == before
        assert index.check().sound
        tally = Tally()
        index.reindex(target, tally=tally)
        assert tally.kept + tally.embedded == (0 if committed else 12 - done)
        assert (tally.embedded == 0) or keep_full is None
        assert_moved(index, target, 12)
        tally = Tally()
        index.reindex(target, tally=tally)  # once more: nothing is left to do
        assert tally == Tally()


@pytest.mark.test
@pytest.mark.parametrize(
    ("step", "keep_full", "encrypted"),
    [("staged", None, False), ("swapping", "fp16", True), ("committed", "fp16", False)],
)
def test_killed_move_goes_on(
    step: str,
    keep_full: str | None,
    encrypted: bool,
    tmp_path: Path,
    bundles: Callable[[str, int], Path],
) -> None:
    survive(tmp_path / "s.db", bundles, step, keep_full, encrypted=encrypted)


@pytest.mark.nightly
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("keep_full", [None, "fp16", "int8", "until-synced"])
@pytest.mark.parametrize("step", STEPS)
def test_move_that_is_killed_at_any_step_goes_on(
    step: str,
    keep_full: str | None,
    encrypted: bool,
    tmp_path: Path,
    bundles: Callable[[str, int], Path],
) -> None:
    survive(tmp_path / "s.db", bundles, step, keep_full, encrypted=encrypted)


@pytest.mark.test
def test_move_that_begins_anew_after_a_kill_is_noticed(
    tmp_path: Path, bundles: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sabotage twin: what was staged is thrown away, as if it were of another change."""
    monkeypatch.setattr(reindex, "_comparable", lambda _: object())
    with pytest.raises(AssertionError):
        survive(tmp_path / "s.db", bundles, "staged", None, encrypted=False)


# --- what else may happen meanwhile


def test_other_documents_are_taken_along_while_vectors_are_used(
    tmp_path: Path, bundles: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "REINDEX_DOCUMENTS", 4)
    with make_store(tmp_path / "s.db", bundles("int8", 16), "fp16") as index:

        def change(done: int, _total: int) -> None:
            if done == 4:
                index.put([Document("d0", "testing the model"), Document("late", "it")])
                index.delete(["d1", "d11"])

        tally = Tally()
        assert index.reindex(bundles("int4", 16), progress=change, tally=tally) == 0
        assert tally.kept == 4 + 7 + 2
        with Index.open(tmp_path / "fresh.db", bundles("int4", 16), keep_full="fp16") as fresh:
            fresh.put(index.get(index.select({})).values())
            assert stored(fresh) == stored(index)


def test_other_passages_are_embedded_though_vectors_are_kept(
    tmp_path: Path, bundles: Callable[[str, int], Path]
) -> None:
    with make_store(tmp_path / "s.db", bundles("int8", 16), "fp16") as index:
        tally = Tally()
        assert index.reindex(bundles("int8", 16), max_tokens=3, overlap=0, tally=tally) == 12
        assert (tally.kept, index.rule.max_tokens) == (0, 3)
        assert index.count().passages > 12
        assert index.reindex(bundles("int8", 16), again=True) == 12


def test_change_that_is_not_wanted_any_more_is_given_up(
    tmp_path: Path, bundles: Callable[[str, int], Path]
) -> None:
    with make_store(tmp_path / "s.db", bundles("int8", 16), None) as index:
        reindex.begin(
            index.store, reindex.Reindexing(index.binding, index.rule, None)
        )  # as an interrupted one left it
        assert index.stats().reindexing is not None
        assert index.reindex(bundles("int8", 16)) == 0
        assert index.stats().reindexing is None


def test_full_disk_is_said_before_anything_is_done(
    tmp_path: Path, bundles: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path / "s.db", bundles("int8", 16), None) as index:
        full = FileSystem("ext4", 100, read_only=False)
        monkeypatch.setattr(facts, "file_system", lambda _: full)
        with pytest.raises(StoreError, match=r"takes about .* MB of disk .* free some space"):
            index.reindex(bundles("int4", 16))
        assert reindex.progress(index.store) == (0, 12)
        # A file system that does not tell its free space rightly.
        assert index.reindex(bundles("int4", 16), check_space=False) == 12
        monkeypatch.undo()
        assert index.reindex(bundles("int8", 16)) == 12


def test_command_says_where_codes_came_from(
    tmp_path: Path, bundles: Callable[[str, int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "s.db", bundles("int8", 16), "fp16").close()
    command = ["reindex", "--store", str(tmp_path / "s.db"), "--bundle"]
    assert main([*command, str(bundles("int4", 16)), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kept"], said["embedded"], said["lacking"]) == (12, 0, 0)
    assert (said["code"], said["code_bytes"], said["code_bytes_before"]) == ("int4", 8, 16)
    assert said["needed_bytes"] > 0
    assert main([*command, str(bundles("int8", 16))]) == 0
    captured = capsys.readouterr()
    assert "12 coded from kept vectors" in captured.out
    assert "16 B a passage (before: 8 B)" in captured.out
    assert "of disk until it is done" in captured.err
    assert main([*command, str(bundles("int8", 16)), "--again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["embedded"] == 12
