"""How close a bundle is to its source, measured through the real runtime, and the gates it must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes
from edge_mrl.encode import BATCH_MIN, Encoder, cosines
from edge_mrl.errors import GateError

__all__ = ["GATES", "Fidelity", "check_gates", "ideal_codes", "measure", "reaches_gates"]

Float = NDArray[np.float32]

#: Lowest values that pass. int8 with a scale per token reaches 0.999 and 0.997 on MiniLM, dynamic int8
#: with a scale per tensor 0.96 and 0.87; below these gates search results change visibly. A text alone
#: and in a batch: equal on x86, cosine 0.9998 on ARM (see BATCH_MIN in edge_mrl/encode/verification.py),
#: 0.991 with a scale per tensor.
GATES = {"cosine_mean": 0.998, "cosine_min": 0.99, "padded_min": BATCH_MIN, "mixed_min": BATCH_MIN}
#: Texts of a padded batch when padding is measured: short texts are padded to the longest.
MIXED_BATCH = 16


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Cosines between the bundle and its fp32 source.

    For a bundle without full vectors, all of them compare codes: the bundle's with the codes of the
    source's vectors.

    Attributes:
        texts: How many texts were measured.
        cosine_mean: Mean over the texts, of the bundle's full vector and the source's.
        cosine_min: Lowest of these cosines.
        code_cosine_mean: Mean over the texts, of the int8 code and the code of the source's vector.
        code_cosine_min: Lowest of these cosines.
        padded_min: Lowest cosine of a text encoded alone and padded.
        mixed_min: Lowest cosine of a text encoded alone and in a batch of mixed lengths.
    """

    texts: int
    cosine_mean: float
    cosine_min: float
    code_cosine_mean: float
    code_cosine_min: float
    padded_min: float
    mixed_min: float


def ideal_codes(
    full: Float, *, dim: int, layer_norm: bool, scale: float, head: Float | None = None
) -> NDArray[np.int8]:
    """Codes of the source's vectors, as a bundle in fp32 would make them: int8[n, dim]."""
    return derive_codes(full, head, dim=dim, layer_norm=layer_norm, scale=scale)


def measure(
    encoder: Encoder,
    texts: Sequence[str],
    reference: Float,
    *,
    head: Float | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Fidelity:
    """Compare a written bundle with its source.

    Args:
        encoder: The bundle, opened by the runtime.
        texts: Documents.
        reference: float32[n, D] of the source for these texts.
        head: float32[D, dim] of the bundle, or None for the plain prefix.
        advance: Called after each text.

    Raises:
        GateError: The graph's codes are not those of its own full vectors.
    """
    manifest = encoder.manifest
    alone = []
    for text in texts:
        alone.append(encoder.encode([text]))
        advance()
    codes = np.concatenate([e.coarse for e in alone])
    ideal = partial(
        ideal_codes,
        dim=manifest.dim,
        layer_norm=manifest.head.layer_norm,
        scale=manifest.code.scale,
        head=head,
    )
    code_cosines = cosines(codes, ideal(reference))
    full = [e.full for e in alone if e.full is not None]
    if full:
        _check_codes(codes, ideal(np.concatenate(full)))
    single: NDArray[np.generic] = np.concatenate(full) if full else codes
    to_source = cosines(single, reference) if full else code_cosines
    padded, mixed = _invariance(encoder, texts, single)
    return Fidelity(
        texts=len(texts),
        cosine_mean=_round(to_source.mean()),
        cosine_min=_round(to_source.min()),
        code_cosine_mean=_round(code_cosines.mean()),
        code_cosine_min=_round(code_cosines.min()),
        padded_min=_round(padded),
        mixed_min=_round(mixed),
    )


def _check_codes(codes: NDArray[np.int8], derived: NDArray[np.int8]) -> None:
    """A full vector and the head must give the graph's code, up to rounding."""
    off = int(np.abs(codes.astype(np.int16) - derived).max())
    if off > 1:
        raise GateError(
            f"the graph's codes differ by up to {off} from the codes of its own full vectors: "
            "please report this model"
        )


def _invariance(
    encoder: Encoder, texts: Sequence[str], single: NDArray[np.generic]
) -> tuple[float, float]:
    """Lowest cosine of a text to itself: padded to the longest text, and among mixed lengths."""
    longest = max(range(len(texts)), key=lambda i: len(texts[i]))
    picks = np.linspace(0, len(texts) - 1, min(len(texts), 4 * MIXED_BATCH)).round().astype(int)
    padded, mixed = [], []
    for index in picks[::4]:
        pair = encoder.encode_padded([texts[index], texts[longest]])
        row = pair.coarse if pair.full is None else pair.full
        padded.append(cosines(row[:1], single[index : index + 1])[0])
    for start in range(0, len(picks), MIXED_BATCH):
        batch = picks[start : start + MIXED_BATCH]
        together = encoder.encode_padded([texts[i] for i in batch])
        rows = together.coarse if together.full is None else together.full
        mixed.append(cosines(rows, single[batch]).min())
    return float(min(padded)), float(min(mixed))


def reaches_gates(fidelity: Fidelity) -> bool:
    """Whether all figures are at or above their gates."""
    return all(getattr(fidelity, name) >= gate for name, gate in GATES.items())


def check_gates(fidelity: Fidelity, precision: str) -> None:
    """Raise GateError, with all figures and what to try, if one is below its gate."""
    if reaches_gates(fidelity):
        return
    values = {name: getattr(fidelity, name) for name in GATES}
    figures = ", ".join(f"{name} {values[name]:.5f} (gate {GATES[name]})" for name in GATES)
    advice = {
        "int4": "use --int8: 4-bit weights are less accurate",
        "int8": "use --corpus with your own text to calibrate on, or --fp32",
        "fp32": "please report this model: the graph does not compute what the source does",
    }[precision]
    raise GateError(
        f"the {precision} bundle is too far from its source over {fidelity.texts} texts: {figures}. "
        f"Nothing was written. Try: {advice}; or accept the bundle with --allow-low-fidelity"
    )


def _round(value: float) -> float:
    """Six digits: float32 sums vary only behind them, so equal exports give equal files."""
    return round(min(float(value), 1.0), 6)
