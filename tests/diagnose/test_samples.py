"""Texts to measure with: Python's own, and a user's."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from edge_mrl.diagnose import samples
from edge_mrl.errors import UsageError


@pytest.mark.test
def test_built_in_texts_are_the_same_every_time_and_of_mixed_length() -> None:
    sample = samples.built_in_sample()
    code = "from edge_mrl.diagnose import samples; print(samples.built_in_sample().digest)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == sample.digest
    lengths = sorted(len(text.split()) for text in sample.documents)
    assert (lengths[0], len(lengths), len(set(lengths))) == (20, 128, 128)
    assert 190 < lengths[-1] <= 200
    assert len(set(sample.queries)) > 90
    words = {len(query.split()) for query in sample.queries}
    assert min(words) == 4
    assert max(words) <= 12


def test_own_texts_are_spread_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"text number {i} of all those" for i in range(1000)), "utf-8")
    sample = samples.sample_of_file(str(path))
    assert (len(sample.documents), len(sample.queries)) == (samples.DOCUMENTS, samples.QUERIES)
    numbers = [int(text.split()[2]) for text in sample.documents]
    assert numbers[0] < 20
    assert numbers[-1] > 980
    assert numbers == sorted(set(numbers))


def test_own_texts_from_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "one two"}\n{"text": "a b c d e f g", "id": "x"}\n', "utf-8")
    sample = samples.sample_of_file(str(path))
    assert sample.documents == ("one two", "a b c d e f g")
    assert sample.queries == ("a b c d",)
    assert (sample.document_words, sample.query_words) == (4.5, 4)


def test_own_texts_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n \n")
    for name, message in (("none.txt", "no file"), ("blank.txt", "holds no text")):
        with pytest.raises(UsageError, match=message):
            samples.sample_of_file(str(tmp_path / name))


@pytest.mark.test
def test_built_in_texts_are_prose() -> None:
    for text in samples.built_in_sample().documents:
        assert not samples._CODE.search(text)


def test_python_without_sources_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(UsageError, match="--texts"):
        samples.built_in_sample()


def test_digest_names_the_texts() -> None:
    one = samples.Sample("x", ("a", "b"), ("c",))
    assert one.digest == samples.Sample("y", ("a", "b"), ("c",)).digest
    assert one.digest != samples.Sample("x", ("a",), ("b", "c")).digest
    assert one.digest != samples.Sample("x", ("a", "\ud800"), ("c",)).digest
    assert len(one.digest) == 12
