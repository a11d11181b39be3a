"""The core in Kotlin gives the golden answers that bind every runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_mrl.search import SearchOptions
from tests.android.probe import Probe
from tests.android.stores import KotlinStore
from tests.android.test_search import _search
from tests.golden.make_texts import (
    BUNDLES,
    DOCUMENTS,
    GOLDEN,
    LONG_TEXTS,
    QUERIES,
    SEARCHES,
    TEXTS,
    binding,
    codes,
    digest,
    entries,
    rule,
    texts,
)

pytestmark = pytest.mark.test
KEPT = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", BUNDLES)
def test_tokens_and_passages(kotlin: Probe, name: str) -> None:
    kotlin("encoder.open", path=str(GOLDEN.parent / name))
    made = texts(1, TEXTS, 12)
    assert digest(kotlin("encoder.ids", texts=made, kind="document")) == KEPT["tokens"][name]
    sent = {"max_tokens": rule.max_tokens, "overlap": rule.overlap}
    found = kotlin("encoder.passages", texts=texts(2, LONG_TEXTS, 300), **sent)
    spans = ([i for span in split for i in span] for split, _ in found)
    assert digest(spans) == KEPT["passages"][name]


def test_searches(tmp_path: Path, kotlin: Probe) -> None:
    store = KotlinStore(kotlin, tmp_path / "s.db")
    store.create(binding())
    store.put(entries())
    store("delete", ids=[f"d{number}" for number in range(0, DOCUMENTS, 11)])
    kept = iter(KEPT["searches"])
    for query, code in zip(QUERIES, codes(5, len(QUERIES)), strict=True):
        for options in SEARCHES:
            words_alone = options.get("mode") == "keyword"
            found = _search(
                store, SearchOptions(**options), None if words_alone else code, query=query
            )
            wanted = next(kept)
            assert [hit["id"] for hit in found["hits"]] == [name for name, _ in wanted]
            scores = [score for _, score in wanted]
            assert [hit["score"] for hit in found["hits"]] == pytest.approx(scores, rel=1e-12)
    store("close")
