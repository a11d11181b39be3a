from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from edge_mrl.encode.encoder import Encoder
from edge_mrl.errors import UsageError
from edge_mrl_export.build import export
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.texts.corpus import calibration_texts
from edge_mrl_export.texts.pruning import keep_tokens, prune, unreachable
from edge_mrl_export.texts.vocabulary import choose_vocabulary

TEXTS = calibration_texts()
ENGLISH = [text for text in TEXTS if text.isascii()]


def _trained(kind: str) -> dict[str, Any]:
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=900, special_tokens=specials)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=900, special_tokens=specials, unk_token="<unk>"
        )
    elif kind == "bpe bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=specials, initial_alphabet=alphabet
        )
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=specials)
    tokenizer.train_from_iterator(ENGLISH, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True)])
    first, last = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)]
    )
    return json.loads(tokenizer.to_str())


KINDS = ("wordpiece", "unigram", "bpe bytes", "bpe metaspace")
TRAINED = {kind: _trained(kind) for kind in KINDS}
WHOLE = {kind: Tokenizer.from_str(json.dumps(value)) for kind, value in TRAINED.items()}
PRUNED = {kind: prune(value, ENGLISH[:80], 520) for kind, value in TRAINED.items()}
AFTER = {kind: Tokenizer.from_str(json.dumps(value.tokenizer)) for kind, value in PRUNED.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_prune_keeps_the_size_and_the_order(kind: str) -> None:
    kept = PRUNED[kind].kept
    assert len(kept) == 520 < WHOLE[kind].get_vocab_size()
    assert (np.diff(kept) > 0).all()
    assert AFTER[kind].get_vocab_size() == 520
    for new, old in enumerate(kept):
        assert AFTER[kind].id_to_token(new) == WHOLE[kind].id_to_token(int(old))


@pytest.mark.parametrize("kind", KINDS)
@given(
    words=st.lists(st.sampled_from(sorted({w for t in ENGLISH for w in t.split()})), max_size=12)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_text_of_kept_tokens_tokenises_the_same(kind: str, words: list[str]) -> None:
    text = " ".join(words)
    before = WHOLE[kind].encode(text)
    after = AFTER[kind].encode(text)
    kept = set(PRUNED[kind].kept.tolist())
    if set(before.ids) <= kept:
        # Unigram may find a better path only among tokens that it had before too.
        assert after.tokens == before.tokens
        assert [int(PRUNED[kind].kept[i]) for i in after.ids] == before.ids


@pytest.mark.parametrize("kind", KINDS)
def test_other_text_falls_into_pieces_not_unknowns(kind: str) -> None:
    text = "Unprecedented zygote quixotry"
    after = AFTER[kind].encode(text).tokens
    assert (
        len(after) > len(WHOLE[kind].encode(text).tokens)
        or after == WHOLE[kind].encode(text).tokens
    )
    assert "<unk>" not in after


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_survive(kind: str) -> None:
    tokens = AFTER[kind].encode("the cat <mask>").tokens
    assert (tokens[0], tokens[-2], tokens[-1]) == ("<s>", "<mask>", "</s>")
    assert AFTER[kind].token_to_id("<pad>") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_share_of_unchanged_texts_is_counted_on_held_out_text(kind: str) -> None:
    texts = ENGLISH[:80]
    result = PRUNED[kind]
    held_out = texts[::5]
    same = [
        [int(result.kept[i]) for i in AFTER[kind].encode(t).ids] == WHOLE[kind].encode(t).ids
        for t in held_out
    ]
    assert result.held_out == len(held_out)
    assert result.same == pytest.approx(sum(same) / len(same))


def test_more_tokens_change_fewer_texts() -> None:
    shares = [prune(TRAINED["wordpiece"], ENGLISH, size).same for size in (300, 600, 880)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


def test_keeping_everything_changes_nothing() -> None:
    tokenizer = TRAINED["bpe bytes"]
    size = WHOLE["bpe bytes"].get_vocab_size()
    result = prune(tokenizer, ENGLISH, size)
    assert result.tokenizer == tokenizer
    assert result.same == 1


def test_merges_written_as_strings_are_read() -> None:
    tokenizer = json.loads(json.dumps(TRAINED["bpe bytes"]))
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    result = prune(tokenizer, ENGLISH[:80], 520)
    assert (result.kept == PRUNED["bpe bytes"].kept).all()


def test_too_small_a_size_names_the_least() -> None:
    with pytest.raises(UsageError, match="must be kept"):
        prune(TRAINED["wordpiece"], ENGLISH, 10)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 20 texts"):
        prune(TRAINED["wordpiece"], ENGLISH[:5], 600)


def test_unknown_kind_of_vocabulary_is_named() -> None:
    tokenizer = {**TRAINED["wordpiece"], "model": {"type": "Hieroglyphs", "vocab": {}}}
    with pytest.raises(UsageError, match="Hieroglyphs"):
        prune(tokenizer, ENGLISH, 600)


def test_padding_token_that_would_move_is_refused() -> None:
    tokenizer = json.loads(json.dumps(TRAINED["wordpiece"]))
    last = WHOLE["wordpiece"].get_vocab_size()
    token = {**tokenizer["added_tokens"][1], "id": last, "content": "[PAD]"}
    tokenizer["added_tokens"].append(token)
    with pytest.raises(UsageError, match="padding token"):
        prune(tokenizer, ENGLISH, 600)


def test_roberta_style_processor_is_rewritten() -> None:
    tokenizer = json.loads(json.dumps(TRAINED["bpe bytes"]))
    unused = tokenizer["model"]["vocab"]["Ġthe"]
    tokenizer["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            {"type": "RobertaProcessing", "sep": ["</s>", unused], "cls": ["<s>", 0],
             "trim_offsets": True, "add_prefix_space": True},
        ],
    }  # fmt: skip
    result, kept = keep_tokens(tokenizer, {*range(300), unused, 900 - 1, _mask_id(tokenizer)})
    assert kept[result["post_processor"]["processors"][1]["sep"][1]] == unused


def _mask_id(tokenizer: dict[str, Any]) -> int:
    return next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == "<mask>")


