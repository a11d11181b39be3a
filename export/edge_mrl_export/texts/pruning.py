"""Prune a tokenizer's vocabulary to the tokens that a corpus uses.

In small models the token table is half of the weights. Dropping rows changes nothing for texts whose
tokens are all kept. Other words are split into smaller pieces, down to single characters or bytes,
which are always kept. Works on JSON of the ``tokenizers`` library: WordPiece, Unigram, BPE, WordLevel.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge_mrl.errors import UsageError

__all__ = ["keep_tokens", "prune", "unreachable"]

#: Every fifth text is held out, to measure what pruning costs.
HELD_OUT = 5
FEWEST_TEXTS = 20


@dataclass(frozen=True, slots=True)
class Pruned:
    """A pruned tokenizer.

    Attributes:
        tokenizer: Parsed tokenizer.json; ids are compacted in their old order.
        kept: int64[V'], the old id of each new one.
        same: Share of held-out texts whose tokens do not change.
        held_out: How many texts were held out.
    """

    tokenizer: dict[str, Any]
    kept: NDArray[np.int64]
    same: float
    held_out: int


def prune(tokenizer: dict[str, Any], texts: Sequence[str], size: int) -> Pruned:
    """Keep the tokens that a corpus uses most.

    Args:
        tokenizer: Parsed tokenizer.json.
        texts: The corpus; a fifth of it is held out.
        size: Tokens to keep in all, those that must be kept included.

    Raises:
        UsageError: The kind of vocabulary cannot be pruned, the size is too small, or there is too
            little text.
    """
    if len(texts) < FEWEST_TEXTS:
        raise UsageError(
            f"pruning needs at least {FEWEST_TEXTS} texts, the corpus has {len(texts)}"
        )
    ids = _ids(tokenizer)
    must = _mandatory(tokenizer, ids)
    if size < len(must):
        raise UsageError(
            f"--prune-vocab is {size:,}, but {len(must):,} tokens must be kept "
            "(special tokens and single characters): choose at least that"
        )
    whole = Tokenizer.from_str(json.dumps(tokenizer))
    held_out = list(texts[::HELD_OUT])
    counts: Counter[int] = Counter()
    for number, text in enumerate(texts):
        if number % HELD_OUT:
            counts.update(whole.encode(text).ids)
    wanted = _most_used(tokenizer, ids, must, counts, size)
    pruned, kept = keep_tokens(tokenizer, wanted)
    same = _share_unchanged(whole, pruned, kept, held_out)
    return Pruned(pruned, kept, same, len(held_out))


def unreachable(tokenizer: dict[str, Any]) -> set[int]:
    """Ids of WordPiece tokens that no text can produce.

    BERT's tokenizers make each punctuation mark and ideograph a word of its own before WordPiece looks
    words up. So no text produces a token with such a character and others, like the placeholders
    ``[unusedN]``, or a token that continues a word with one, unless it is an added token.
    """
    model, normalizer = tokenizer["model"], tokenizer.get("normalizer") or {}
    splits = (tokenizer.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
    known = normalizer.get("type", "BertNormalizer") == "BertNormalizer"  # both go by characters
    if model["type"] != "WordPiece" or not splits or not known:
        return set()
    added = {token["id"] for token in tokenizer["added_tokens"]}
    prefix = model["continuing_subword_prefix"]
    bare = {token: token.removeprefix(prefix) or token for token in model["vocab"]}
    alone = _words_alone(tokenizer, {c for letters in bare.values() for c in letters})
    return {
        model["vocab"][token]
        for token, letters in bare.items()
        if model["vocab"][token] not in added
        and not alone.isdisjoint(letters)
        and (token != letters or len(letters) > 1)
    }


def _words_alone(tokenizer: dict[str, Any], characters: set[str]) -> set[str]:
    """Those of the characters that are words of their own, whatever is next to them."""
    whole = Tokenizer.from_str(json.dumps(tokenizer))

    def words(text: str) -> list[str]:
        plain = whole.normalizer.normalize_str(text) if whole.normalizer else text
        return [word for word, _ in whole.pre_tokenizer.pre_tokenize_str(plain)]

    return {c for c in characters if words(f"a{c}a") == ["a", c, "a"]}


def keep_tokens(
    tokenizer: dict[str, Any], wanted: set[int]
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Rewrite a tokenizer to some of its tokens.

    Args:
        tokenizer: Parsed tokenizer.json; it is not changed.
        wanted: Ids to keep.

    Returns:
        The rewritten tokenizer, and int64[V'], the old id of each new one.

    Raises:
        UsageError: The padding token's id would change.
    """
    kept = np.array(sorted(wanted), dtype=np.int64)
    new = {int(old): index for index, old in enumerate(kept)}
    _check_padding(tokenizer, new)
    result = copy.deepcopy(tokenizer)
    _rewrite_model(result["model"], new)
    result["added_tokens"] = [
        {**token, "id": new[token["id"]]} for token in tokenizer["added_tokens"]
    ]
    _rewrite_processor(result.get("post_processor"), new)
    return result, kept


def _check_padding(tokenizer: dict[str, Any], new: dict[int, int]) -> None:
    """Refuse to move the padding token: RoBERTa's graphs count positions by its id."""
    for token in tokenizer["added_tokens"]:
        identifier = token["id"]
        if token["content"] in ("<pad>", "[PAD]") and new.get(identifier) != identifier:
            raise UsageError(
                f"the padding token {token['content']} has id {identifier}, behind tokens that would be "
                "removed: this vocabulary cannot be pruned"
            )


def _ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Id by token of the model's own vocabulary."""
    model = tokenizer["model"]
    if model["type"] == "Unigram":
        return {entry[0]: index for index, entry in enumerate(model["vocab"])}
    if model["type"] in ("BPE", "WordLevel", "WordPiece"):
        return dict(model["vocab"])
    raise UsageError(
        f"a {model['type']} vocabulary cannot be pruned, only BPE, Unigram, WordLevel, WordPiece"
    )


def _mandatory(tokenizer: dict[str, Any], ids: dict[str, int]) -> set[int]:
    """Special and unknown tokens, and the smallest pieces, into which any other word is split."""
    model = tokenizer["model"]
    must = {token["id"] for token in tokenizer["added_tokens"]}
    must |= set(_processor_ids(tokenizer.get("post_processor")))
    unknown = model.get("unk_id") if model["type"] == "Unigram" else ids.get(model.get("unk_token"))
    if unknown is not None:
        must.add(unknown)
    if model["type"] == "WordLevel":
        return must
    prefix = model.get("continuing_subword_prefix") or ""
    for token, identifier in ids.items():
        bare = token.removeprefix(prefix) if prefix else token
        if len(bare) == 1 or _is_byte(token) or bare.strip("▁") == "" or len(bare.lstrip("▁")) == 1:
            must.add(identifier)
    return must


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _most_used(
    tokenizer: dict[str, Any],
    ids: dict[str, int],
    must: set[int],
    counts: Counter[int],
    size: int,
) -> set[int]:
    """The mandatory tokens, and the most used ones up to ``size``; unused ones come last, by id."""
    parents = _merge_parents(tokenizer["model"], ids)
    wanted = set(must)
    for identifier in sorted(ids.values(), key=lambda i: (-counts[i], i)):
        if len(wanted) >= size:
            break
        # A merged token needs the tokens that it is merged from.
        needed = _closure(identifier, parents, wanted)
        if len(wanted) + len(needed) <= size:
            wanted |= needed
    return wanted


def _merge_parents(model: dict[str, Any], ids: dict[str, int]) -> dict[int, tuple[int, int]]:
    """For BPE, the two ids that the first merge making each id joins."""
    parents: dict[int, tuple[int, int]] = {}
    for left, right in _merges(model):
        made = ids.get(left + right.removeprefix(model.get("continuing_subword_prefix") or ""))
        if made is not None and left in ids and right in ids:
            parents.setdefault(made, (ids[left], ids[right]))
    return parents


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Merges as pairs; older files have strings with a space."""
    if model["type"] != "BPE":
        return []
    pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
    return [(left, right) for left, right in pairs]


def _closure(identifier: int, parents: dict[int, tuple[int, int]], have: set[int]) -> set[int]:
    needed: set[int] = set()
    stack = [identifier]
    while stack:
        current = stack.pop()
        if current not in have and current not in needed:
            needed.add(current)
            stack += parents.get(current, ())
    return needed


def _rewrite_model(model: dict[str, Any], new: dict[int, int]) -> None:
    if model["type"] == "Unigram":
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
        return
    model["vocab"] = {token: new[old] for token, old in model["vocab"].items() if old in new}
    if model["type"] == "BPE":
        model["merges"] = [m for m in model["merges"] if _merge_survives(model, m)]


def _merge_survives(model: dict[str, Any], merge: Any) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    made = left + right.removeprefix(model.get("continuing_subword_prefix") or "")
    return all(token in model["vocab"] for token in (left, right, made))


def _processors(processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    if processor is None:
        return []
    if processor["type"] == "Sequence":
        return [inner for part in processor["processors"] for inner in _processors(part)]
    return [processor]


def _processor_ids(processor: dict[str, Any] | None) -> list[int]:
    """Ids that a post-processor adds."""
    found: list[int] = []
    for part in _processors(processor):
        if part["type"] == "TemplateProcessing":
            found += [i for entry in part["special_tokens"].values() for i in entry["ids"]]
        found += [part[key][1] for key in ("sep", "cls") if key in part]
    return found


def _rewrite_processor(processor: dict[str, Any] | None, new: dict[int, int]) -> None:
    for part in _processors(processor):
        if part["type"] == "TemplateProcessing":
            for entry in part["special_tokens"].values():
                entry["ids"] = [new[i] for i in entry["ids"]]
        for key in ("sep", "cls"):
            if key in part:
                part[key] = [part[key][0], new[part[key][1]]]


def _share_unchanged(
    whole: Tokenizer, pruned: dict[str, Any], kept: NDArray[np.int64], texts: Sequence[str]
) -> float:
    after = Tokenizer.from_str(json.dumps(pruned))
    pairs = zip(whole.encode_batch(list(texts)), after.encode_batch(list(texts)), strict=True)
    same = [old.ids == [int(kept[i]) for i in new.ids] for old, new in pairs]
    return float(np.mean(same))
