from __future__ import annotations

import sys
import unicodedata
from random import Random

import pytest

from android_demo.tools.tables import DEFINITIONS, definitions
from android_demo.tools.words import TABLES, UNICODE, tables
from edge_mrl.search.fusion import _words
from edge_mrl.store.keywords.expression import match_expression
from edge_mrl.store.keywords.form import keyword_text
from tests.android.probe import Probe

same_unicode = pytest.mark.skipif(
    unicodedata.unidata_version != UNICODE, reason=f"the tables are those of Unicode {UNICODE}"
)


def _points() -> list[int]:
    return [p for p in range(1, sys.maxunicode + 1) if not 0xD800 <= p < 0xE000]


def _texts(count: int) -> list[str]:
    """Random texts of characters that combine, and of what stands around them."""
    random = Random(4)
    lively = [
        p for p in _points() if unicodedata.decomposition(chr(p)) or unicodedata.combining(chr(p))
    ]
    plain = [*range(32, 127), *range(0xAC00, 0xAC80), *range(0x1100, 0x1200), 0x301, 0x327, 0x345]
    pools = [lively, plain, plain, lively]
    return [
        "".join(chr(random.choice(random.choice(pools))) for _ in range(random.randint(1, 12)))
        for _ in range(count)
    ]


@same_unicode
@pytest.mark.test
def test_the_tables_are_those_of_python() -> None:
    assert TABLES.read_text(encoding="ascii") == tables()


@pytest.mark.test
def test_the_definitions_are_those_of_the_migrations() -> None:
    assert DEFINITIONS.read_text(encoding="utf-8") == definitions()


@same_unicode
@pytest.mark.test
def test_words_are_indexed_and_looked_for_like_pythons(kotlin: Probe) -> None:
    # Between letters, so that a character that is left out or joined shows.
    points = [f"a{chr(p)}\u0301b" for p in _points() if unicodedata.category(chr(p)) != "Cn"]
    texts = points[:: 1 if len(points) < 10_000 else 7] + _texts(4_000)
    for first in range(0, len(texts), 5_000):
        some = texts[first : first + 5_000]
        assert kotlin("words.text", texts=some) == [keyword_text(text) for text in some]
        found = kotlin("words.words", texts=some)
        assert [set(words) for words in found] == [_words(text) for text in some]
    queries = [
        'one "two three" fo*',
        '"',
        '""x',
        'a"b"c*',
        "ﬁ* NOT (x)",
        "\u3000\x85a\x1cb",
        "*",
        "é-è*",
    ]
    queries += _texts(500)
    assert kotlin("words.match", texts=queries) == [match_expression(query) for query in queries]