def test_tokens_that_no_text_gives_hold_a_word_of_its_own_and_more() -> None:
    tokens = [
        "[PAD]",
        "[UNK]",
        "a",
        "##b",
        "!",
        "##!",
        "...",
        "猫",
        "##猫",
        "犬猫",
        "é",
        "[unused0]",
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": i, "content": tokens[i], "special": True, **flags} for i in (0, 1)]
    tokenizer = {
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "handle_chinese_chars": True, "lowercase": False,
                       "clean_text": True, "strip_accents": False},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "vocab": {t: i for i, t in enumerate(tokens)},
                  "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100},
    }  # fmt: skip
    lost = ["##!", "...", "##猫", "犬猫", "[unused0]"]
    assert [tokens[i] for i in sorted(unreachable(tokenizer))] == lost
    tokenizer["normalizer"]["handle_chinese_chars"] = False
    lost = ["##!", "...", "[unused0]"]
    assert [tokens[i] for i in sorted(unreachable(tokenizer))] == lost
    tokenizer["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    assert unreachable(tokenizer) == set()


@pytest.mark.test
def test_minilm_loses_tokens_and_no_text(minilm_model: Path) -> None:
    tokenizer = json.loads((minilm_model / "tokenizer.json").read_text("utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    lost = unreachable(tokenizer)
    assert (
        len(lost) == 994 + 337
    )  # placeholders, and what punctuation and ideographs cannot continue
    _assert_no_text_gives(tokenizer, lost)
    vocabulary = choose_vocabulary(tokenizer, TEXTS, None)
    odd = ["[unused1]", "x [unused993] y", "[ unused5 ]", "[MASK] [unused", "[unused7][SEP]"]
    assert vocabulary.kept is not None
    assert len(vocabulary.kept) == 30522 - 994 - 337
    assert vocabulary.unchanged([*TEXTS, *odd]) == [*TEXTS, *odd]


def _assert_no_text_gives(tokenizer: dict[str, Any], lost: set[int]) -> None:
    """Look for them in each character of Unicode between letters, and in each token behind others."""
    whole = Tokenizer.from_str(json.dumps(tokenizer))
    characters = [chr(i) for i in range(0x20, 0x30000) if not 0xD800 <= i < 0xE000]
    bare = [token.removeprefix("##") for token in tokenizer["model"]["vocab"]]
    texts = [f"{c}{c}a{c}b" for c in characters] + [f"{b} x{b} {b}{b}" for b in bare]
    found = {i for encoding in whole.encode_batch(texts) for i in encoding.ids}
    assert not found & lost
    assert len(found) > 0.9 * (30522 - len(lost))


@pytest.mark.test
@pytest.mark.parametrize("head", ["prefix", pytest.param("auto", marks=pytest.mark.nightly)])
def test_pruned_bundle_gives_the_same_vectors_for_kept_words(
    head: str, minilm_model: Path, minilm_bundle: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(ENGLISH), "utf-8")
    recipe = Recipe(corpus=corpus, prune_vocab=8000, head=head)
    result = export(str(minilm_model), tmp_path / "pruned", recipe)
    assert result.manifest.size_bytes < 15_500_000
    assert result.report["vocabulary"]["tokens"] == 8000
    with Encoder.open(result.path) as pruned, Encoder.open(minilm_bundle) as whole:
        assert pruned.manifest.space_id == whole.manifest.space_id
        texts = _unchanged(minilm_model, ENGLISH)
        assert len(texts) > len(ENGLISH) / 2
        left, right = pruned.encode(texts).full, whole.encode(texts).full
    # The same weights and tokens, calibrated on other text: only smoothing may differ.
    assert left is not None
    assert right is not None
    assert (left * right).sum(axis=1).min() > 0.99


def _unchanged(model: Path, texts: list[str]) -> list[str]:
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    return choose_vocabulary(tokenizer, texts, 8000).unchanged(texts)
