"""The sentence that answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.encode.encoder import Encoder, Encoding
from edge_mrl.search import Words, sentence_by_model, sentence_by_words, sentences
from edge_mrl.search.snippets import MODEL_SENTENCES
from tests.support.bundles import TINY

PASSAGE = (
    "## Ferry\n\nThe ferry is white. It leaves at 9.30 from the old harbour! (Not on Sundays.)\n\n"
    "- tickets on board\n- dogs are free\n\nCaf\xe9 on the \u4e0a\u5c42\u3002\u5f88\u597d\u3002"
)


@pytest.mark.quick
def test_sentences_are_those_of_a_reader() -> None:
    assert [PASSAGE[start:end] for start, end in sentences(PASSAGE)] == [
        "The ferry is white.",
        "It leaves at 9.30 from the old harbour!",
        "(Not on Sundays.)",
        "- tickets on board",
        "- dogs are free",
        "Caf\xe9 on the \u4e0a\u5c42\u3002",
        "\u5f88\u597d\u3002",
    ]
    assert sentences("# only a heading\n") == [(0, 16)]
    assert sentences(" \n ") == []


@pytest.mark.quick
@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("when does it leave the harbour", "It leaves at 9.30 from the old harbour!"),
        ("are DOGS allowed", "- dogs are free"),
        ("cafe", "Caf\xe9 on the \u4e0a\u5c42\u3002"),
        ('"sunday*"', "(Not on Sundays.)"),
        ("the ferry", "The ferry is white."),
        ("nothing of this", None),
    ],
)
def test_words_choose_the_sentence_that_has_most_of_them(query: str, sentence: str | None) -> None:
    found = sentence_by_words(PASSAGE, Words(query))
    assert (None if found is None else PASSAGE[found[0] : found[1]]) == sentence


@pytest.mark.quick
def test_marks_are_the_words_of_the_question() -> None:
    words = Words("caf\xc9 tick*")
    assert [PASSAGE[a:b] for a, b in words.marks(PASSAGE)] == ["tickets", "Caf\xe9"]
    assert Words("").marks(PASSAGE) == []


@pytest.mark.test
def test_the_model_chooses_in_one_batch_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    passage = "a cat and a dog. training of a model. 0 1 2."
    with Encoder.open(TINY) as encoder:
        texts: list[list[str]] = []
        encode = encoder.encode

        def counted(some: Iterable[str], **options: Any) -> Encoding:
            texts.append(list(some))
            return encode(texts[-1], **options)

        monkeypatch.setattr(encoder, "encode", counted)
        (found,) = sentence_by_model([passage], "training of a model.", encoder)
        assert found is not None
        assert passage[found[0] : found[1]] == "training of a model."
        chosen = sentence_by_model([passage] * 50 + ["a cat"], "a cat", encoder)
        assert [len(some) for some in texts] == [1, 3, 1, MODEL_SENTENCES]
        assert [span is not None for span in chosen] == [True] * 8 + [False] * 42 + [True]
        assert sentence_by_model([""], "a cat", encoder) == [None]


@pytest.mark.quick
@given(st.text(st.sampled_from(list("a. \n#-!\u3002'1")), max_size=80), st.text(max_size=10))
def test_sentences_of_any_text_are_in_it(text: str, query: str) -> None:
    spans = sentences(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(text[start:end].strip() == text[start:end] for start, end in spans)
    found = sentence_by_words(text, Words(query))
    assert found is None or found in spans


@pytest.mark.quick
def test_long_passages_take_no_time() -> None:
    started = time.process_time()
    for text in ("." * 300_000, " \n" * 100_000, "a." + " " * 300_000, "- " * 100_000):
        sentence_by_words(text, Words("a"))
    assert time.process_time() - started < 60
