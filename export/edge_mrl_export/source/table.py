"""Token ids beyond the table of tokens, left out of the tokenizer: no text makes a bundle fail."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

from tokenizers import Tokenizer

from edge_mrl.errors import UsageError
from edge_mrl_export.source.source import Source

__all__ = ["keep_within_table"]

#: Tokens that a note names.
NAMED = 5
#: At most one token in so many of the table's may be left out: more are no additions to a vocabulary.
MOST_BEYOND = 10


def keep_within_table(source: Source) -> Source:
    """The source, with a tokenizer that gives no id beyond the table of tokens.

    Fine-tuning adds tokens to a tokenizer, and now and then no rows for them to the table. The source
    itself fails on such a text; the bundle reads the token as ordinary text instead.

    Raises:
        UsageError: Every text has such a token, or unknown words do; or there are many.
    """
    rows = source.token_rows
    if rows is None:
        return source
    _refuse_needed(source, rows)
    beyond = _beyond(source.tokenizer, rows)
    if not beyond:
        return source
    if len(beyond) > rows // MOST_BEYOND:
        raise UsageError(
            f"the table of {source.name} has {rows:,} rows, but the tokenizer {rows + len(beyond):,} "
            "tokens: they do not belong together. Get the model again"
        )
    tokenizer = _without(source.tokenizer, rows)
    _replace_tokenizer(source, tokenizer)
    named = ", ".join(sorted(beyond, key=beyond.__getitem__)[:NAMED])
    more = f" and {len(beyond) - NAMED} more" if len(beyond) > NAMED else ""
    note = (
        f"the model's table has {rows:,} tokens, without {named}{more}: left out, and such text is read "
        "as ordinary text"
    )
    return dataclasses.replace(source, tokenizer=tokenizer, notes=(*source.notes, note))


def _vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    vocabulary = tokenizer["model"].get("vocab") or {}
    if isinstance(vocabulary, list):  # Unigram: pairs of token and score
        return {entry[0]: index for index, entry in enumerate(vocabulary)}
    return dict(vocabulary)


def _beyond(tokenizer: dict[str, Any], rows: int) -> dict[str, int]:
    """Tokens with an id that the table lacks."""
    known = {**_vocabulary(tokenizer), **{t["content"]: t["id"] for t in tokenizer["added_tokens"]}}
    return {token: index for token, index in known.items() if index >= rows}


def _refuse_needed(source: Source, rows: int) -> None:
    """Refuse where the tokens that are left out are begin and end tokens, or the unknown token."""
    used = Tokenizer.from_str(json.dumps(source.tokenizer))
    model = source.tokenizer["model"]
    unknown = (
        model.get("unk_id")
        if model["type"] == "Unigram"
        else _vocabulary(source.tokenizer).get(model.get("unk_token"))
    )
    needed = {i for i in (*used.encode("").ids, unknown) if i is not None and i >= rows}
    if needed:
        names = ", ".join(used.id_to_token(index) or f"the id {index}" for index in sorted(needed))
        raise UsageError(
            f"the table of {source.name} has {rows:,} tokens, but its tokenizer needs {names} beyond "
            "them: tokenizer and weights do not belong together. Get the model again"
        )


def _without(tokenizer: dict[str, Any], rows: int) -> dict[str, Any]:
    """A copy without the tokens whose ids are ``rows`` or more; the others keep their ids."""
    result = copy.deepcopy(tokenizer)
    result["added_tokens"] = [t for t in result["added_tokens"] if t["id"] < rows]
    model = result["model"]
    if isinstance(model.get("vocab"), list):
        model["vocab"] = model["vocab"][:rows]
    elif model.get("vocab"):
        model["vocab"] = {token: i for token, i in model["vocab"].items() if i < rows}
    if model["type"] == "BPE":
        model["merges"] = [merge for merge in model["merges"] if _survives(merge, model)]
    return result


def _survives(merge: Any, model: dict[str, Any]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    made = left + right.removeprefix(model.get("continuing_subword_prefix") or "")
    return all(token in model["vocab"] for token in (left, right, made))


def _replace_tokenizer(source: Source, tokenizer: dict[str, Any]) -> None:
    """Let the reference divide text as the bundle will: on other ids it fails."""
    first = source.reference[0]
    rust = Tokenizer.from_str(json.dumps(tokenizer))
    if hasattr(first.tokenizer, "_tokenizer"):  # transformers' wrapper around the Rust tokenizer
        first.tokenizer._tokenizer = rust  # noqa: SLF001 - it has no other way in
    else:
        first.tokenizer = rust
