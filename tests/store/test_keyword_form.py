"""The form in which words are indexed: the same in every Python, and as keywords.json has it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import pytest

from edge_mrl.store.keywords.form import keyword_text, lacking
from edge_mrl.store.keywords.unassigned import UNASSIGNED
from edge_mrl.store.migrations import KEYWORD_COLUMNS

ROOT = Path(__file__).parent.parent.parent
VECTORS = json.loads((ROOT / "tests/golden/keywords.json").read_text("ascii"))
#: Of all characters between others, and of random texts; the same in every Python.
DIGEST = "167c505baeda71c8f18dfca0dfa88d2e"
WORDS_DIGEST = "40326900058fe24a7f9f8c44dfecac63"
_OLD = unicodedata.ucd_3_2_0
#: Characters that Unicode 3.2 lacks and that others join, sort, or only have.
NEWER = [0x1B05, 0x1B35, 0x1DC4, 0x1DCE, 0x20F0, 0x1CE2, 0x11099, 0x110BA, 0x114B9, 0x114BA]
NEWER += [0x11382, 0x113C9, 0x1F600, 0xA960, 0xD7CB, 0xFA70, 0x1E9E, 0x378, 0x10FFFF]


def points() -> list[int]:
    return [point for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]


def texts(count: int) -> list[str]:
    """Texts of characters that combine, and of what stands around them."""
    random = Random(4)
    had = [chr(point) for point in points() if _OLD.category(chr(point)) != "Cn"]
    lively = [one for one in had if _OLD.normalize("NFKD", one) != one or _OLD.combining(one)]
    plain = [chr(p) for p in (*range(32, 127), *range(0xAC00, 0xAC80), *range(0x1100, 0x1200))]
    pools = [lively, lively, plain, ["\u0301", "\u0323", "\u0345"], [chr(p) for p in NEWER]]
    return [
        "".join(random.choice(random.choice(pools)) for _ in range(random.randint(1, 12)))
        for _ in range(count)
    ]


def digest(make: Callable[[str], str], some: Iterable[str]) -> str:
    found = hashlib.sha256()
    for text in some:
        found.update(make(text).encode() + b"\n")
    return found.hexdigest()[:32]


def sample() -> list[str]:
    some = points()
    every = [
        " ".join(f"a{chr(point)}\u0301b" for point in some[first : first + 4_096])
        for first in range(0, len(some), 4_096)
    ]
    return every + texts(10_000)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["why"])
def test_form_is_that_of_the_vectors(vector: dict[str, str]) -> None:
    assert keyword_text(vector["text"]) == vector["form"]
    assert keyword_text(vector["form"]) == vector["form"]


@pytest.mark.test
def test_characters_that_unicode_3_2_lacks_are_listed() -> None:
    ranges = []
    lacked = [p for p in range(sys.maxunicode + 1) if _OLD.category(chr(p)) == "Cn"]
    for _, group in groupby(enumerate(lacked), key=lambda pair: pair[1] - pair[0]):
        some = [point for _, point in group]
        ranges.append(f"{some[0]:x}-{some[-1]:x}")
    assert UNASSIGNED.split() == ranges
    assert lacking().findall("a\u1dc4\u1dc5b\u0301\U0001f600\ud800") == [
        "\u1dc4\u1dc5",
        "\U0001f600",
    ]


@pytest.mark.test
def test_form_of_every_character_is_the_same_in_every_python() -> None:
    some = sample()
    assert digest(keyword_text, some) == DIGEST
    # Twin: by the tables of this Python alone it is another.
    assert digest(lambda text: _OLD.normalize("NFKC", text), some) != DIGEST


def words_digest(connection: Any) -> str:
    """Of the words that FTS5 makes of every character."""
    connection.execute(f"CREATE VIRTUAL TABLE t USING fts5 ({KEYWORD_COLUMNS})")
    connection.execute("CREATE VIRTUAL TABLE v USING fts5vocab (t, instance)")
    some = points()[1:]
    for first in range(0, len(some), 4_096):
        text = " ".join(f"a{chr(point)}b" for point in some[first : first + 4_096])
        connection.execute("INSERT INTO t (rowid, text) VALUES (?, ?)", (first, text))
    words = connection.execute("SELECT term FROM v ORDER BY doc, offset")
    return digest(str, (word for (word,) in words))


@pytest.mark.nightly
@pytest.mark.parametrize("library", ["sqlite3", "sqlcipher3"])
def test_fts5_makes_the_same_words_in_every_sqlite(library: str) -> None:
    with closing(pytest.importorskip(library).connect(":memory:")) as connection:
        assert words_digest(connection) == WORDS_DIGEST


@pytest.mark.test
def test_nothing_is_joined_across_a_character_that_3_2_lacks() -> None:
    random = Random(7)
    for text in texts(2_000):
        border = chr(random.choice(NEWER))
        other = text[::-1]
        assert keyword_text(text + border + other) == (
            keyword_text(text) + border + keyword_text(other)
        )


#: Prints the digest, with a package that has nothing but the form: others may need what is not installed.
ELSEWHERE = """
import sys, types
for name in ("edge_mrl", "edge_mrl.store", "edge_mrl.store.keywords"):
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = [sys.argv[1] + "/" + name.replace(".", "/")]
from edge_mrl.store.keywords.form import keyword_text
import hashlib
found = hashlib.sha256()
for text in eval(sys.stdin.read()):
    found.update(keyword_text(text).encode() + b"\\n")
print(found.hexdigest()[:32])
"""


@pytest.mark.nightly
def test_form_is_the_same_in_the_pythons_of_this_machine() -> None:
    from tests.support.pythons import environments  # not there where only the wheel is

    for name, python in environments().items():
        command = [python, "-c", ELSEWHERE, str(ROOT)]
        done = subprocess.run(
            command, input=ascii(sample()), capture_output=True, text=True, check=False
        )
        assert (name, done.stdout.strip()) == (name, DIGEST), done.stderr
