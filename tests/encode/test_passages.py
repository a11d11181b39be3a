from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.documents import PassageRule
from edge_mrl.encode.encoder import Encoder
from edge_mrl.encode.passages import WORD_CHARS, passage_rule, split
from edge_mrl.errors import UsageError
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
    assert passage_rule(encoder) == PassageRule(45, 5)


def test_rule_takes_all_the_room_if_asked(encoder: Encoder) -> None:
    assert passage_rule(encoder, max_tokens=ROOM, overlap=0) == PassageRule(ROOM, 0)


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
    assert split(encoder, text, PassageRule(8, 2)) == []


def test_short_text_is_one_passage(encoder: Encoder) -> None:
    assert split(encoder, "  the cat ", PassageRule(8, 2)) == [(0, 10)]


def test_borders_lie_at_the_start_of_words(encoder: Encoder) -> None:
    text = "the training of a model and the testing of it " * 20
    spans = split(encoder, text, PassageRule(12, 3))
    assert len(spans) > 5
    assert all(start == 0 or text[start - 1].isspace() for start, _ in spans)
    assert all(end == len(text) or text[end - 1].isspace() for _, end in spans)


def test_passages_fit_into_the_model(encoder: Encoder) -> None:
    text = "the training of a model and the testing of it " * 40
    rule = passage_rule(encoder)
    spans = split(encoder, text, rule)
    lengths = [len(encoder.spans(text[start:end], max_tokens=1, overlap=0)) for start, end in spans]
    assert max(lengths) <= ROOM


def test_text_without_spaces_is_cut_where_its_tokens_end(encoder: Encoder) -> None:
    text = "x" * (3 * WORD_CHARS) + "1" * (3 * WORD_CHARS)
    assert split(encoder, text, PassageRule(1, 0))[-1][1] == len(text)


@given(
    text=st.text(alphabet=st.sampled_from("abc x1.\n\u3000\U0001f600\ud800e\u0301"), max_size=300),
    max_tokens=st.integers(1, 20),
    data=st.data(),
)
def test_passages_cover_the_text_in_order(
    encoder: Encoder, text: str, max_tokens: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, max_tokens - 1))
    spans = split(encoder, text, PassageRule(max_tokens, overlap))
    if not spans:
        assert encoder.spans(text, max_tokens=max_tokens, overlap=overlap) == []
        return
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(start < end for start, end in spans)
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start <= next_start <= end <= next_end
