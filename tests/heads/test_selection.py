"""How heads are scored and chosen: what is held out, agreement, margins."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.bundle.head import derive_codes
from edge_mrl.codes import plain_packing
from edge_mrl.codes.packing import normalize
from edge_mrl.heads.selection import (
    MARGIN,
    MOST_HELD_OUT,
    Excerpts,
    HeadTrial,
    Pairs,
    agreement,
    best_kind,
    found_again,
    nested_sizes,
    split_held_out,
    spread,
)

Float = NDArray[np.float32]


def texts(count: int, seed: int = 0, width: int = 8) -> Float:
    """float32[count, width], unit length, at random."""
    return normalize(np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32))


def near(full: Float, rows: NDArray[np.intp], noise: float = 0.2) -> Float:
    """Vectors close to some rows, as excerpts are to their passages."""
    moved = full[rows] + noise * texts(len(rows), seed=9, width=full.shape[1])
    return normalize(moved.astype(np.float32))


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (100, 20), (5_000, 1_000), (9_000, 1_000)])
def test_a_fifth_is_held_out_and_never_more_than_it_takes(count: int, held_out: int) -> None:
    seen, unseen = split_held_out(count)
    assert len(unseen) == held_out
    assert sorted([*seen, *unseen]) == list(range(count))
    assert (np.diff(seen) > 0).all()
    assert (np.diff(unseen) > 0).all()
    again = split_held_out(count)
    assert (again[0] == seen).all()
    assert (again[1] == unseen).all()


def test_held_out_rows_are_spread_and_not_the_last_ones() -> None:
    _, unseen = split_held_out(1_000)
    assert unseen[0] < 50
    assert unseen[-1] > 950


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({"own": 0.5, "pca": 0.53, "linear": 0.54}, "pca"),  # linear is better by less than that
        ({"own": 0.5, "pca": 0.52, "linear": 0.55}, "linear"),
        ({"own": 0.5, "pca": 0.51, "linear": 0.515}, "own"),
        ({"own": 0.5, "pca": 0.4}, "own"),
        ({"own": 0.0, "pca": 0.02}, "own"),  # exactly the margin is not more than it
    ],
)
def test_less_simple_head_must_be_better_by_the_margin(scores: dict[str, float], best: str) -> None:
    assert best_kind(scores, 0.02) == best


@pytest.mark.parametrize(
    ("dim", "sizes"),
    [(128, (8, 16, 32, 64, 128)), (96, (12, 24, 48, 96)), (8, (8,)), (15, (15,)), (20, (10, 20))],
)
def test_prefix_sizes_are_the_halves_down_to_eight(dim: int, sizes: tuple[int, ...]) -> None:
    assert nested_sizes(dim) == sizes


def test_spread_takes_both_ends_and_what_is_between() -> None:
    assert spread(range(101), 5) == [0, 25, 50, 75, 100]
    assert spread("abc", 9) == ["a", "b", "c"]
    assert spread([], 3) == []


def test_agreement_is_what_it_says() -> None:
    full = normalize(np.random.default_rng(0).standard_normal((40, 8), dtype=np.float32))
    exact = derive_codes(full, None, dim=8)
    assert agreement(full, exact, np.arange(40), top=5) > 0.9
    half = exact.copy()
    half[:, 1:] = 0  # one dimension: all others are alike, forwards or backwards
    queries = np.arange(10)
    shares = []
    for row in queries:
        order = np.argsort(-(full[row] @ full.T), kind="stable")
        near = set(order[order != row][:5].tolist())
        same = np.where(np.sign(half[row, 0]) == np.sign(half[:, 0]), 1.0, -1.0)
        same[row] = -9
        found = set(np.argsort(-same, kind="stable")[:5].tolist())
        shares.append(len(near & found) / 5)
    assert agreement(full, half, queries, top=5) == pytest.approx(np.mean(shares))


def test_queries_need_not_be_passages() -> None:
    full, queries = texts(60), texts(20, seed=3)
    codes, query_codes = (derive_codes(v, None, dim=8) for v in (full, queries))
    assert found_again(queries, query_codes, full, codes, top=5) > 0.9
    assert found_again(queries, query_codes, full, np.roll(codes, 1, axis=0), top=5) < 0.5


def test_excerpts_of_held_out_passages_are_not_fitted_on() -> None:
    full = texts(100)
    origins = np.repeat(np.arange(100), 2)
    excerpts = Excerpts(near(full, origins), origins)
    trial = HeadTrial.of(full, (8,), excerpts=excerpts)
    assert len(trial.held_out) == 20
    assert len(trial.passages.vectors) == 80
    assert len(trial.passages.queries) == 160
    # The rows of the fitted passages, as the fit counts them: each query is nearest to its own.
    found = (trial.passages.queries @ trial.passages.vectors.T).argmax(axis=1)
    assert (found == trial.passages.answers).mean() > 0.9
    facts = trial.facts()
    assert (facts["excerpts_fitted"], facts["passages_held_out"]) == (200, 20)
    whole = trial.on_all()
    assert (len(whole.passages.vectors), len(whole.passages.queries)) == (100, 200)


def test_score_is_one_for_the_full_vectors_and_less_for_a_poor_head() -> None:
    full = texts(200, width=16)
    origins = np.arange(200)
    trial = HeadTrial.of(full, (16,), excerpts=Excerpts(near(full, origins, 0.5), origins))
    one = np.eye(16, dtype=np.float32)
    first = np.zeros((16, 16), np.float32)
    first[0, 0] = 1
    assert trial.score(one) == pytest.approx(1, abs=0.03)  # int8 codes round
    assert trial.score(None) == trial.score(one)
    assert trial.score(first) < 0.5
    assert trial.agreement(first) < trial.agreement(one)
    assert "40 held-out excerpts" in trial.measured


def test_score_of_stored_codes_is_that_of_their_levels() -> None:
    full = texts(200, width=16)
    origins = np.arange(200)
    trial = HeadTrial.of(full, (16,), excerpts=Excerpts(near(full, origins, 0.5), origins))
    scores = [
        trial.score(None, plain_packing(kind, 16, scale=1)) for kind in ("int8", "int4", "1bit")
    ]
    assert scores[0] == trial.score(None)
    assert scores[0] > scores[1] > scores[2] > 0.3
    assert "that int4 codes keep" in trial.measured_of("int4")
    # By hand: the int8 code of each excerpt among signs.
    exact, codes = full[trial.held_out], derive_codes(full, None, dim=16)
    signs = np.where(codes > 0, 1, -1)
    ranks = codes[trial.held_out].astype(int) @ signs.T
    ranks[np.arange(40), trial.held_out] = ranks.min() - 1
    nearest = exact @ full.T
    nearest[np.arange(40), trial.held_out] = -2
    found = [
        len({*np.argsort(-a, kind="stable")[:10]} & {*np.argsort(-b, kind="stable")[:10]}) / 10
        for a, b in zip(ranks, nearest, strict=True)
    ]
    packing = plain_packing("1bit", 16, scale=1)
    assert trial.agreement(None, packing) == pytest.approx(np.mean(found))


def test_score_without_excerpts_is_the_agreement() -> None:
    trial = HeadTrial.of(texts(100), (8,))
    assert trial.score(None) == trial.agreement(None)
    assert trial.measured == trial.measured_agreement


def test_pairs_hold_queries_out_and_no_passage() -> None:
    full = texts(50)
    fitted, held_out = split_held_out(50)
    rows = np.arange(50)
    pairs = Pairs(near(full, rows), rows, fitted, held_out)
    trial = HeadTrial.of(full, (8,), pairs=pairs)
    assert len(trial.held_out) == 0
    assert len(trial.passages.vectors) == 50
    assert len(trial.passages.queries) == len(fitted) == 40
    assert "own documents of 10 held-out queries" in trial.measured
    assert trial.facts()["pairs_held_out"] == 10
    assert len(trial.on_all().passages.queries) == 50
    poor = np.zeros((8, 8), np.float32)
    poor[0, 0] = 1
    assert trial.score(None) == pytest.approx(1, abs=0.1)
    assert trial.score(poor) < 0.7


def test_margin_grows_where_few_texts_are_held_out() -> None:
    assert HeadTrial.of(texts(100), (8,)).margin == pytest.approx(MARGIN * MOST_HELD_OUT / 20)
    assert HeadTrial.of(texts(6_000), (8,)).margin == MARGIN
