"""Fitting heads in numpy: matrices after which a short prefix ranks texts as the full vector does.

The objective is that of Matryoshka representation learning (arXiv 2205.13147), without labels
(Matryoshka-Adaptor, arXiv 2407.20243). For each anchor, the softmax over its cosines to passages,
computed from the prefix, should equal that of the full vectors. So it compares the order of near
neighbours, which is what a search shows. Anchors are passages and, if given, short texts that stand for
queries, because queries lie elsewhere in the space than passages. Where the passage that answers a query
is known, as for an excerpt of it, a linear head also learns to find that passage (an inverse cloze task,
arXiv 1906.00300). This tells it what the text at hand asks of the model, which full vectors alone do not
say.

A fit has two steps. The first finds the best ``dim`` directions for the code as a whole. The second
rotates them within their span, which changes no cosine of whole codes, so that each shorter prefix is as
good as it can be. So shorter prefixes cost the whole code nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes import normalize

__all__ = [
    "OWN_SHARE",
    "PAIRS_SHARE",
    "QUERIES_SHARE",
    "Passages",
    "fit_linear",
    "fit_rotation",
    "pca",
    "slopes",
    "steps",
]

Float = NDArray[np.float32]
Rows = NDArray[np.intp]
Advance = Callable[[], None]

#: Steps of the search for directions and of their rotation, for matrices of FULL_SIZE values or more and
#: up to FULL_PASSAGES passages. Smaller matrices need fewer steps, more passages more: for 10,000
#: passages of four kinds, 128 dimensions kept 95.6 % of nDCG@10 with 800 steps and 96.0 % with 2,400.
STEPS, FULL_SIZE, FULL_PASSAGES = (800, 200), 12_288, 5_000
LEAST_SHARE, MOST_SHARE = 0.15, 2.0
#: Adam's rate per element at the first step; it falls to 0 along a half cosine. With 800 steps, the
#: results on held-out text were better than with 400 steps of 1e-3 on every set that was tried.
RATE = 5e-3
#: The softmax's temperature is the standard deviation of the passages' cosines, within these bounds,
#: because some models give all texts nearly the same direction. A higher one looks too far down the list:
#: with 0.15, 0.1, 0.07 and 0.05, 64 dimensions of all-MiniLM-L6-v2 kept 89.1, 90.8, 91.9 and 92.0 % of
#: nDCG@10 over four sets, one of them unused until then, and 128 kept 97.5, 98.0, 98.0 and 97.8 %.
TEMPERATURES = (0.01, 0.07)
#: In one step: anchors, near neighbours of each anchor, and passages at random. Twice as many neighbours
#: and random passages took 50 % longer, and the gain was within chance.
ANCHORS, NEAR, RANDOM = 96, 8, 256
#: Share of the anchors that are short texts, if there are any: a third was no worse than a half for
#: rotations, and better for linear heads.
QUERIES_SHARE = 1 / 3
#: The row of an anchor that is not among the passages.
NONE = -1
#: The share of a query's target that is its own passage, and not the full vectors' order: for excerpts,
#: and for queries that people wrote. With 0.1 to 0.25 for excerpts, 128 dimensions of all-MiniLM-L6-v2
#: kept 98.9 to 99.3 % of nDCG@10 over four sets, with 0.5 97.7 %, and with 0 98.5 %.
OWN_SHARE, PAIRS_SHARE = 0.2, 0.5
TINY = np.float32(1e-9)
#: A share that a softmax rounds to 0 counts as this.
SMALLEST = np.float32(1e-37)


@dataclass(frozen=True, slots=True, eq=False)
class Passages:
    """Text to fit on, as vectors.

    Attributes:
        vectors: float32[n, D], what the head reads, at unit length.
        near: intp[n, k], the rows of each passage's nearest others.
        temperature: Of the softmax over cosines.
        queries: float32[m, D], short texts, at unit length; m may be 0.
        near_queries: intp[m, k], the rows of the passages nearest to each.
        answers: intp[m], the row of each query's own passage, or -1.
    """

    vectors: Float
    near: Rows
    temperature: float
    queries: Float
    near_queries: Rows
    answers: Rows

    @classmethod
    def of(
        cls, inputs: Float, queries: Float | None = None, answers: Rows | None = None
    ) -> Passages:
        """Find neighbours (n * (n + m) * D operations: some seconds for 10,000 passages).

        Args:
            inputs: float32[n, D], what the head reads: full vectors, centred or not.
            queries: float32[m, D], the same for texts that stand for queries; None without any.
            answers: intp[m], the row of each query's own passage, or -1 (default: -1 for all).
        """
        vectors = normalize(inputs)
        short = vectors[:0] if queries is None else normalize(queries)
        some = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), 500)).astype(int)]
        spread = float((some @ some.T)[np.triu_indices(len(some), 1)].std())
        temperature = float(np.clip(spread, *TEMPERATURES))
        count = min(NEAR, len(vectors) - 1)
        own = np.arange(len(vectors))
        near = _nearest(vectors, vectors, count, own), _nearest(short, vectors, count)
        if answers is None:
            answers = np.full(len(short), NONE)
        return cls(vectors, near[0], temperature, short, near[1], answers)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The vectors of one step.

    Attributes:
        anchors: float32[a, D], what the head reads of the anchors.
        rows: float32[r, D], what the head reads of the passages that they are compared with.
        target: float32[a, r], the softmax that the codes should have; each row sums to 1.
        own: intp[a], the row of each anchor itself, which is left out, or -1.
        temperature: Temperature of the softmax over cosines.
    """

    anchors: Float
    rows: Float
    target: Float
    own: Rows
    temperature: float

    def through(self, matrix: Float) -> Batch:
        """The same vectors, multiplied by a matrix."""
        return replace(self, anchors=self.anchors @ matrix, rows=self.rows @ matrix)


