"""Tokens, passages and searches are those that every runtime is bound to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.make_texts import GOLDEN, digest, make

pytestmark = pytest.mark.test


def _scores(searches: list[Any]) -> list[float]:
    return [score for hits in searches for _, score in hits]


def test_golden_texts_are_read_as_before() -> None:
    kept, made = json.loads(GOLDEN.read_text(encoding="utf-8")), make()
    for name in ("tokens", "passages"):
        assert made[name] == kept[name]
    ids = [[[name for name, _ in hits] for hits in some["searches"]] for some in (made, kept)]
    assert ids[0] == ids[1]
    # BM25 has a logarithm, whose last bit is the library's.
    assert _scores(made["searches"]) == pytest.approx(_scores(kept["searches"]), rel=1e-12)
    assert sum(map(len, ids[1])) > 200


def test_one_other_token_changes_the_digest() -> None:
    rows = [[1, 2, 3], [], [4]]
    assert len({digest(rows), digest([[1, 2, 3, 4]]), digest([[1, 2, 3], [4], []])}) == 3
