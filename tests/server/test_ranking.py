"""Cosines of full vectors, against NumPy, in both databases."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl_server.errors import SpaceMismatchError, WrongDimensionsError
from edge_mrl_server.storage import ranking
from tests.server.conftest import Place
from tests.server.test_pushes import Sender, another
from tests.support.serving import SPACE, item, units

#: Stored vectors are float16 and of unit length to 0.1 %; scores are rounded to six places.
TOLERANCE = 2e-3


@pytest.fixture
def sender(place: Place) -> Sender:
    return another(place, place.tenant())


def query(seed: int = 99) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = units(1, seed=seed)[0].astype(np.float32)
    return vector


def test_scores_are_cosines_of_the_best_passage_in_the_order_asked(sender: Sender) -> None:
    sent = [item(f"d{n}", n=1 + n % 3, seed=n) for n in range(12)]
    sender.push(*sent, item("empty", n=0), item("gone", deleted=True))
    names = ["d7", "nobody", "d0", "empty", "d7", "gone", "d11"]
    scores = ranking.rerank(sender.database, sender.principal.tenant, SPACE, names, query())
    truth = {i.id: float((i.vectors.astype(np.float32) @ query()).max()) for i in sent}
    for name, score in zip(names, scores, strict=True):
        assert score == (pytest.approx(truth[name], abs=TOLERANCE) if name in truth else None)


def test_search_ranks_as_comparing_all_does(sender: Sender) -> None:
    sent = [item(f"d{n:02}", n=1 + n % 2, seed=n, text=f"t{n}", metadata={"n": n},
                 spans=[(0, 1)] * (1 + n % 2)) for n in range(40)]  # fmt: skip
    sender.push(*sent)
    truth = {i.id: float((i.vectors.astype(np.float32) @ query()).max()) for i in sent}
    best = sorted(truth, key=lambda name: (-truth[name], name))[:6]
    tenant = sender.principal.tenant
    hits = ranking.search(sender.database, tenant, SPACE, query(), 6, text=True)
    assert [hit["id"] for hit in hits] == best
    assert [hit["score"] for hit in hits] == sorted((h["score"] for h in hits), reverse=True)
    number = int(best[0][1:])
    assert (hits[0]["text"], hits[0]["meta"]) == (f"t{number}", {"n": number})
    plain = ranking.search(sender.database, tenant, SPACE, query(), 1, text=False)
    assert plain == [{"id": best[0], "score": hits[0]["score"]}]


def test_tenant_without_vectors_has_no_hits(sender: Sender) -> None:
    tenant = sender.principal.tenant
    assert ranking.search(sender.database, tenant, SPACE, query(), 5, text=True) == []
    assert ranking.rerank(sender.database, tenant, SPACE, ["a"], query()) == [None]


def test_query_of_another_space_or_other_dimensions_is_rejected(sender: Sender) -> None:
    sender.push(item("a"))
    tenant, short = sender.principal.tenant, units(1, 4)[0].astype(np.float32)
    with pytest.raises(SpaceMismatchError):
        ranking.rerank(sender.database, tenant, "6" * 64, ["a"], query())
    with pytest.raises(SpaceMismatchError):
        ranking.search(sender.database, tenant, "6" * 64, query(), 1, text=False)
    with pytest.raises(WrongDimensionsError, match="4 dimensions, expected 8"):
        ranking.rerank(sender.database, tenant, SPACE, ["a"], short)
    with pytest.raises(WrongDimensionsError):
        ranking.search(sender.database, tenant, SPACE, short, 1, text=False)


def test_scores_are_the_same_in_small_groups(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.push(*[item(f"d{n}", n=1 + n % 3, seed=n) for n in range(12)])
    names = [f"d{n}" for n in range(12)]
    ask = (sender.database, sender.principal.tenant, SPACE, names, query())
    whole = ranking.rerank(*ask)
    monkeypatch.setattr("edge_mrl_server.storage.engines.sqlite.SCORED_PASSAGES", 4)
    assert ranking.rerank(*ask) == whole


def test_answer_of_a_search_has_so_many_bytes_of_text_at_most(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender.push(*[item(f"d{n}", seed=n, text="x" * 100, spans=[(0, 1)]) for n in range(8)])
    monkeypatch.setattr(ranking, "MAX_TEXT_BYTES", 350)
    tenant = sender.principal.tenant
    hits = ranking.search(sender.database, tenant, SPACE, query(), 8, text=True)
    assert ["text" in hit for hit in hits] == [True] * 3 + [False] * 5
    monkeypatch.setattr(ranking, "MAX_TEXT_BYTES", 1)
    hits = ranking.search(sender.database, tenant, SPACE, query(), 2, text=True)
    assert ["text" in hit for hit in hits] == [True, False]