def steps(width: int, dim: int, passages: int) -> tuple[int, int]:
    """Numbers of steps of a fit: of the search for directions, and of their rotation.

    Args:
        width: Dimensions that the head reads.
        dim: Dimensions of the code.
        passages: Number of passages that it is fitted on.
    """
    share = min(1.0, max(width * dim / FULL_SIZE, LEAST_SHARE))
    share *= min(max(passages / FULL_PASSAGES, 1.0), MOST_SHARE)
    return round(STEPS[0] * share), round(STEPS[1] * share)


def pca(vectors: Float, dim: int, *, centre: bool = False) -> Float:
    """The principal directions of vectors.

    Args:
        vectors: float32[n, D].
        dim: Number of directions.
        centre: Subtract the mean first, so that the directions are those of the differences.

    Returns:
        float32[D, dim], orthonormal columns, the direction with the largest variance first.
    """
    values = vectors.astype(np.float64)
    if centre:
        values -= values.mean(axis=0)
    _, directions = np.linalg.eigh(values.T @ values)
    best = directions[:, ::-1][:, :dim]
    # An eigenvector may point either way: its largest element is made positive.
    signs = np.sign(best[np.abs(best).argmax(axis=0), np.arange(dim)])
    return np.ascontiguousarray(best * signs, dtype=np.float32)


def fit_rotation(
    passages: Passages, nested: Sequence[int], *, seed: int = 0, advance: Advance = lambda: None
) -> Float:
    """Fit a matrix with orthonormal columns, on the Stiefel manifold.

    Args:
        passages: Text to fit on.
        nested: Prefix sizes, ascending; the last is ``dim``.
        seed: Seed of the batches; the same seed gives the same matrix.
        advance: Called after each of ``sum(steps(D, dim, n))`` steps.

    Returns:
        float32[D, dim].
    """
    batches = _batches(passages, np.random.default_rng(seed))
    matrix = pca(passages.vectors, nested[-1])
    count = _count(matrix, passages)
    matrix = _search(matrix, batches, nested[-1:], count=count, orthogonal=True, advance=advance)
    return _rotated_for_prefixes(matrix, passages, batches, nested, advance)


