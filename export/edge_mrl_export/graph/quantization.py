"""The arithmetic of int8 and int4 quantisation, in numpy (FORMAT.md, "Precision").

Activations have one scale per token (the largest magnitude in the token's row of a product's input), or a
scale that calibration fixed. Either way a text's vector depends on nothing else in its batch. A fixed
scale saves five elementwise passes. It is used for outputs of layer norms only: they are bounded, so it
loses next to nothing there. Weights have one scale per output channel. Smoothing divides an input
channel with outliers by a factor and multiplies the weights' row with it (SmoothQuant, arXiv
2211.10438); it costs one more elementwise pass, so it is used only where it lowers the error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ProductPlan",
    "choose_plan",
    "correct_weight",
    "quantize_blocks",
    "quantize_columns",
    "quantize_rows",
]

Float = NDArray[np.float32]

#: GELU is never below this (its minimum is -0.16997), so its output fits unsigned codes.
GELU_MINIMUM = np.float32(-0.17)
#: Smoothing strengths that are tried; 0.5 is SmoothQuant's default.
STRENGTHS = (0.35, 0.5, 0.65, 0.8)
#: A variant that costs one more pass must lower the squared error to this share of it.
WORTH_A_PASS = 0.85
#: Largest relative squared error of a product's output with a fixed scale; per token it is 1e-4 to
#: 2e-4 on MiniLM. At this bound the mean cosine falls from 0.9991 to 0.9990.
FIXED_ERROR = 2e-4
#: Shares of the calibrated range that a fixed scale may cover: clipping rare peaks refines the rest.
COVERED = (1.1, 1.0, 0.9, 0.8, 0.7)
TINY = np.float32(1e-10)
#: Of the inputs' mean power, added to each one's own, so that rare inputs get no large corrections.
DAMPING = 0.01
#: Inputs whose corrections are worked out one by one before they reach the others.
BLOCK = 128


@dataclass(frozen=True, slots=True)
class ProductPlan:
    """How one product's input is quantised.

    Attributes:
        smooth: float32[K] that the input's channels are multiplied with, or None.
        minimum: Lower bound of the input if the unsigned range is used, else None.
        error: Relative squared error of the product's output on the calibration rows.
        step: The fixed scale, the value of one code; None for a scale per token.
        zero: The code of 0 where the scale is fixed.
        codes: int8[K, N] of the (smoothed) weights and their float32[N] scales, where they are not simply
            the nearest ones.
    """

    smooth: Float | None
    minimum: np.float32 | None
    error: float
    step: np.float32 | None = None
    zero: int = 128
    codes: tuple[NDArray[np.int8], Float] | None = None

    def offset(self) -> Float | None:
        """What is added to the (smoothed) input to make it unsigned: float32[] or float32[K]."""
        if self.minimum is None:
            return None
        shift = np.asarray(-self.minimum, dtype=np.float32)
        return shift if self.smooth is None else (shift * self.smooth).astype(np.float32)


def choose_plan(
    rows: Float, weight: Float, *, gelu: bool, may_smooth: bool = True, may_fix: bool = False
) -> ProductPlan:
    """Choose how to quantise: the least output error, counting what each extra pass costs.

    Args:
        rows: float32[r, K], inputs seen in calibration.
        weight: float32[K, N], all weights that this input is multiplied with, side by side.
        gelu: Whether the input is a GELU's output.
        may_smooth: False where several products share the weight, which then cannot be scaled for one.
        may_fix: Whether the scale may be fixed.
    """
    peaks, exact = np.abs(rows).max(axis=0), rows @ weight
    smooths = [_smooth(peaks, weight, a) for a in STRENGTHS] if may_smooth else []
    if may_fix:
        fixed = _cheapest(
            [_measure_fixed(rows, weight, exact, smooth) for smooth in [None, *smooths]]
        )
        if fixed.error <= FIXED_ERROR:
            return fixed
    minimum = GELU_MINIMUM if gelu else None
    return _cheapest(
        [_measure(rows, weight, exact, smooth, minimum) for smooth in [None, *smooths]]
    )


def correct_weight(plan: ProductPlan, rows: Float, weight: Float) -> ProductPlan:
    """The plan with codes of the weights that make up for each other's rounding on real text.

    The codes are fitted to most of the rows, and taken if they are better on the others.

    Args:
        plan: How the input is quantised.
        rows: float32[r, K], inputs seen in calibration.
        weight: float32[K, N], as for ``choose_plan``.
    """
    scaled = rows if plan.smooth is None else rows * plan.smooth
    matched = weight if plan.smooth is None else weight / plan.smooth[:, None]
    order = np.random.default_rng(0).permutation(len(scaled))
    split = len(scaled) * 3 // 4
    fitted, held_out = scaled[order[:split]], scaled[order[split:]]
    nearest, better = quantize_columns(matched), _corrected_columns(matched, fitted)

    def error(codes: NDArray[np.int8], scale: Float) -> float:
        return float(np.square(held_out @ (codes * scale - matched)).sum())

    return replace(plan, codes=better) if error(*better) < error(*nearest) else plan


def _corrected_columns(weight: Float, rows: Float) -> tuple[NDArray[np.int8], Float]:
    """Codes chosen input by input, so that later ones make up for the rounding of earlier ones.

    That is GPTQ (arXiv 2210.17323), with one scale per output channel.
    """
    left, scale = weight.copy(), quantize_columns(weight)[1]
    codes = np.zeros(weight.shape, np.int8)
    power = rows.T @ rows
    power[np.diag_indices(len(power))] += DAMPING * np.diag(power).mean() + TINY
    factor = np.linalg.cholesky(np.linalg.inv(power.astype(np.float64))).T.astype(np.float32)
    for start in range(0, len(weight), BLOCK):
        end = min(start + BLOCK, len(weight))
        errors = np.zeros((end - start, weight.shape[1]), np.float32)
        for i in range(start, end):
            codes[i] = np.clip(np.rint(left[i] / scale), -127, 127)
            errors[i - start] = (left[i] - codes[i] * scale) / factor[i, i]
            left[i + 1 : end] -= np.outer(factor[i, i + 1 : end], errors[i - start])
        left[end:] -= factor[start:end, end:].T @ errors
    return codes, scale


def _cheapest(plans: list[ProductPlan]) -> ProductPlan:
    """The first plan, which does not smooth, unless another one is worth its extra pass."""
    best = min(plans, key=lambda plan: plan.error)
    return best if best.error < WORTH_A_PASS * plans[0].error else plans[0]


def _smooth(peaks: Float, weight: Float, strength: float) -> Float:
    """float32[K]: the inverse of SmoothQuant's s = max|x|^a / max|w|^(1-a)."""
    floor = max(float(peaks.max()) * 1e-4, 1e-6)
    inputs = np.maximum(peaks, floor) ** strength
    weights = np.maximum(np.abs(weight).max(axis=1), 1e-6) ** (1 - strength)
    smooth = weights / inputs
    balanced: Float = (smooth / np.exp(np.log(smooth).mean())).astype(np.float32)
    return balanced


