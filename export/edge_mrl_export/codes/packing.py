"""How a store packs codes, fixed at export: the step of int4, rotation and centre of 1-bit codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes
from edge_mrl.codes import INT8, Packing, int4_step
from edge_mrl.heads import ROTATION_STEPS, centred_packing, rotate_for_bits
from edge_mrl_export.codes.head import FEW_PASSAGES, ChosenHead
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.source import Source
from edge_mrl_export.stages import Stages

__all__ = ["choose_packing"]

Float = NDArray[np.float32]

#: Texts that a rotation for 1-bit codes is fitted to. The centre of 256 texts did as well as that of all.
MOST_TEXTS = 2_000
#: Texts that the source encodes between two steps of the progress bar.
ENCODED_TOGETHER = 64


def choose_packing(
    source: Source,
    recipe: Recipe,
    texts: Sequence[str],
    head: ChosenHead,
    *,
    scale: float,
    stages: Stages,
) -> tuple[ChosenHead, Packing]:
    """How the recipe's code is packed, and the head that suits it.

    Args:
        source: The source model.
        recipe: What was asked for.
        texts: The user's own text; empty if there is none.
        head: The chosen head.
        scale: The value of the int8 code 127.
        stages: Told what is being done.
    """
    dim = recipe.resolved_dim(source)
    if recipe.code == "int4":
        return head, Packing("int4", int4_step(dim, scale=scale))
    if recipe.code != "1bit":
        return head, INT8
    texts = list(dict.fromkeys(texts))
    if len(texts) < FEW_PASSAGES:
        note = f"1-bit codes keep more with --corpus: at least {FEW_PASSAGES} passages of your own text"
        return dataclasses.replace(head, notes=(*head.notes, note)), Packing("1bit")
    picks = np.linspace(0, len(texts) - 1, min(len(texts), MOST_TEXTS)).round().astype(int)
    full = _encoded(source, recipe, sorted((texts[i] for i in picks), key=len), stages)
    layer_norm = recipe.resolved_layer_norm(source)
    matrix = head.matrix
    if recipe.head_path is None:  # a user's own matrix is not changed
        stages.stage("rotate for 1-bit codes", ROTATION_STEPS)
        matrix = rotate_for_bits(
            full, head.matrix, dim=dim, layer_norm=layer_norm, advance=stages.advance
        )
        kind = "rotation" if head.kind == "prefix" else head.kind
        why = f"{head.facts['why']}; rotated for 1-bit codes"
        facts = {**head.facts, "kind": kind, "why": why, "turned_for_bits": len(full)}
        head = dataclasses.replace(head, kind=kind, matrix=matrix, facts=facts)
    codes = derive_codes(full, matrix, dim=dim, layer_norm=layer_norm, scale=scale)
    return head, centred_packing(codes)


def _encoded(source: Source, recipe: Recipe, texts: Sequence[str], stages: Stages) -> Float:
    stages.stage("encode text for 1-bit codes", -(-len(texts) // ENCODED_TOGETHER))
    parts = []
    for start in range(0, len(texts), ENCODED_TOGETHER):
        some = texts[start : start + ENCODED_TOGETHER]
        limit = recipe.resolved_max_tokens(source)
        parts.append(source.encode(some, kind="document", max_tokens=limit))
        stages.advance()
    return np.concatenate(parts)