def fit_linear(
    passages: Passages,
    nested: Sequence[int],
    *,
    own_share: float = OWN_SHARE,
    queries_share: float = QUERIES_SHARE,
    seed: int = 0,
    advance: Advance = lambda: None,
) -> Float:
    """Fit any matrix: it may weigh directions, and brings queries near their own passages.

    Args:
        passages: Text to fit on.
        nested: Prefix sizes, ascending; the last is ``dim``.
        own_share: Share of a query's target that is its own passage, from 0 to 1; the rest is the full
            vectors' order.
        queries_share: Share of the anchors that are queries, if there are so many; from 0 to 1.
        seed: Seed of the batches; the same seed gives the same matrix.
        advance: Called after each of ``sum(steps(D, dim, n))`` steps.

    Returns:
        float32[D, dim].
    """
    batches = _batches(passages, np.random.default_rng(seed), queries_share, own_share)
    matrix = pca(passages.vectors, nested[-1])
    count = _count(matrix, passages)
    matrix = _search(matrix, batches, nested[-1:], count=count, advance=advance)
    return _rotated_for_prefixes(matrix, passages, batches, nested, advance)


def slopes(batch: Batch, sizes: Sequence[int]) -> tuple[float, Float, Float]:
    """The objective, and its gradient by the vectors that the head gives.

    For each prefix size, it is the cross entropy between ``target`` and the softmax of the prefixes'
    cosines. All sizes have the same weight.

    Args:
        batch: A batch after the head: anchors float32[a, dim] and rows float32[r, dim].
        sizes: Prefix sizes.

    Returns:
        The objective, its gradient by the anchors, float32[a, dim], and by the rows, float32[r, dim].
    """
    by_anchor, by_row = np.zeros_like(batch.anchors), np.zeros_like(batch.rows)
    loss, share = 0.0, 1 / (len(batch.anchors) * len(sizes))
    for size in sizes:
        anchors, anchor_norms = _unit(batch.anchors[:, :size])
        rows, row_norms = _unit(batch.rows[:, :size])
        got = _softmax(anchors @ rows.T, batch.own, batch.temperature)
        loss -= share * float((batch.target * np.log(np.maximum(got, SMALLEST))).sum())
        change: Float = (got - batch.target) * np.float32(share / batch.temperature)
        by_anchor[:, :size] += _through_unit(change @ rows, anchors, anchor_norms)
        by_row[:, :size] += _through_unit(change.T @ anchors, rows, row_norms)
    return loss, by_anchor, by_row


def _count(matrix: Float, passages: Passages, part: int = 0) -> int:
    return steps(matrix.shape[0], matrix.shape[1], len(passages.vectors))[part]


def _unit(vectors: Float) -> tuple[Float, Float]:
    norms: Float = np.linalg.norm(vectors, axis=1, keepdims=True) + TINY
    unit: Float = np.divide(vectors, norms)
    return unit, norms


def _through_unit(change: Float, unit: Float, norms: Float) -> Float:
    """The gradient by vectors, from the gradient by the same vectors at unit length."""
    along: Float = (change * unit).sum(axis=1, keepdims=True)
    through: Float = np.divide(change - unit * along, norms)
    return through


def _softmax(cosines: Float, own: Rows, temperature: float) -> Float:
    """The softmax of each row, float32[a, r]; an anchor's own row gets 0."""
    powers: Float = np.divide(cosines, np.float32(temperature))
    anchors = np.flatnonzero(own >= 0)
    powers[anchors, own[anchors]] = -np.inf
    powers -= powers.max(axis=1, keepdims=True)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _nearest(anchors: Float, vectors: Float, count: int, own: Rows | None = None) -> Rows:
    """intp[n, count]: rows of the vectors nearest to each anchor except its own, in no order."""
    found = [np.empty((0, count), np.intp)]
    for start in range(0, len(anchors), 1024):
        cosines = anchors[start : start + 1024] @ vectors.T
        if own is not None:
            rows = own[start : start + 1024]
            cosines[np.arange(len(rows)), rows] = -2
        found.append(np.argpartition(-cosines, count - 1, axis=1)[:, :count])
    return np.concatenate(found)


