"""Heads fitted on vectors with a known structure."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.bundle.head import derive_codes, head_inputs
from edge_mrl.codes.packing import normalize
from edge_mrl.heads.fit import Batch, Passages, fit_linear, fit_rotation, pca, slopes, steps
from edge_mrl.heads.selection import agreement, found_again

pytestmark = pytest.mark.test

Float = NDArray[np.float32]
#: Columns that float32 holds orthonormal, after some hundred products.
ORTHONORMAL = 1e-5
WIDTH, DIM = 32, 8


def clustered(count: int = 1500, seed: int = 0) -> Float:
    """40 clusters far apart in 12 directions, and small differences within them in 12 others.

    Near neighbours lie in one cluster. PCA spends its directions on the clusters, which are told apart
    by few of them.
    """
    chance = np.random.default_rng(5)
    basis = np.linalg.qr(chance.standard_normal((WIDTH, WIDTH)))[0]
    centres = chance.standard_normal((40, 12))
    chance = np.random.default_rng(seed)
    values = np.zeros((count, WIDTH))
    values[:, :12] = centres[chance.integers(0, 40, count)]
    values[:, 12:24] = 0.5 * chance.standard_normal((count, 12)) * np.linspace(1.5, 0.5, 12)
    values[:, 24:] = 0.05 * chance.standard_normal((count, 8))
    return normalize((values @ basis).astype(np.float32))


@pytest.fixture(scope="module")
def vectors() -> Float:
    return clustered()


@pytest.fixture(scope="module")
def passages(vectors: Float) -> Passages:
    return Passages.of(vectors[:1200])


@pytest.fixture(scope="module")
def rotation(passages: Passages) -> Float:
    return fit_rotation(passages, (2, 4, DIM))


def kept(vectors: Float, matrix: Float | None, dim: int = DIM) -> float:
    """Agreement of the held-out rows, which no fit has seen."""
    codes = derive_codes(vectors, matrix, dim=dim)
    return agreement(vectors, codes, np.arange(1200, len(vectors)))


def cosines(vectors: Float, matrix: Float) -> Float:
    unit = normalize(vectors @ matrix)
    return unit @ unit.T


def objective(passages: Passages, matrix: Float, sizes: tuple[int, ...]) -> float:
    """What a fit lowers, for 200 passages among all."""
    anchors = passages.vectors[:200]
    powers = anchors @ passages.vectors.T / passages.temperature
    powers[np.arange(200), np.arange(200)] = -np.inf
    target = np.exp(powers - powers.max(axis=1, keepdims=True))
    target /= target.sum(axis=1, keepdims=True)
    batch = Batch(anchors, passages.vectors, target, np.arange(200), passages.temperature)
    return slopes(batch.through(matrix), sizes)[0]


def test_excerpts_are_kept_in_order_where_they_are_given() -> None:
    # Queries differ in 8 directions that all passages share: a fit on passages alone drops those.
    chance = np.random.default_rng(7)
    basis = np.linalg.qr(chance.standard_normal((WIDTH, WIDTH)))[0]
    wide, narrow = np.r_[0:16], np.r_[16:24]

    def texts(count: int, places: NDArray[np.intp]) -> Float:
        values = np.zeros((count, WIDTH))
        values[:, wide] = 0.3 * chance.standard_normal((count, 16))
        values[:, places] += chance.standard_normal((count, len(places)))
        return normalize((values @ basis).astype(np.float32))

    passages = texts(900, np.r_[0:24])
    asked, held_out = texts(600, narrow), texts(300, narrow)
    kept_by = []
    for known in (Passages.of(passages), Passages.of(passages, asked)):
        matrix = fit_linear(known, (DIM,))
        codes = (derive_codes(v, matrix, dim=DIM) for v in (held_out, passages))
        query_codes, passage_codes = codes
        kept_by.append(found_again(held_out, query_codes, passages, passage_codes))
    assert kept_by[1] > 1.4 * kept_by[0]


def test_slopes_are_those_of_differences() -> None:
    chance = np.random.default_rng(1)
    anchors, rows = chance.standard_normal((4, 6)), chance.standard_normal((7, 6))
    target = chance.random((4, 7))
    own = np.array([0, 2, 4, 6])
    target[np.arange(4), own] = 0
    target /= target.sum(axis=1, keepdims=True)

    def loss() -> float:
        return slopes(Batch(anchors, rows, target, own, 0.1), (2, 6))[0]  # type: ignore[arg-type]

    _, by_anchor, by_row = slopes(Batch(anchors, rows, target, own, 0.1), (2, 6))  # type: ignore[arg-type]
    step = 1e-5
    for values, slope in ((anchors, by_anchor), (rows, by_row)):
        for place in np.ndindex(values.shape):
            values[place] += step
            above = loss()
            values[place] -= 2 * step
            below = loss()
            values[place] += step
            assert slope[place] == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-5)


def test_rotation_has_orthonormal_columns(rotation: Float) -> None:
    assert (rotation.shape, rotation.dtype) == ((WIDTH, DIM), np.float32)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(DIM), atol=ORTHONORMAL)


def test_rotation_of_all_dimensions_changes_no_cosine(passages: Passages) -> None:
    matrix = fit_rotation(passages, (8, WIDTH))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(WIDTH), atol=ORTHONORMAL)
    exact = passages.vectors @ passages.vectors.T
    np.testing.assert_allclose(cosines(passages.vectors, matrix), exact, atol=1e-4)


@pytest.mark.parametrize("fit", [fit_rotation, fit_linear])
def test_equal_seeds_give_equal_heads(fit: object, passages: Passages) -> None:
    one, two, other = (fit(passages, (4, DIM), seed=seed) for seed in (3, 3, 4))  # type: ignore[operator]
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_fit_is_better_than_the_prefix_and_than_pca(
    vectors: Float, passages: Passages, rotation: Float
) -> None:
    prefix, best = kept(vectors, None), kept(vectors, pca(passages.vectors, DIM))
    linear = kept(vectors, fit_linear(passages, (2, 4, DIM)))
    assert best > prefix + 0.1
    assert kept(vectors, rotation) > best + 0.05
    assert linear > best + 0.05


def test_shorter_prefixes_cost_the_whole_code_nothing(
    vectors: Float, passages: Passages, rotation: Float
) -> None:
    alone = fit_rotation(passages, (DIM,))
    np.testing.assert_allclose(cosines(vectors, rotation), cosines(vectors, alone), atol=1e-3)
    assert objective(passages, rotation, (2, 4)) < objective(passages, alone, (2, 4)) - 0.01


def test_each_step_is_reported(passages: Passages) -> None:
    done: list[None] = []
    fit_linear(passages, (DIM,), advance=lambda: done.append(None))
    assert len(done) == sum(steps(WIDTH, DIM, len(passages.vectors)))


@pytest.mark.parametrize("centre", [False, True])
def test_pca_is_ordered_and_repeatable(centre: bool, vectors: Float) -> None:
    moved = vectors + np.float32(2)  # far from the origin, so that centring matters
    matrix = pca(moved, DIM, centre=centre)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(DIM), atol=ORTHONORMAL)
    centred = moved - moved.mean(axis=0) if centre else moved
    powers = np.square(centred.astype(np.float64) @ matrix).sum(axis=0)
    assert (np.diff(powers) <= 0).all()
    alike = abs(matrix[:, 0] @ (np.ones(WIDTH, np.float32) / np.sqrt(WIDTH)))
    assert (alike < 0.9) if centre else (alike > 0.99)


def test_fewer_passages_than_dimensions_still_give_a_head(vectors: Float) -> None:
    few = Passages.of(vectors[:12])
    matrix = fit_rotation(few, (8, 16))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(16), atol=ORTHONORMAL)


def test_layer_norm_fits_centred_vectors(vectors: Float) -> None:
    offset = normalize(vectors + np.float32(0.3))
    inputs = head_inputs(offset, layer_norm=True)
    matrix = fit_rotation(Passages.of(inputs[:1200]), (DIM,))
    held_out = np.arange(1200, len(offset))
    codes = derive_codes(offset, matrix, dim=DIM, layer_norm=True)
    prefix = derive_codes(offset, None, dim=DIM, layer_norm=True)
    assert agreement(offset, codes, held_out) > agreement(offset, prefix, held_out) + 0.1


def test_pairs_teach_what_the_full_vectors_do_not_know() -> None:
    # Queries and documents share 12 directions, and each differ at random in 12 stronger ones.
    chance = np.random.default_rng(2)
    meaning = chance.standard_normal((900, 12))
    documents, queries = (
        normalize(np.hstack([meaning, 1.5 * chance.standard_normal((900, 12))]).astype(np.float32))
        for _ in range(2)
    )
    fitted = np.arange(700)
    known = Passages.of(documents, queries[fitted], fitted)
    taught = fit_linear(known, (8, 16), own_share=0.5, queries_share=1)
    untaught = fit_linear(known, (8, 16), own_share=0)

    def first(matrix: Float) -> float:
        found = normalize(queries[700:] @ matrix) @ normalize(documents @ matrix).T
        return float((found.argmax(axis=1) == np.arange(700, 900)).mean())

    assert first(taught) > first(untaught) + 0.1


def test_queries_without_a_passage_of_their_own_teach_order_alone(passages: Passages) -> None:
    asked = passages.vectors[:300]
    unknown = Passages.of(passages.vectors, asked)
    assert (unknown.answers == -1).all()
    some = Passages.of(passages.vectors, asked, np.where(np.arange(300) % 2, 7, -1))
    plain, none, taught = (
        fit_linear(known, (4, DIM), own_share=share)
        for known, share in ((unknown, 0.0), (unknown, 0.5), (some, 0.5))
    )
    assert plain.tobytes() == none.tobytes()
    assert plain.tobytes() != taught.tobytes()


def test_more_passages_take_more_steps_up_to_twice_as_many() -> None:
    counts = [sum(steps(384, 128, passages)) for passages in (100, 5_000, 7_500, 10_000, 10**6)]
    assert counts == [1000, 1000, 1500, 2000, 2000]
