"""Changing a store's codes: staged beside the old ones, interrupted, gone on with, swapped in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.codes.packing import Packing
from edge_mrl.documents import Document, PassageRule
from edge_mrl.errors import UsageError
from edge_mrl.store import Binding, Entry, Health, Store, check, reindex, replica, stats
from tests.support.stores import (
    BINDING,
    FULL_DIM,
    RULE,
    entry,
    full_entry,
    live_codes,
    open_enrolled,
    open_store,
)

if TYPE_CHECKING:
    from pathlib import Path

NEW = Binding("space-2", "code-2", 2, 0.5, "/bundles/two")
WANTED = reindex.Reindexing(NEW, PassageRule(16, 4), None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


def staged(store: Store, wanted: reindex.Reindexing, fill: int) -> None:
    """Give all pending documents one passage with a new code."""
    for key, document in reindex.pending(store, limit=99, after=0):
        codes = np.full((1, wanted.binding.dim), fill, np.int8)
        spans = [(0, len(document.text))]
        reindex.stage(store, wanted, [(key, Entry(document, spans, codes))])


def test_old_codes_serve_until_all_new_ones_are_there(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", fill=1), entry("b", fill=2), entry("empty", "", 0)])
        assert reindex.interrupted(store) is None
        assert reindex.begin(store, WANTED) == 0
        (first, *_) = reindex.pending(store, limit=1, after=0)
        reindex.stage(
            store, WANTED, [(first[0], Entry(first[1], [(0, 9)], np.full((1, 2), 7, np.int8)))]
        )
        assert reindex.progress(store) == (1, 3)
        assert not reindex.finish(store)
        assert (store.binding, live_codes(store)) == (BINDING, [[1] * 4, [2] * 4])
        staged(store, WANTED, 8)
        assert reindex.finish(store)
        assert (store.binding, store.rule) == (NEW, WANTED.rule)
        assert live_codes(store) == [[7, 7], [8, 8], [8, 8]]
        assert reindex.interrupted(store) is None
        assert not reindex.finish(store)  # there is nothing to finish
        assert check(store) == Health(3, (), (), ())


def test_interrupted_reindexing_goes_on_where_it_was(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a"), entry("b")])
        reindex.begin(store, WANTED)
        (one, _) = reindex.pending(store, limit=9, after=0)
        codes = np.ones((1, 2), np.int8)
        reindex.stage(store, WANTED, [(one[0], Entry(one[1], [(0, 9)], codes))])
    with Store.open(path) as store:
        assert reindex.interrupted(store) == WANTED
        assert stats(store).reindexing == "/bundles/two"
        # The same change, though the bundle has moved; another one starts over.
        moved = replace(WANTED, binding=replace(NEW, bundle="/elsewhere"))
        assert reindex.begin(store, moved) == 1
        other = replace(WANTED, binding=replace(NEW, code_id="code-3"))
        assert reindex.begin(store, other) == 0
        assert len(reindex.pending(store, limit=9, after=0)) == 2


def test_abandoned_reindexing_leaves_nothing(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
        reindex.begin(store, WANTED)
        staged(store, WANTED, 3)
        reindex.abandon(store)
        assert reindex.interrupted(store) is None
        assert reindex.progress(store) == (0, 1)
        assert not reindex.finish(store)
        assert store.binding == BINDING


def test_document_that_changed_since_it_was_read_is_not_staged(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "old text"), entry("b")])
        reindex.begin(store, WANTED)
        pending = reindex.pending(store, limit=9, after=0)
        store.put([entry("a", "new text")])
        store.delete(["b"])
        rows = [(k, Entry(d, [(0, 8)], np.ones((1, 2), np.int8))) for k, d in pending]
        reindex.stage(store, WANTED, rows)
        assert reindex.progress(store) == (0, 1)
        assert [d.text for _, d in reindex.pending(store, limit=9, after=0)] == ["new text"]


def test_document_that_changes_after_it_was_staged_is_pending_again(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "old text")])
        reindex.begin(store, WANTED)
        staged(store, WANTED, 3)
        store.put([entry("a", "new text")])
        assert not reindex.finish(store)
        staged(store, WANTED, 4)
        assert reindex.finish(store)
        assert live_codes(store) == [[4, 4]]


def test_packing_of_the_new_codes_is_remembered(path: Path) -> None:
    packing = Packing("1bit", 9.0, tuple(range(-4, 4)))
    wanted = replace(WANTED, binding=replace(NEW, dim=8, packing=packing))
    with open_store(path) as store:
        reindex.begin(store, wanted)
    with Store.open(path) as store:
        assert reindex.interrupted(store) == wanted


def test_bundle_without_full_vectors_is_refused_where_they_are_kept(path: Path) -> None:
    with open_enrolled(path) as store:
        with pytest.raises(
            UsageError, match=r"keeps full vectors .* export it without --coarse-only"
        ):
            reindex.begin(store, replace(WANTED, keep_full="until-synced"))
        assert reindex.interrupted(store) is None


def wanted_of_enrolled() -> reindex.Reindexing:
    return reindex.Reindexing(replace(NEW, full_dim=FULL_DIM), RULE, "until-synced")


def test_what_waits_is_sent_with_the_new_vectors_and_the_cursor_stays(path: Path) -> None:
    wanted = wanted_of_enrolled()
    with open_enrolled(path, cursor=7) as store:
        store.put([full_entry("a"), full_entry("sent")])
        store.forget_full(["sent"])  # a server has them
        reindex.begin(store, wanted)
        for key, document in reindex.pending(store, limit=9, after=0):
            codes, full = np.ones((1, 2), np.int8), np.ones((1, FULL_DIM), np.float32)
            reindex.stage(store, wanted, [(key, Entry(document, [(0, 9)], codes, full))])
        assert reindex.finish(store)
        enrollment = replica.enrollment_of(store)
        assert enrollment is not None
        assert enrollment.cursor == 7  # every document has its codes
        sent = {one.id: one.vectors for one in replica.outgoing(store, limit=9)}
        assert sent["sent"] is None  # forgotten vectors stay forgotten
        assert sent["a"] is not None
        assert sent["a"].tolist() == [[1.0] * FULL_DIM]
        assert check(store).sound


def test_store_that_lacks_codes_of_other_devices_pulls_everything_again(path: Path) -> None:
    wanted = wanted_of_enrolled()
    with open_enrolled(path, cursor=7) as store:
        store.put([full_entry("theirs", "")])
        store.forget_full(["theirs"])
        reindex.begin(store, wanted)
        ((key, document),) = reindex.pending(store, limit=9, after=0)
        none = Entry(document, [], np.empty((0, 2), np.int8), np.empty((0, FULL_DIM), np.float32))
        reindex.stage(store, wanted, [(key, none)])
        assert reindex.finish(store)
        enrollment = replica.enrollment_of(store)
        assert enrollment is not None
        assert enrollment.cursor == 0


def test_kept_vectors_stay_as_they_are(path: Path) -> None:
    wanted = wanted_of_enrolled()
    with open_enrolled(path) as store:
        store.put([full_entry("a"), full_entry("b"), full_entry("c")])
        reindex.begin(store, wanted)
        documents = dict(reindex.pending(store, limit=9, after=0))
        there = reindex.passages(store, list(documents))
        assert all(
            one.full is not None and one.full.shape == (1, FULL_DIM) for one in there.values()
        )
        store.forget_full(["b"])
        store.put([full_entry("c", "some text", passages=2)])  # other passages of the same text
        rows = [
            (key, Entry(one, [(0, 9)], np.ones((1, 2), np.int8))) for key, one in documents.items()
        ]
        reindex.stage(store, wanted, rows, made_of=there)
        assert reindex.progress(store) == (2, 3)
        (again,) = reindex.pending(store, limit=9, after=0)
        assert again[1].id == "c"
        new = Entry(
            again[1], [(0, 9)], np.ones((1, 2), np.int8), np.ones((1, FULL_DIM), np.float32)
        )
        reindex.stage(store, wanted, [(again[0], new)])
        assert reindex.finish(store)
        with store.reading() as view:
            fulls = view.fulls(list(store.keys(["a", "b", "c"])))
        values = {store.ids([key])[key]: full.tolist() for key, full in fulls.items()}
        assert values == {"a": [[0.5] * FULL_DIM], "c": [[1.0] * FULL_DIM]}
        assert check(store).sound


def test_space_that_a_change_takes_is_told_before_it_begins(path: Path) -> None:
    """The estimate is above what the files grow by, and not many times as much."""
    binding = replace(BINDING, dim=256, full_dim=384)
    wanted = reindex.Reindexing(replace(NEW, dim=256, full_dim=384), RULE, "fp16")
    rng = np.random.default_rng(0)
    with Store.create(path, binding, RULE, keep_full="fp16") as store:
        for first in range(0, 3000, 500):
            some = range(first, first + 500)
            codes = rng.integers(-99, 99, (len(some), 256), dtype=np.int8)
            fulls = rng.normal(size=(len(some), 384)).astype(np.float32)
            store.put(
                [
                    Entry(
                        Document(str(n), f"text {n}"), [(0, 4)], codes[i : i + 1], fulls[i : i + 1]
                    )
                    for i, n in enumerate(some)
                ]
            )
        before = sum(stats(store).bytes.values())
        needed = reindex.space_needed(store, wanted)
        reindex.begin(store, wanted)
        while batch := reindex.pending(store, limit=500, after=0):
            codes = rng.integers(-99, 99, (len(batch), 256), dtype=np.int8)
            fulls = rng.normal(size=(len(batch), 384)).astype(np.float32)
            rows = [
                (key, Entry(one, [(0, 4)], codes[i : i + 1], fulls[i : i + 1]))
                for i, (key, one) in enumerate(batch)
            ]
            reindex.stage(store, wanted, rows)
        assert reindex.finish(store)
        grown = sum(stats(store).bytes.values()) - before  # the log has its largest size
        assert 0.4 * needed < grown < needed
