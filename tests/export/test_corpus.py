"""Text that an export reads, and text that comes with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_mrl.errors import UsageError
from edge_mrl_export.texts.corpus import (
    FEWEST_TEXTS,
    calibration_texts,
    paragraphs,
    read_corpus,
    shipped_passages,
)

TEXTS = [f"text number {row}" for row in range(FEWEST_TEXTS)]


def test_text_is_split_at_blank_lines_or_else_at_line_ends() -> None:
    assert paragraphs("a\nb\n \nc\n") == ["a\nb", "c"]
    assert paragraphs("a\nb\nc\n") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "\n".join(json.dumps({"text": text}) for text in TEXTS)),
        ("a.txt", "\n\n".join(TEXTS)),
        ("a.md", "\n".join(TEXTS)),
    ],
)
def test_corpus_is_read_from_files_and_folders(name: str, text: str, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / name).write_text(text, "utf-8")
    assert read_corpus(folder / name) == TEXTS
    assert read_corpus(tmp_path) == TEXTS


def test_too_little_text_is_refused_with_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS[1:]), "utf-8")
    with pytest.raises(UsageError, match=rf"has {FEWEST_TEXTS - 1} texts, expected at least"):
        read_corpus(path)


def test_shipped_text_is_many_lines_without_blank_ones() -> None:
    for texts in (calibration_texts(), shipped_passages()):
        assert len(texts) > 200
        assert all(text.strip() for text in texts)
        assert len(set(texts)) == len(texts)