def _batches(
    passages: Passages,
    chance: np.random.Generator,
    queries_share: float = QUERIES_SHARE,
    own_share: float = 0.0,
) -> Iterator[Batch]:
    """Endless batches of anchors with their neighbours and random passages.

    Args:
        passages: The text to take them from.
        chance: The generator that picks them.
        queries_share: Share of the anchors that are queries, if there are so many.
        own_share: Share of a query's target that is its own passage, if that is known.
    """
    vectors, temperature = passages.vectors, passages.temperature
    short = min(int(ANCHORS * queries_share), len(passages.queries))
    while True:
        picks = chance.permutation(len(vectors))[: ANCHORS - short]
        asked = chance.permutation(len(passages.queries))[:short]
        others = chance.permutation(len(vectors))[:RANDOM]
        answers = passages.answers[asked]
        known = np.flatnonzero(answers >= 0) if own_share else np.empty(0, np.intp)
        near = passages.near[picks].ravel(), passages.near_queries[asked].ravel()
        rows = np.unique(np.concatenate([picks, *near, others, answers[known]]))
        own = np.concatenate([np.searchsorted(rows, picks), np.full(short, NONE)])
        anchors = np.concatenate([vectors[picks], passages.queries[asked]])
        target = _softmax(anchors @ vectors[rows].T, own, temperature)
        target[len(picks) + known] *= np.float32(1 - own_share)
        target[len(picks) + known, np.searchsorted(rows, answers[known])] += np.float32(own_share)
        yield Batch(anchors, vectors[rows], target, own, temperature)


def _rotated_for_prefixes(
    matrix: Float,
    passages: Passages,
    batches: Iterator[Batch],
    nested: Sequence[int],
    advance: Advance,
) -> Float:
    """The matrix times the rotation that is best for the shorter prefixes; its span stays the same."""
    ordered = matrix @ pca(passages.vectors @ matrix, matrix.shape[1])
    shorter, count = nested[:-1], _count(matrix, passages, 1)
    if not shorter:
        for _ in range(count):
            advance()
        return ordered
    behind = (batch.through(ordered) for batch in batches)
    rotation = np.eye(matrix.shape[1], dtype=np.float32)
    rotation = _search(rotation, behind, shorter, count=count, orthogonal=True, advance=advance)
    rotated: Float = (ordered.astype(np.float64) @ rotation).astype(np.float32)
    return rotated


def _search(
    matrix: Float,
    batches: Iterator[Batch],
    sizes: Sequence[int],
    *,
    count: int,
    orthogonal: bool = False,
    advance: Advance,
) -> Float:
    """Lower the objective by Adam (arXiv 1412.6980), over all matrices or over orthonormal ones.

    For orthonormal ones, the gradient is projected onto the tangent space, and QR brings each step back
    onto the manifold. Its variance is one number for all elements, so that tangents stay tangents.
    """
    momentum: Float = np.zeros_like(matrix)
    variance: Float = np.zeros_like(matrix)
    for step in range(count):
        batch = next(batches)
        behind = batch.through(matrix)
        _, by_anchor, by_row = slopes(behind, sizes)
        slope = batch.anchors.T @ by_anchor + batch.rows.T @ by_row
        if orthogonal:
            slope = _tangent(matrix, slope)
        square = np.square(slope)
        if orthogonal:
            square[:] = square.mean()
        momentum += np.float32(0.1) * (slope - momentum)
        variance += np.float32(0.01) * (square - variance)
        rate = RATE * (1 + np.cos(np.pi * step / count)) / 2
        rate *= np.sqrt(1 - 0.99 ** (step + 1)) / (1 - 0.9 ** (step + 1))  # both started at 0
        move = np.float32(rate) * np.divide(momentum, np.sqrt(variance) + np.float32(1e-12))
        matrix = _orthonormal(matrix - _tangent(matrix, move)) if orthogonal else matrix - move
        advance()
    return matrix


def _tangent(matrix: Float, direction: Float) -> Float:
    """The part of a direction along which columns stay orthonormal, to first order."""
    inner = matrix.T @ direction
    return direction - matrix @ ((inner + inner.T) * np.float32(0.5)).astype(np.float32)


def _orthonormal(matrix: Float) -> Float:
    """The orthonormal columns of the QR decomposition, each pointing as it did."""
    columns, triangle = np.linalg.qr(matrix.astype(np.float64))
    return (columns * np.sign(np.diag(triangle))).astype(np.float32)
