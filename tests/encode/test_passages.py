from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mrl import encode
from edge_mrl.documents import PassageRule
from edge_mrl.encode import passages
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.passages import (
    WORD_CHARS,
    passage_rule,
    split_passages,
    token_spans,
)
from edge_mrl.errors import UsageError
from tests.encode.test_encoder import mixed_texts
from tests.support.bundles import TINY

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of the committed bundle: 48 tokens, two of them special.
ROOM = 46


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder.open(TINY) as opened:
        yield opened


def test_rule_by_default_leaves_slack_and_overlaps(encoder: Encoder) -> None:
    assert passage_rule(encoder) == PassageRule(45, 5, "markdown")


def test_rule_takes_all_the_room_if_asked(encoder: Encoder) -> None:
    assert passage_rule(encoder, max_tokens=ROOM, overlap=0) == PassageRule(ROOM, 0, "markdown")


@pytest.mark.parametrize(
    "options",
    [{"max_tokens": 0}, {"max_tokens": ROOM + 1}, {"overlap": -1}, {"max_tokens": 8, "overlap": 8}],
)
def test_rule_that_the_model_cannot_keep_is_an_error(
    encoder: Encoder, options: dict[str, int]
) -> None:
    with pytest.raises(UsageError, match="tokens"):
        passage_rule(encoder, **options)


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_blank_text_has_no_passages(encoder: Encoder, text: str) -> None:
    assert split_passages(encoder, text, PassageRule(8, 2)) == []


def test_short_text_is_one_passage(encoder: Encoder) -> None:
    assert split_passages(encoder, "  the cat ", PassageRule(8, 2)) == [(0, 10)]


def test_borders_lie_at_the_start_of_words(encoder: Encoder) -> None:
    text = "the training of a model and the testing of it " * 20
    spans = split_passages(encoder, text, PassageRule(12, 3))
    assert len(spans) > 5
    assert all(start == 0 or text[start - 1].isspace() for start, _ in spans)
    assert all(end == len(text) or text[end - 1].isspace() for _, end in spans)


def test_passages_fit_into_the_model(encoder: Encoder) -> None:
    text = "the training of a model and the testing of it " * 40
    rule = passage_rule(encoder)
    spans = split_passages(encoder, text, rule)
    parts = [text[start:end] for start, end in spans]
    lengths = [len(token_spans(encoder, part, max_tokens=1, overlap=0)) for part in parts]
    assert max(lengths) <= ROOM


def test_text_without_spaces_is_cut_where_its_tokens_end(encoder: Encoder) -> None:
    text = "x" * (3 * WORD_CHARS) + "1" * (3 * WORD_CHARS)
    assert split_passages(encoder, text, PassageRule(1, 0))[-1][1] == len(text)


@given(
    text=st.text(alphabet=st.sampled_from("abc x1.\n\u3000\U0001f600\ud800e\u0301"), max_size=300),
    max_tokens=st.integers(1, 20),
    data=st.data(),
)
def test_passages_cover_the_text_in_order(
    encoder: Encoder, text: str, max_tokens: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, max_tokens - 1))
    spans = split_passages(encoder, text, PassageRule(max_tokens, overlap))
    if not spans:
        assert token_spans(encoder, text, max_tokens=max_tokens, overlap=overlap) == []
        return
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(start < end for start, end in spans)
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start <= next_start <= end <= next_end


# --- by tokens alone


def test_spans_cover_the_text_with_overlap(encoder: Encoder) -> None:
    text = "  " + " ".join(mixed_texts(60)) + "  \n"
    spans = token_spans(encoder, text, max_tokens=20, overlap=5)
    assert len(spans) > 10
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    for (start, end), (after, _) in pairwise(spans):
        assert start < after < end
    for start, end in spans:
        assert len(encoder.tokenize([text[start:end]])[0]) <= 20 + 2


def test_spans_without_overlap_join_to_the_text(encoder: Encoder) -> None:
    text = " ".join(mixed_texts(40)) + " naïve İstanbul 👩‍🚀 \ud800 end"
    spans = token_spans(encoder, text, max_tokens=7, overlap=0)
    assert "".join(text[start:end] for start, end in spans) == text


def test_short_text_is_one_span_and_blank_text_none(encoder: Encoder) -> None:
    assert token_spans(encoder, " the cat ", max_tokens=8, overlap=2) == [(0, 9)]
    assert token_spans(encoder, "", max_tokens=8, overlap=2) == []
    assert token_spans(encoder, " \n\t ", max_tokens=8, overlap=2) == []


@pytest.mark.parametrize(("most", "overlap"), [(0, 0), (4, 4), (4, -1), (4, 5)])
def test_spans_refuse_an_overlap_that_never_ends(encoder: Encoder, most: int, overlap: int) -> None:
    with pytest.raises(UsageError, match="overlap"):
        token_spans(encoder, "text", max_tokens=most, overlap=overlap)


def test_split_has_another_name() -> None:
    with pytest.warns(DeprecationWarning, match="split_passages"):
        split = vars(encode)["__getattr__"]("split")
    assert split is split_passages


def test_spans_of_an_encoder_have_moved(encoder: Encoder) -> None:
    text = "the cat and a dog " * 9
    with pytest.warns(DeprecationWarning, match="token_spans"):
        spans = encoder.spans(text, max_tokens=8, overlap=2)
    assert spans == token_spans(encoder, text, max_tokens=8, overlap=2)


# --- in blocks


def spans_in_blocks(encoder: Encoder, text: str, block: int) -> list[tuple[int, int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "BLOCK_CHARS", block)
        return token_spans(encoder, text, max_tokens=7, overlap=2)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="abc catdog.,!\n\t\u00e9\u4f60\u00a0", max_size=300),
    block=st.integers(20, 60),
)
def test_text_split_in_blocks_gives_the_same_passages(
    encoder: Encoder, text: str, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "BLOCK_CHARS", block)
        blocks = list(passages._blocks(text))
    assert "".join(text[first:after] for first, after in blocks) == text
    assert all(after - first <= block for first, after in blocks)
    if all(len(word) < block // 2 for word in text.split()):  # else a word is split
        assert spans_in_blocks(encoder, text, block) == spans_in_blocks(encoder, text, 10**9)
