"""Markdown cut into passages by its structure."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mrl.documents import Document, PassageRule
from edge_mrl.encode import embedded_texts, split_document, split_passages
from edge_mrl.encode.encoder import Encoder
from tests.support.bundles import TINY

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.test

RULE = PassageRule(32, 4, "markdown")
CODE = "```\n# cat\n\na dog\n```\n\n"
NOTE = (
    "# the cat\n\na cat and a dog and a cat and a dog\n\n"
    "## testing\n\n- a model\n- a test\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" + CODE + "## a dog\n"
    "### a model\n\ntraining\n"
)


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder.open(TINY) as opened:
        yield opened


def parts(encoder: Encoder, text: str, rule: PassageRule = RULE, name: str = "a.md") -> list[str]:
    spans = split_document(encoder, Document(name, text), rule)
    return [text[start:end] for start, end in spans]


def test_blocks_stay_whole_below_their_headings(encoder: Encoder) -> None:
    found = parts(encoder, NOTE)
    assert "".join(found) == NOTE
    assert found[0] == NOTE[: NOTE.index("## testing")]
    assert sum(CODE in part for part in found) == 1
    assert sum("| a | b |\n|---|---|\n| 1 | 2 |" in part for part in found) == 1
    assert sum("## a dog\n### a model\n\ntraining" in part for part in found) == 1
    # The twin: by tokens, borders lie anywhere.
    cut = split_passages(encoder, NOTE, RULE)
    assert not any(NOTE[start:end] == found[0] for start, end in cut)
    assert any(
        "# the cat" in NOTE[start:end] and "## testing" in NOTE[start:end] for start, end in cut
    )


def test_long_blocks_are_cut_between_items_lines_and_words(encoder: Encoder) -> None:
    items = "".join(f"- a cat and a dog {n}\n  and a model\n" for n in range(12))
    found = parts(encoder, f"# the cat\n\n{items}")
    assert len(found) > 3
    assert found[0].startswith("# the cat\n\n- a cat")
    assert all(part.startswith("- a cat") for part in found[1:])
    lines = "".join(f"a cat and a dog {n}\n" for n in range(12))
    found = parts(encoder, f"```\n{lines}```\n")
    assert all(part.startswith("a cat and") for part in found[1:])
    assert found[-1].endswith("a dog 11\n```\n")
    words = "a cat and a dog " * 30
    found = parts(encoder, f"# the cat\n\n{words}")
    assert found[0].startswith("# the cat\n\na cat")
    assert len("".join(found)) > len(words) + 12  # neighbours overlap


def test_small_sections_are_joined_and_others_are_not(encoder: Encoder) -> None:
    small = "# a\n\ncat\n\n"
    assert len(parts(encoder, small * 4)) < 4
    long = "# a cat\n\na dog and a cat and a model\n\n"
    assert len(parts(encoder, long * 4)) == 4


@pytest.mark.parametrize(
    ("name", "rule"), [("a.txt", RULE), ("a.md", PassageRule(32, 4)), ("a.md#1", RULE)]
)
def test_other_documents_and_older_stores_are_split_by_tokens(
    name: str, rule: PassageRule, encoder: Encoder
) -> None:
    assert split_document(encoder, Document(name, NOTE), rule) == split_passages(
        encoder, NOTE, rule
    )
    assert split_document(encoder, Document("a.md", NOTE), RULE) != split_passages(
        encoder, NOTE, RULE
    )


WORDS = st.sampled_from(
    [
        "# ",
        "## ",
        "\n",
        "\n\n",
        "- ",
        "```\n",
        "a cat ",
        "and a dog ",
        "| ",
        "|---|\n",
        "\u200b",
        "===\n",
    ]
)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=60), st.integers(1, 30), st.integers(0, 8))
def test_passages_of_any_markdown_cover_it_in_order(
    words: list[str], most: int, overlap: int
) -> None:
    text = "".join(words)
    rule = PassageRule(most, min(overlap, most - 1), "markdown")
    with Encoder.open(TINY, untried=True) as encoder:
        spans = split_document(encoder, Document("a.md", text), rule)
        assert bool(spans) == bool(split_passages(encoder, text, rule))
        for (start, end), (after, last) in pairwise(spans):
            assert start <= after <= end <= last
        if spans:
            assert (spans[0][0], spans[-1][1]) == (0, len(text))
            assert all(start < end for start, end in spans)


def test_passages_are_the_same_everywhere(encoder: Encoder) -> None:
    """A change of these offsets is a new splitter, with a name of its own."""
    text = NOTE + "".join(f"- a cat {n}\n" for n in range(40)) + NOTE.replace("cat", "model " * 20)
    spans = split_document(encoder, Document("a.md", text), RULE)
    digest = hashlib.sha256(repr([(int(a), int(b)) for a, b in spans]).encode()).hexdigest()
    assert (len(spans), digest[:16]) == (35, "0a7be5291a4628b9")


HEADINGS = PassageRule(96, 0, "markdown+headings")
#: The text below a heading of its own fills two passages.
LONG = "a cat and a dog. " * 14
SECTIONS = f"# the cat\n\n{LONG}\n\n## test\n\n{LONG}\n\n{LONG}\n\n## a dog\n\n### model\n\n{LONG}"


def test_headings_above_a_passage_are_embedded_with_it(encoder: Encoder) -> None:
    document = Document("a.md", SECTIONS)
    spans = split_document(encoder, document, HEADINGS)
    texts = embedded_texts(encoder, document, spans, HEADINGS)
    plain = [SECTIONS[start:end] for start, end in spans]
    before = [text.removesuffix(part) for text, part in zip(texts, plain, strict=True)]
    assert "".join(plain) == SECTIONS
    assert before[0] == ""  # it begins with its heading
    assert "the cat > test\n" in before  # below a heading that stands in the passage before it
    assert [
        one for one, part in zip(before, plain, strict=True) if part.startswith("## a dog")
    ] == ["the cat\n"]
    # The twins: other documents and rules have their text alone.
    assert embedded_texts(encoder, document, spans, RULE) == plain
    assert embedded_texts(encoder, Document("a.txt", SECTIONS), spans, HEADINGS) == plain


@given(
    st.lists(
        st.sampled_from(
            ["# the cat", "## a dog and a cat and a dog", "### model", "a test of it " * 4]
        ),
        max_size=14,
    ),
    st.integers(1, 40),
)
@settings(max_examples=60)
def test_passage_and_headings_fit_into_what_the_rule_allows(
    encoder: Encoder, blocks: list[str], most: int
) -> None:
    document = Document("a.md", "\n\n".join(blocks))
    rule = PassageRule(most, most // 8, "markdown+headings")
    spans = split_document(encoder, document, rule)
    texts = embedded_texts(encoder, document, spans, rule)
    for text, (start, end) in zip(texts, spans, strict=True):
        plain = document.text[start:end]
        assert text.endswith(plain)
        whole, part = (len(ids) for ids in encoder.tokenize([text, plain]))
        assert whole - part <= most // 8


def test_of_headings_too_long_for_their_room_the_innermost_stay(encoder: Encoder) -> None:
    rule = PassageRule(64, 0, "markdown+headings")
    for inner, last in (("test", "test\n"), ("test " * 20, "")):
        text = f"# the cat and a dog and a model\n\na\n\n## {inner}\n\n{LONG}{LONG}"
        document = Document("a.md", text)
        spans = split_document(encoder, document, rule)
        found = embedded_texts(encoder, document, spans, rule)[-1]
        assert found == last + text[slice(*spans[-1])]