def _measure(
    rows: Float, weight: Float, exact: Float, smooth: Float | None, minimum: np.float32 | None
) -> ProductPlan:
    plan = ProductPlan(smooth, minimum, 0.0)
    scaled = rows if smooth is None else rows * smooth
    matched = weight if smooth is None else weight / smooth[:, None]
    codes, scale = quantize_columns(matched)
    product = _code_rows(scaled, plan.offset()) @ (codes.astype(np.float32) * scale)
    error = float(np.square(product - exact).sum() / max(float(np.square(exact).sum()), 1e-30))
    return ProductPlan(smooth, minimum, error)


def _measure_fixed(rows: Float, weight: Float, exact: Float, smooth: Float | None) -> ProductPlan:
    """The best fixed scale for these rows."""
    scaled = rows if smooth is None else rows * smooth
    codes, scale = quantize_columns(weight if smooth is None else weight / smooth[:, None])
    matched = codes.astype(np.float32) * scale
    lowest, highest = min(float(scaled.min()), 0.0), max(float(scaled.max()), 0.0)
    power = max(float(np.square(exact).sum()), 1e-30)
    plans = []
    for share in COVERED:
        step = max(np.float32((highest - lowest) * share / 255), TINY)
        zero = int(np.clip(np.rint(-lowest * share / step), 0, 255))
        coded = (np.clip(np.rint(scaled / step) + zero, 0, 255) - zero) * step
        error = float(np.square(coded @ matched - exact).sum() / power)
        plans.append(ProductPlan(smooth, None, error, step, zero))
    return min(plans, key=lambda plan: plan.error)


def _code_rows(rows: Float, offset: Float | None) -> Float:
    """The rows as the graph's codes with a scale per token represent them."""
    steps = 127 if offset is None else 255
    shifted = rows if offset is None else rows + offset
    peak = np.maximum(np.abs(shifted).max(axis=1, keepdims=True), TINY)
    coded = np.clip(np.rint(shifted * (steps / peak)), -127, 255) * (peak / steps)
    rounded: Float = coded if offset is None else coded - offset
    return rounded


def quantize_columns(weight: Float) -> tuple[NDArray[np.int8], Float]:
    """Symmetric int8 per output channel, |code| <= 127.

    Args:
        weight: float32[K, N].

    Returns:
        Codes int8[K, N] and scales float32[N].
    """
    scale = np.maximum(np.abs(weight).max(axis=0) / 127, TINY).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def quantize_rows(table: Float) -> tuple[NDArray[np.int8], Float]:
    """Symmetric int8 per row of an embedding table: codes int8[V, D], scales float32[V, 1]."""
    peak = np.abs(table).max(axis=1, keepdims=True)
    scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), scale


def quantize_blocks(rows: Float, block: int) -> tuple[NDArray[np.uint8], Float]:
    """4-bit codes with one scale per block along each row; 8 stands for zero.

    The block's element of largest magnitude gets the code 0 (that is -8), with the scale's sign to
    match, which uses all sixteen codes. Among some shrunken scales, the one with the least squared
    error is taken.

    Args:
        rows: float32[n, d], d divisible by ``block``.
        block: Elements that share a scale.

    Returns:
        Codes uint8[n, d] in 0..15 and scales float32[n, d // block].
    """
    blocks = rows.reshape(len(rows), -1, block)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[..., None], axis=2)
    best = np.full(peak.shape, np.inf, dtype=np.float32)
    codes, scales = np.zeros(blocks.shape, np.uint8), np.ones(peak.shape, np.float32)
    for shrink in (1.0, 0.94, 0.88, 0.82):
        scale = (peak * np.float32(shrink) / -8).astype(np.float32)
        scale = np.where(np.abs(scale) < TINY, TINY, scale)
        trial = np.clip(np.rint(blocks / scale) + 8, 0, 15)
        error = np.square((trial - 8) * scale - blocks).sum(axis=2, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        codes = np.where(better, trial.astype(np.uint8), codes)
        scales = np.where(better, scale, scales)
    return codes.reshape(rows.shape), scales[..., 0]
