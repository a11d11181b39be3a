"""The projection head of a bundle: named, read from a file, or fitted to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes import PLANES, Packing
from edge_mrl.errors import UsageError
from edge_mrl.heads import (
    MOST_PASSAGES,
    Excerpts,
    HeadTrial,
    Pairs,
    best_kind,
    count_excerpts,
    random_rotation,
    split_held_out,
    spread,
    take_excerpts,
)
from edge_mrl_export.codes.curve import curve_of_trial
from edge_mrl_export.recipe import FITTED_HEADS, Recipe
from edge_mrl_export.source import Source
from edge_mrl_export.stages import Stages
from edge_mrl_export.texts import FEWEST_TEXTS, read_pairs, shipped_passages, whole_words

__all__ = ["FEW_PASSAGES", "ChosenHead", "choose_head", "read_matrix", "shipped_texts"]

Float = NDArray[np.float32]

#: With fewer passages a fit is poor, and a note says so; with fewer than half, ``auto`` fits none.
FEW_PASSAGES = 200
#: What a head is fitted to without a corpus, for the report.
SHIPPED = (
    "passages that come with edge-mrl, and words of the model's vocabulary; your own text (--corpus) is "
    "better"
)
#: Words of the vocabulary that are added to those passages: they cover more subjects. With 4,000 of them
#: a rotation kept 94.6 to 95.0 % of all-MiniLM-L6-v2's nDCG@10 at 128 dimensions, averaged over six sets
#: (depending on the words), and 94.3 % without.
WORDS, WORDS_EACH = 4000, 6
#: Texts that the source encodes between two steps of the progress bar.
ENCODED_TOGETHER = 64


@dataclass(frozen=True, slots=True, eq=False)
class ChosenHead:
    """A head, and why it was chosen.

    Attributes:
        kind: One of ``edge_mrl.bundle.manifest.HEAD_KINDS``.
        matrix: float32[D, dim], or None for the plain prefix.
        facts: For the report.
        notes: For the user: what could be better.
        shipped: float32[n, D], vectors of the texts that come with edge-mrl, where the head was fitted to
            them; otherwise None.
        trial: What the head was compared with others on; None if it was not.
        tried: float32[D, dim], the head as it was compared, before the fit on all text; None for the
            prefix.
    """

    kind: str
    matrix: Float | None
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    shipped: Float | None = None
    trial: HeadTrial | None = None
    tried: Float | None = None

    def kept(self, packing: Packing) -> tuple[float, str] | None:
        """Quality on held-out text that codes keep as a store packs them, and how that was measured.

        Returns:
            The share, from 0 to 1, and words; None if nothing was held out, or the head was changed
            since.
        """
        if self.trial is None or "turned_for_bits" in self.facts:
            return None
        share = self.trial.score(self.tried, packing)
        return round(share, 4), self.trial.measured_of(packing.kind)


def choose_head(source: Source, recipe: Recipe, texts: Sequence[str], stages: Stages) -> ChosenHead:
    """The head that the recipe asks for, fitted if necessary.

    Args:
        source: The source model, whose full vectors are fitted to.
        recipe: What was asked for.
        texts: The user's own text; empty if there is none.
        stages: Told what is being done.

    Raises:
        UsageError: The file holds no usable matrix, or the pairs cannot be used.
    """
    dim = recipe.resolved_dim(source)
    given = read_matrix(recipe.head_path, source.width, dim) if recipe.head_path else None
    texts = list(dict.fromkeys(texts))
    if _random(source, recipe, dim, len(texts)):
        why = (
            "a fixed rotation" if recipe.head == "random" else "a fixed rotation: no text was given"
        )
        return ChosenHead(
            "random", random_rotation(source.width, dim), {"kind": "random", "why": why}
        )
    reason = _why_prefix(source, recipe, dim, len(texts))
    if reason is not None:
        return ChosenHead("prefix", None, {"kind": "prefix", "why": reason})
    if given is not None and not texts:
        return ChosenHead("matrix", given, {"kind": "matrix", "why": "--head names a file"})
    own = bool(texts) or recipe.pairs is not None
    if recipe.pairs is None and own and len(texts) < FEWEST_TEXTS:
        raise UsageError(
            f"the corpus has {len(texts)} different texts, expected at least {FEWEST_TEXTS} for a head"
        )
    trial = _encoded(source, recipe, texts if own else shipped_texts(source), stages)
    kinds = _kinds(recipe, own=own)
    chosen = _tried(trial, kinds, given, recipe, stages)
    text = "your text" if own else SHIPPED
    facts = {**chosen.facts, "fitted_on": text}
    if own:
        return replace(chosen, facts=facts, notes=_notes(len(trial.full)))
    return replace(chosen, facts=facts, shipped=trial.full)


def shipped_texts(source: Source) -> list[str]:
    """What a head is fitted to without a corpus: passages of edge-mrl, and words of the vocabulary."""
    passages = shipped_passages()
    words = whole_words(source.tokenizer, min(WORDS, WORDS_EACH * len(passages)))
    return list(dict.fromkeys([*passages, *words]))


def _tried(
    trial: HeadTrial, kinds: Sequence[str], given: Float | None, recipe: Recipe, stages: Stages
) -> ChosenHead:
    """Fit heads of these kinds, compare them on held-out text, and fit the chosen kind to all text."""
    candidates: dict[str, Float | None] = {"prefix": None}
    if given is not None:
        candidates["matrix"] = given
    for kind in kinds:
        stages.stage(f"fit {kind} head", None if kind == "pca" else trial.steps)
        candidates[kind] = trial.fit(kind, stages.advance)
    stages.stage("measure heads on held-out text", len(candidates))
    scores, agreements = {}, {}
    for kind, matrix in candidates.items():
        scores[kind] = trial.score(matrix)
        if recipe.pairs is None:
            agreements[kind] = round(trial.agreement(matrix), 4)
        stages.advance()
    kind = best_kind(scores, trial.margin) if recipe.head == "auto" else list(candidates)[-1]
    why = "best on held-out text" if recipe.head == "auto" else f"--head {recipe.head_name}"
    matrix = tried = candidates[kind]
    by_dimension = curve_of_trial(trial, {"prefix": None, kind: matrix})
    if kind in FITTED_HEADS:
        whole = trial.on_all()
        stages.stage(f"fit {kind} head on all text", None if kind == "pca" else whole.steps)
        matrix = whole.fit(kind, stages.advance)
    facts = {"kind": kind, "why": why, **trial.facts(), "measured": trial.measured}
    facts["held_out"] = {name: round(score, 4) for name, score in scores.items()}
    if agreements:
        facts |= {"agreement": agreements, "measured_agreement": trial.measured_agreement}
    facts["by_dimension"] = by_dimension
    return ChosenHead(kind, matrix, facts, trial=trial, tried=tried)


def _random(source: Source, recipe: Recipe, dim: int, texts: int) -> bool:
    """Whether the fixed rotation is taken: where few bits are kept of all dimensions, without text."""
    if recipe.head != "auto":
        return recipe.head == "random"
    few_bits = recipe.resolved_code in PLANES and dim == source.width
    return few_bits and texts < FEW_PASSAGES and recipe.pairs is None


def _why_prefix(source: Source, recipe: Recipe, dim: int, texts: int) -> str | None:
    """Why the plain prefix is taken; None if a head is fitted or read from a file."""
    if recipe.head == "prefix":
        return "--head prefix"
    if recipe.head != "auto":
        return None
    dims = source.mrl_dims if recipe.mrl_dims is None else recipe.mrl_dims
    if dims is not None and (not dims or dim >= min(dims)):
        known = f": {', '.join(map(str, sorted(dims)))} dimensions" if dims else ""
        told = "--mrl-dims says" if recipe.mrl_dims else "its files say"
        return f"trained with Matryoshka representation learning, as {told}{known}"
    if dim == source.width:
        return "the code has all dimensions"
    if recipe.pairs is None and 0 < texts < FEW_PASSAGES // 2:
        return f"{texts} passages are too few to fit a head (at least {FEW_PASSAGES // 2})"
    return None


def _kinds(recipe: Recipe, *, own: bool) -> tuple[str, ...]:
    """Kinds of heads to fit, the simplest first."""
    if recipe.head == "auto":
        # Fitted to other text than the user's, a rotation loses least on the user's.
        return ("pca", "rotation", "linear") if own else ("rotation",)
    return () if recipe.head_path else (recipe.head,)


def _notes(passages: int) -> tuple[str, ...]:
    """A warning, if there is too little text."""
    if passages >= FEW_PASSAGES:
        return ()
    advice = f"give at least {FEW_PASSAGES} (better 1,000) like those that will be searched"
    return (f"the head was fitted to only {passages} passages: {advice}",)


def _encoded(source: Source, recipe: Recipe, texts: Sequence[str], stages: Stages) -> HeadTrial:
    """The source's vectors of texts and pairs, to fit heads to."""
    pairs = [] if recipe.pairs is None else read_pairs(recipe.pairs)
    documents = list(dict.fromkeys(document for _, document in pairs))
    rows = {document: row for row, document in enumerate(documents)}
    known = [*documents, *(t for t in spread(texts, MOST_PASSAGES) if t not in rows)]
    stages.stage("encode text for the head", -(-len(known) // ENCODED_TOGETHER))
    full = _encode(source, recipe, known, "document", stages)
    layer_norm = recipe.resolved_layer_norm(source)
    supervised, excerpts = None, None
    if not pairs:
        taken = take_excerpts(known, count_excerpts(len(known)))
        stages.stage("encode excerpts for the head", -(-len(taken) // ENCODED_TOGETHER))
        vectors = _encode(source, recipe, [excerpt for _, excerpt in taken], "query", stages)
        excerpts = Excerpts(vectors, np.array([row for row, _ in taken], dtype=np.intp))
    else:
        stages.stage("encode queries for the head", -(-len(pairs) // ENCODED_TOGETHER))
        queries = _encode(source, recipe, [query for query, _ in pairs], "query", stages)
        supervised = Pairs(
            queries,
            np.array([rows[document] for _, document in pairs], dtype=np.intp),
            *split_held_out(len(pairs)),
        )
    stages.stage("find neighbours")
    nested = recipe.resolved_nested(source)
    return HeadTrial.of(full, nested, layer_norm=layer_norm, excerpts=excerpts, pairs=supervised)


def _encode(
    source: Source, recipe: Recipe, texts: Sequence[str], kind: str, stages: Stages
) -> Float:
    """float32[n, D] of the source; texts of similar length are encoded together, which pads less."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = np.empty((len(texts), source.width), np.float32)
    max_tokens = recipe.resolved_max_tokens(source)
    for start in range(0, len(order), ENCODED_TOGETHER):
        rows = order[start : start + ENCODED_TOGETHER]
        some = [texts[row] for row in rows]
        vectors[rows] = source.encode(some, kind=kind, max_tokens=max_tokens)
        stages.advance()
    return vectors


def read_matrix(path: Path, width: int, dim: int) -> Float:
    """Read the user's own head: float32[D, dim], the first ``dim`` columns of the file.

    Args:
        path: A ``.npy`` file with floats [D, at least dim].
        width: D, dimensions of the full vector.
        dim: Dimensions of the code.

    Raises:
        UsageError: The file does not exist or holds no usable matrix; the message says why.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"cannot read the head {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise UsageError(f"the head {path} is not an .npy file of numbers: {error}") from error
    if not isinstance(loaded, np.ndarray) or not np.issubdtype(loaded.dtype, np.floating):
        kind = getattr(loaded, "dtype", type(loaded).__name__)
        raise UsageError(f"the head {path} holds {kind}, expected floats")
    if loaded.ndim != 2 or loaded.shape[0] != width:
        raise UsageError(
            f"the head {path} has the shape {list(loaded.shape)}, expected [{width}, {dim}]: "
            f"the model's {width} dimensions by those of the code"
        )
    if loaded.shape[1] < dim:
        raise UsageError(
            f"the head {path} gives {loaded.shape[1]} dimensions, fewer than {dim}: "
            f"pass --dim {loaded.shape[1]}"
        )
    with np.errstate(over="ignore"):  # what overflows is not finite, and refused below
        matrix = np.ascontiguousarray(loaded[:, :dim], dtype=np.float32)
    if not np.isfinite(matrix).all():
        raise UsageError(f"the head {path} holds values that are not finite")
    if not matrix.any():
        raise UsageError(f"the head {path} is all zeros")
    return matrix
