"""The text of an export: the user's corpus, or text that comes with the exporter."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from edge_mrl.errors import UsageError
from edge_mrl.sources import LINES_SUFFIXES, find_sources, read_documents

__all__ = ["FEWEST_TEXTS", "calibration_texts", "paragraphs", "read_corpus", "shipped_passages"]

#: Fewer texts do not show the range of a channel.
FEWEST_TEXTS = 16


def calibration_texts() -> list[str]:
    """The calibration text that comes with the exporter: several styles, languages and some code."""
    return _lines("calibration.txt")


def shipped_passages() -> list[str]:
    """The passages that come with the exporter, to fit heads to without a corpus."""
    return _lines("passages.txt")


def _lines(name: str) -> list[str]:
    data = resources.files("edge_mrl_export.texts.data").joinpath(name).read_text("utf-8")
    return [line for line in data.splitlines() if line.strip()]


def read_corpus(path: Path) -> list[str]:
    """Read the user's own text.

    Each object of a ``.jsonl`` file is one text. Other files are split into paragraphs at blank lines,
    or into lines if they have no blank line.

    Args:
        path: A file, or a folder that is searched recursively.

    Raises:
        UsageError: There is no such file, a line is malformed, or there is too little text.
    """
    texts: list[str] = []
    problems: list[str] = []

    def skip(source: str, why: str) -> None:
        problems.append(f"{source}: {why}")

    for source in find_sources([path]):
        whole = Path(source.path).suffix.lower() in LINES_SUFFIXES
        for document in read_documents([source], skipped=skip):
            texts += [document.text] if whole else paragraphs(document.text)
    texts = [text for text in texts if text.strip()]
    if len(texts) < FEWEST_TEXTS:
        why = f" ({problems[0]})" if problems else ""
        raise UsageError(
            f"the corpus {path} has {len(texts)} texts{why}, expected at least {FEWEST_TEXTS}: "
            "give a .jsonl file, or text files with one text in each paragraph or line"
        )
    return texts


def paragraphs(text: str) -> list[str]:
    """A text split at blank lines, or into lines if it has no blank line."""
    parts = re.split(r"\n\s*\n", text.strip())
    return parts if len(parts) > 1 else text.splitlines()
