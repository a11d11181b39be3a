"""Facts of files and front matter of notes, as metadata."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.documents import Document
from edge_mrl.sources import find_sources, read_documents
from edge_mrl.sources.frontmatter import front_matter
from edge_mrl.sources.yaml import YamlError, read_yaml

AT = 1_760_000_000
NAMED = "2025-10-09T08:53:20Z"


def read(path: Path) -> tuple[Document, list[str]]:
    notes: list[str] = []
    os.utime(path, (AT, AT))
    found = read_documents(
        find_sources([path]),
        skipped=lambda *_: None,
        noted=lambda place, what: notes.append(f"{Path(place).name}: {what}"),
    )
    return next(iter(found)), notes


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("work").mkdir()
    return Path("work/tea.md")


@pytest.mark.quick
def test_every_file_has_path_folder_title_and_time(note: Path) -> None:
    note.write_text("text without headings")
    document, _ = read(note)
    place = {"path": "work/tea.md", "folder": "work", "mtime": NAMED}
    assert document.metadata == {**place, "title": "tea"}
    note.write_text("## Second\n\n```\n# code\n```\n\nFirst\n===\n")
    assert read(note)[0].metadata["title"] == "First"
    plain = Path("a.txt")
    plain.write_text("# no Markdown")
    facts = {"path": "a.txt", "folder": "", "title": "a", "mtime": NAMED}
    assert read(plain)[0].metadata == facts


@pytest.mark.quick
@pytest.mark.parametrize(
    "head",
    [
        "---\ntitle: Tea\ntags: [green, hot]\nday: 2024-05-06\n---\n",
        "---\r\ntitle: 'Tea'\r\ntags:\r\n- green\r\n- hot\r\nday: 2024-05-06\r\n...\r\n",
        '+++\ntitle = "Tea"\ntags = ["green", "hot"]\nday = 2024-05-06\n+++\n',
    ],
)
def test_front_matter_is_metadata_and_its_title_wins(head: str, note: Path) -> None:
    note.write_bytes(f"{head}# Heading\r\n\ntext\n".encode())
    document, notes = read(note)
    assert document.text == "# Heading\r\n\ntext\n"
    assert (document.metadata["title"], document.metadata["tags"]) == ("Tea", ["green", "hot"])
    assert (document.metadata["day"], notes) == ("2024-05-06", [])


@pytest.mark.quick
def test_facts_are_the_files_and_what_a_note_says_is_kept_apart(note: Path) -> None:
    note.write_text("---\npath: x\nmtime: 7\nown: mine\nlang: en\n---\ntext")
    metadata = read(note)[0].metadata
    assert (metadata["path"], metadata["mtime"], metadata["lang"]) == ("work/tea.md", NAMED, "en")
    assert metadata["own"] == {"path": "x", "mtime": 7, "own": "mine"}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("inner", "why"),
    [
        ("a: &x 1\nb: *x", "line 2: an anchor is not read"),
        ("a: !!python/object/apply:os.system [ls]", "a tag is not read"),
        ("a: [1, 2", "line 2: a list, a mapping or a quoted text has no end"),
        ("a: 1\na: 2", "line 3: the name 'a' comes twice"),
        ("a:\n\t- b", "a tab cannot indent"),
        ("only text", "expected names and values"),
        ("- a\n- b", "expected names and values"),
        ('a: "\\ud800"', "surrogate"),
        ("a: " + "[" * 40 + "]" * 40, "more than 16 levels"),
        ("\n".join(f"a{n}: {n}" for n in range(3_000)), "more than 2,048 values"),
    ],
)
def test_front_matter_that_cannot_be_read_stays_in_the_text(
    inner: str, why: str, note: Path
) -> None:
    text = f"---\n{inner}\n---\n# Tea\n"
    note.write_text(text)
    document, notes = read(note)
    assert (document.text, document.metadata["title"]) == (text, "Tea")
    assert len(notes) == 1
    assert notes[0].startswith("tea.md: its front matter is read as text: ")
    assert why in notes[0]


@pytest.mark.quick
@pytest.mark.parametrize(
    "text",
    ["---\nno end", "----\na: 1\n---\n", " ---\na: 1\n---\n", "", "---", "a\n---\nb: 1\n---\n"],
)
def test_lines_that_are_drawn_are_no_front_matter(text: str) -> None:
    assert front_matter(text) == front_matter("plain")
    assert front_matter("---\n---\nx").end == len("---\n---\n")


@pytest.mark.quick
def test_hostile_front_matter_takes_no_time(note: Path) -> None:
    started = time.process_time()
    for inner in ("a: [\n" + "x,\n" * 20_000, "a" + " " * 60_000 + "b", "a: '" + "\n'" * 20_000):
        front_matter(f"---\n{inner}\n---\n")
    assert time.process_time() - started < 60  # hours, if any of it were quadratic without a bound


@pytest.mark.quick
@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: two\nc: -7\nd: .5\ne: ~\nf: true\ng:\nh: ''\n",
        "tags: [tea, 'green, hot', \"x\\ny\"]\n",
        "tags:\n- a\n- b\nmore:\n  - a\n  - b: 1\n    c: 2\n  -\n    - x\n",
        "a:\n  b:\n    c: 3.5\nd: x # a comment\n# another\ne: 'it''s'\n",
        "t: |\n  one\n  two\n\n  three\nu: >\n  one\n  two\n\n  three\nv: |-\n  x\nw: >+\n  y\n\n",
        "a: {x: 1, y: [2, 3], z: {}}\nb: [x,\n  y]\nc: long text\n  goes on\n",
        "url: http://x.org/a#b\nup: [[Tea]]\n\"a name\": x\n'b c': y\nkey with spaces: v\n",
        "a: >-\n  x\n    y\n  z\nb: 'two\n  lines'\n",
    ],
)
def test_yaml_is_read_as_another_reader_reads_it(text: str) -> None:
    yaml = pytest.importorskip("yaml")
    assert read_yaml(text) == yaml.safe_load(text)


@pytest.mark.quick
def test_values_that_json_lacks_are_texts() -> None:
    text = "a: 2024-01-02\nb: 12:30\nc: yes\nd: 0150\ne: .inf\nf: 9223372036854775808\n"
    texts = {"a": "2024-01-02", "b": "12:30", "c": "yes", "d": "0150", "e": ".inf"}
    assert read_yaml(text) == texts | {"f": "9223372036854775808"}
    day = dt.date(2024, 1, 2).isoformat()
    toml = f"+++\nday = {day}\nn = inf\nl = 9223372036854775808\n[in]\nt = 07:32:00\n+++\n"
    found = front_matter(toml)
    expected: dict[str, Any] = {"day": day, "n": "inf", "l": "9223372036854775808"}
    assert found.metadata == {**expected, "in": {"t": "07:32:00"}}


LINE = st.text(st.sampled_from(list("ab: -[]{},'\"#|>&*!?\\ \t0.\n")), max_size=40)


@pytest.mark.quick
@given(LINE)
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(YamlError):
        read_yaml(text)
    assert front_matter(f"---\n{text}\n---\nbody").end in (0, *range(8, len(text) + 14))
