"""The vocabulary of a bundle: the source's without unreachable tokens, or pruned to a corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_mrl.heads import spread
from edge_mrl_export.texts.pruning import keep_tokens, prune, unreachable

__all__ = ["Vocabulary", "choose_vocabulary", "whole_words"]

#: First character of a token that starts a word, in vocabularies that mark such tokens.
WORD_STARTS = ("\u0120", "\u2581")
#: Shorter tokens are mostly parts of words.
SHORTEST_WORD = 4


def whole_words(tokenizer: Mapping[str, Any], count: int) -> list[str]:
    """Words that are single tokens of a model, at most ``count``, evenly spread over the alphabet.

    Args:
        tokenizer: Parsed tokenizer.json.
        count: How many.
    """
    tokens = Tokenizer.from_str(json.dumps(tokenizer)).get_vocab()
    marked = any(token.startswith(WORD_STARTS) for token in tokens)
    words = {t[1:] if marked else t for t in tokens if not marked or t.startswith(WORD_STARTS)}
    known = sorted(w for w in words if w.isalpha() and len(w) >= SHORTEST_WORD)
    return spread(known, count)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A bundle's tokenizer, and how its ids relate to the source's.

    Attributes:
        tokenizer: Parsed tokenizer.json of the bundle.
        original: Parsed tokenizer.json of the source.
        kept: int64[V'], the source's id of each of the bundle's tokens; None where all are kept.
        notes: For the user: what changed.
    """

    tokenizer: dict[str, Any]
    original: dict[str, Any]
    kept: NDArray[np.int64] | None
    notes: tuple[str, ...] = field(default=())

    def encode(self, texts: Sequence[str], prompt: str, max_tokens: int) -> list[list[int]]:
        """Token ids of texts by the bundle's tokenizer, truncated, without padding."""
        tokenizer = Tokenizer.from_str(json.dumps(self.tokenizer))
        tokenizer.enable_truncation(max_tokens)
        rows = [e.ids for e in tokenizer.encode_batch([prompt + text for text in texts])]
        return [ids for ids in rows if ids]

    def original_ids(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """The source's ids for ids of the bundle."""
        if self.kept is None:
            return [list(row) for row in rows]
        return [[int(self.kept[i]) for i in row] for row in rows]

    def unchanged(self, texts: Sequence[str]) -> list[str]:
        """The texts whose tokens are the same with the bundle as with the source."""
        if self.kept is None:
            return list(texts)
        before = Tokenizer.from_str(json.dumps(self.original)).encode_batch(list(texts))
        after = Tokenizer.from_str(json.dumps(self.tokenizer)).encode_batch(list(texts))
        rows = self.original_ids([e.ids for e in after])
        return [t for t, old, new in zip(texts, before, rows, strict=True) if old.ids == new]

    def facts(self) -> dict[str, Any]:
        """For the report."""
        size = Tokenizer.from_str(json.dumps(self.original)).get_vocab_size()
        return {"source_tokens": size, "tokens": size if self.kept is None else len(self.kept)}


def choose_vocabulary(
    tokenizer: dict[str, Any], texts: Sequence[str], size: int | None, *, table: bool = True
) -> Vocabulary:
    """Keep all tokens that text can produce, or the ``size`` tokens that the corpus uses most.

    Args:
        tokenizer: Parsed tokenizer.json.
        texts: The corpus.
        size: Tokens to keep; None for all that text can produce.
        table: Whether the network looks ids up in a table, whose rows can be left out.

    Raises:
        UsageError: This kind of vocabulary cannot be pruned, or not to this size.
    """
    if size is None:
        unused = unreachable(tokenizer) if table else set()
        if not unused:
            return Vocabulary(tokenizer, tokenizer, None)
        reachable = set(tokenizer["model"]["vocab"].values()) - unused
        trimmed, kept = keep_tokens(
            tokenizer, reachable | {t["id"] for t in tokenizer["added_tokens"]}
        )
        note = f"{len(unused):,} tokens that no text can produce were left out; ids of the others changed"
        return Vocabulary(trimmed, tokenizer, kept, (note,))
    pruned = prune(tokenizer, texts, size)
    note = (
        f"vocabulary pruned to {len(pruned.kept):,} tokens: {pruned.same:.1%} of {pruned.held_out:,} "
        "held-out texts still have the same tokens; fidelity is measured on such texts only"
    )
    return Vocabulary(pruned.tokenizer, tokenizer, pruned.kept, (note,))
