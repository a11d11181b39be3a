"""Markdown by structure."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.markdown import Outline, first_title, is_markdown, read_blocks

pytestmark = pytest.mark.quick

NOTE = """\
Tea
===

About tea, which
is drunk hot.

## Brewing ##

- water
- leaves

  of the first harvest
- a cup

1. boil

| leaf  | minutes |
|-------|--------:|
| green | 2       |

```sh
# no heading

brew --hot
```

### [Green](http://x.org) `tea` **today**
<!-- # hidden

## this too -->
Steep it.

---

Black tea
---
# Coffee
    # code
"""


def test_blocks_are_what_a_person_sees() -> None:
    blocks = read_blocks(NOTE)
    assert [(block.kind, block.level, block.title) for block in blocks if block.level] == [
        ("heading", 1, "Tea"),
        ("heading", 2, "Brewing"),
        ("heading", 3, "Green tea today"),
        ("heading", 2, "Black tea"),
        ("heading", 1, "Coffee"),
    ]
    texts = {block.kind: NOTE[block.start : block.end] for block in blocks if not block.level}
    assert texts["code"] == "```sh\n# no heading\n\nbrew --hot\n```\n\n"
    assert texts["table"].startswith("| leaf")
    assert texts["table"].endswith("| 2       |\n\n")
    assert texts["comment"] == "<!-- # hidden\n\n## this too -->\n"
    lists = [NOTE[block.start : block.end] for block in blocks if block.kind == "list"]
    assert "".join(lists).split() == NOTE[NOTE.index("- water") : NOTE.index("| leaf")].split()
    assert "".join(NOTE[block.start : block.end] for block in blocks) == NOTE


@pytest.mark.parametrize(
    ("place", "above"),
    [
        ("About tea", ("Tea",)),
        ("## Brewing", ("Tea", "Brewing")),
        ("brew --hot", ("Tea", "Brewing")),
        ("Steep", ("Tea", "Brewing", "Green tea today")),
        ("Black", ("Tea", "Black tea")),
        ("# code", ("Coffee",)),
    ],
)
def test_headings_above_a_place(place: str, above: tuple[str, ...]) -> None:
    at = NOTE.rindex(place)
    assert Outline(NOTE).at(at) == above


def test_titles_and_names() -> None:
    assert first_title("## two\n# one\n") == "one"
    assert first_title("## two ##\n\n### three\n") == "two"
    assert first_title("#no heading\n\n#\n") is None
    assert first_title("# " + "long " * 99) == ("long " * 99)[:117].rstrip() + "..."
    names = ("a.md", "A.MD", "b.markdown", "c@1/d.md", "a.md#1", "a.mdx", "md")
    assert [is_markdown(name) for name in names] == [True, True, True, True, False, False, False]


def test_items_of_a_list_keep_their_code() -> None:
    text = "1. one\n\n   ```\n   # code\n\n   more\n   ```\n2. two\n\nafter\n"
    assert [block.kind for block in read_blocks(text)] == ["list", "paragraph"]


@given(st.text(st.sampled_from(list("#-=`~|*1. \t\nab<!>")), max_size=200))
def test_blocks_cover_any_text(text: str) -> None:
    blocks = read_blocks(text)
    assert "".join(text[block.start : block.end] for block in blocks) == text
    assert all(block.start < block.end for block in blocks)
    outline = Outline(text)
    for start in range(len(text)):
        above = outline.above(start, len(text), inside=False)
        assert outline.above(start, len(text))[: len(above)] == above
        outline.at(start)


def test_long_lines_take_no_time() -> None:
    started = time.process_time()
    for line in ("-" * 300_000, " " * 300_000 + "x", "| " * 200_000, "[" * 300_000, "# " * 200_000):
        read_blocks(f"a\n{line}\n{line}\n")
    assert time.process_time() - started < 60  # a few milliseconds, or hours
