"""What a bundle's tokenizer may consist of, so that no text can hang it or use up the memory.

The library ``tokenizers`` opens whatever its format can say: patterns whose time doubles with each
character, replacements that multiply a text, limits without a limit. Its errors end a thread or the
process. So its file is checked here, part by part, before the library sees it: parts by list, patterns by
``patterns``, and by how much a text can grow.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from edge_mrl.bundle.jsontext import parse_json
from edge_mrl.bundle.patterns import check_pattern
from edge_mrl.errors import TokenizerError, brief

__all__ = ["check_tokenizer"]

TOKENIZER = "tokenizer.json"
MOST_TOKENS, MOST_TOKEN_CHARS, MOST_ADDED = 4_000_000, 4_000, 100_000
#: Parts of one kind, nested ones included, and special tokens around a text.
MOST_PARTS = 64
#: A word of more characters is one unknown token; WordPiece's time grows with the square.
MOST_WORD_CHARS = 1_000
#: How many times as long as a text what becomes of it may be: one "…" becomes "...", "½" becomes "1/2".
MOST_GROWTH = 64
#: Bytes that one character may become: Unicode's own longest (U+FDFA in NFKC) becomes 33.
MOST_REPLACEMENT_BYTES = 256

# fmt: off
NORMALIZERS = frozenset(
    (
        "BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt",
        "Precompiled", "Prepend", "Replace", "Strip", "StripAccents",
    )
)
PRE_TOKENIZERS = frozenset(
    (
        "BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength",
        "Metaspace", "Punctuation", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit",
    )
)
POST_PROCESSORS = frozenset(
    ("BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing")
)
DECODERS = frozenset(
    (
        "BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace",
        "Strip", "WordPiece",
    )
)
MODELS = frozenset(("BPE", "Unigram", "WordLevel", "WordPiece"))
# fmt: on
#: The key under which a sequence of parts lists them.
_LISTED = ("normalizers", "pretokenizers", "processors", "decoders")


def check_tokenizer(data: bytes, *, max_tokens: int) -> None:
    """Check a tokenizer's file.

    Args:
        data: Its bytes.
        max_tokens: The longest input of the bundle, in tokens, special tokens included.

    Raises:
        TokenizerError: It has a part that is not known, or one that could hang or use up the memory.
        FormatError: It is not JSON.
    """
    parsed = parse_json(data, TOKENIZER)
    if not isinstance(parsed, dict):
        _refuse("it is not an object")
    try:
        _check_normalizers(parsed.get("normalizer"))
        for part in _parts(parsed.get("pre_tokenizer"), PRE_TOKENIZERS, "pre-tokenizer"):
            _check_pre_tokenizer(part)
        for part in _parts(parsed.get("decoder"), DECODERS, "decoder"):
            if part["type"] == "Replace":
                _pattern(part["pattern"])
        _check_special(parsed.get("post_processor"), max_tokens)
        _check_added(parsed.get("added_tokens") or [])
        _check_model(parsed["model"])
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, ValueError) as error:
        _refuse(f"a part is not what it should be ({type(error).__name__}: {brief(error, 80)})")


def _refuse(what: str) -> NoReturn:
    raise TokenizerError(f"tokenizer.json cannot be opened: {what}; export the model again")


def _parts(value: Any, known: frozenset[str], what: str) -> Iterator[dict[str, Any]]:
    """The parts of a component, one by one; sequences are taken apart."""
    waiting, seen = [value] if value is not None else [], 0
    while waiting:
        part = waiting.pop(0)
        seen += 1
        if seen > MOST_PARTS:
            _refuse(f"it has more than {MOST_PARTS} parts of the kind {what}")
        kind = part["type"]
        if kind == "Sequence":
            waiting = [*(p for key in _LISTED if key in part for p in part[key]), *waiting]
        elif kind in known:
            yield part
        else:
            _refuse(f"it has the {what} {brief(kind, 60)}, which is not known here")


def _pattern(value: Any) -> int:
    """Check a pattern; the characters of its shortest match."""
    (kind, text), *more = value.items()
    if more or kind not in ("String", "Regex") or not isinstance(text, str) or not text:
        _refuse("it has a pattern of an unknown kind, or an empty one")
    return len(text) if kind == "String" else check_pattern(text)


def _check_normalizers(value: Any) -> None:
    growth = 1.0
    for part in _parts(value, NORMALIZERS, "normalizer"):
        if part["type"] == "Replace":
            growth *= max(1.0, len(part["content"]) / _pattern(part["pattern"]))
        elif part["type"] == "Prepend" and len(part["prepend"]) > MOST_GROWTH:
            growth += len(part["prepend"])
        elif part["type"] == "Precompiled":
            _check_map(base64.b64decode(part["precompiled_charsmap"] or "", validate=True))
    if growth > MOST_GROWTH:
        _refuse(f"its normalizers can make a text {growth:.0f} times as long")


def _check_map(data: bytes) -> None:
    """Check SentencePiece's map of characters: a trie's size, the trie, and texts that end with NUL."""
    if not data:
        return
    try:
        (size,) = struct.unpack_from("<I", data)
    except struct.error:
        _refuse("its map of characters is cut short")
    texts = data[4 + size :]
    if size % 4 or 4 + size > len(data):
        _refuse("its map of characters is cut short")
    if texts and max(map(len, texts.split(b"\0"))) > MOST_REPLACEMENT_BYTES:
        _refuse("its map of characters makes a text much longer")


def _check_pre_tokenizer(part: dict[str, Any]) -> None:
    if part["type"] == "Split":
        _pattern(part["pattern"])
    elif part["type"] == "FixedLength" and not 1 <= part.get("length", 5) <= MOST_TOKEN_CHARS:
        _refuse("its pieces have no length")


def _check_special(value: Any, max_tokens: int) -> None:
    """Check what is put around a text: few tokens, fewer than the model reads."""
    around = 0
    for part in _parts(value, POST_PROCESSORS, "post-processor"):
        if part["type"] in ("BertProcessing", "RobertaProcessing"):
            around += 2
        elif part["type"] == "TemplateProcessing":
            named = part["special_tokens"]
            single = [*part["single"]]
            texts = sum("Sequence" in piece for piece in single)
            around += sum(len(token["ids"]) for token in named.values()) + len(single)
            if texts != 1 or len(part["pair"]) > MOST_PARTS:
                _refuse("its template does not have the text once")
            used = [
                p["SpecialToken"]["id"] for p in (*single, *part["pair"]) if "SpecialToken" in p
            ]
            if not set(used) <= set(named):
                _refuse("its template has a token that it does not explain")
    if around > MOST_PARTS or (around and around - 1 >= max_tokens + MOST_PARTS):
        _refuse(f"it puts up to {around} tokens around a text")


def _check_added(tokens: list[dict[str, Any]]) -> None:
    if len(tokens) > MOST_ADDED:
        _refuse(f"it has {len(tokens)} added tokens, expected at most {MOST_ADDED}")
    for token in tokens:
        _check_token(token["content"])
        _check_id(token["id"])


def _check_token(text: Any) -> None:
    if not isinstance(text, str) or not 1 <= len(text) <= MOST_TOKEN_CHARS:
        _refuse(f"a token is empty, or longer than {MOST_TOKEN_CHARS} characters")


def _check_id(value: Any) -> None:
    if type(value) is not int or not 0 <= value < 1 << 31:
        _refuse(f"a token has the id {brief(value, 60)}")


def _check_model(model: dict[str, Any]) -> None:
    kind, vocabulary = model["type"], model["vocab"]
    if kind not in MODELS:
        _refuse(f"its model is {brief(kind, 60)}, expected one of {', '.join(sorted(MODELS))}")
    if len(vocabulary) > MOST_TOKENS:
        _refuse(f"it has {len(vocabulary)} tokens, expected at most {MOST_TOKENS}")
    if isinstance(vocabulary, dict) == (kind == "Unigram"):
        _refuse("its vocabulary is of another model")
    tokens = (entry[0] for entry in vocabulary) if kind == "Unigram" else iter(vocabulary)
    longest = max(map(len, tokens), default=0)
    if longest > MOST_TOKEN_CHARS:
        _refuse(f"a token has {longest} characters, expected at most {MOST_TOKEN_CHARS}")
    if kind != "Unigram":
        for value in vocabulary.values():
            _check_id(value)
    _CHECKS[kind](model)


def _check_wordpiece(model: dict[str, Any]) -> None:
    if not 1 <= model.get("max_input_chars_per_word", 100) <= MOST_WORD_CHARS:
        _refuse(f"words may have {brief(model['max_input_chars_per_word'], 60)} characters")
    _check_wordlevel(model)


def _check_wordlevel(model: dict[str, Any]) -> None:
    if model["unk_token"] not in model["vocab"]:
        _refuse("its token for unknown words is not in its vocabulary")


def _check_bpe(model: dict[str, Any]) -> None:
    if model.get("dropout"):
        _refuse("it gives other tokens each time (dropout)")
    if len(model["merges"]) > MOST_TOKENS:
        _refuse(f"it has {len(model['merges'])} merges, expected at most {MOST_TOKENS}")


def _check_unigram(model: dict[str, Any]) -> None:
    unknown = model.get("unk_id")
    if unknown is not None and not 0 <= unknown < len(model["vocab"]):
        _refuse("its token for unknown characters is not in its vocabulary")


_CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "WordPiece": _check_wordpiece,
    "WordLevel": _check_wordlevel,
    "BPE": _check_bpe,
    "Unigram": _check_unigram,
}
