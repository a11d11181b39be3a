"""Texts to measure with: the user's own, or English prose that every Python brings along."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_mrl.errors import UsageError
from edge_mrl.sources import SourceFile, read_documents

__all__ = ["DOCUMENTS", "QUERIES", "Sample", "built_in", "own"]

#: Documents in one timed pass: enough that batches of similar length need little padding, few enough
#: that a small board is through with them in seconds.
DOCUMENTS = 128
#: Different queries; more of them would only repeat the same lengths.
QUERIES = 100
QUERY_WORDS = range(4, 13)
#: Words of the built-in documents: 20 to 200, each length about as often, none next to its like.
SHORTEST, LENGTHS, STEP = 20, 181, 37
#: Modules of the standard library with much prose in them. They are read, not imported.
MODULES = (
    "argparse",
    "asyncio/events",
    "configparser",
    "difflib",
    "email/message",
    "enum",
    "imaplib",
    "inspect",
    "logging/__init__",
    "mailbox",
    "pathlib",
    "shutil",
    "smtplib",
    "statistics",
    "subprocess",
    "tarfile",
    "threading",
    "typing",
    "urllib/request",
    "zipfile",
)
#: Marks of code in a docstring's paragraph.
_CODE = re.compile(r">>>|::|[=_{}\[\]|]|\w\(")


@dataclass(frozen=True, slots=True)
class Sample:
    """Texts to measure with.

    Attributes:
        name: Where they come from.
        documents: At most DOCUMENTS texts.
        queries: At most QUERIES short texts.
    """

    name: str
    documents: tuple[str, ...]
    queries: tuple[str, ...]

    @property
    def document_words(self) -> float:
        """Words of a document on average."""
        return _mean_words(self.documents)

    @property
    def query_words(self) -> float:
        """Words of a query on average."""
        return _mean_words(self.queries)

    @property
    def digest(self) -> str:
        """Names the texts: figures of different texts do not compare."""
        parts = "\0".join((*self.documents, "\0", *self.queries))
        return hashlib.sha256(parts.encode("utf-8", "backslashreplace")).hexdigest()[:12]


def built_in() -> Sample:
    """Documents of 20 to 200 words and queries of 4 to 12, from the standard library's docstrings.

    The same on every machine with the same Python, and nearly the same with others.

    Raises:
        UsageError: This Python comes without its library's sources.
    """
    texts = list(_paragraphs())
    words = " ".join(texts).split()
    lengths = [SHORTEST + number * STEP % LENGTHS for number in range(DOCUMENTS)]
    if len(words) < sum(lengths):
        raise UsageError("this Python has no sources to take texts from: give some with --texts")
    # Spread over all modules: each has its own words.
    starts = [number * (len(words) - max(lengths)) // DOCUMENTS for number in range(DOCUMENTS)]
    documents = (" ".join(words[i : i + n]) for i, n in zip(starts, lengths, strict=True))
    return Sample("built in", tuple(documents), _queries(texts))


def own(path: str) -> Sample:
    """Texts of a file: a line each, or the "text" of each line of a JSON Lines file.

    Of more than DOCUMENTS, those spread evenly over the file are taken. Queries are the first words
    of texts.

    Raises:
        UsageError: No such file, or nothing in it.
    """
    if not Path(path).is_file():
        raise UsageError(f"no file {path}: expected texts, one a line")
    texts = [text for text in _read(path) if text.strip()]
    if not texts:
        raise UsageError(f"{path} holds no text: expected one a line")
    return Sample(Path(path).name, _spread(texts, DOCUMENTS), _queries(texts))


def _read(path: str) -> list[str]:
    if Path(path).suffix.lower() not in (".jsonl", ".ndjson"):
        return Path(path).read_text("utf-8-sig", errors="replace").splitlines()

    def refuse(source: str, why: str) -> None:
        raise UsageError(f"{source}: {why}")

    source = SourceFile(path, Path(path).stat().st_size)
    return [document.text for document in read_documents([source], skipped=refuse)]


def _paragraphs() -> Iterator[str]:
    """Paragraphs of prose in docstrings."""
    library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES:
        try:
            tree = ast.parse((library / f"{module}.py").read_bytes())
        except (OSError, SyntaxError):  # not in this Python
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if text.endswith(".") and not _CODE.search(text):
                    yield text


def _queries(texts: Sequence[str]) -> tuple[str, ...]:
    """The first words of texts that have enough of them, of all lengths in turn."""
    few, many = QUERY_WORDS[0], len(QUERY_WORDS)
    long = [text.split() for text in texts if len(text.split()) >= few] or [
        text.split() for text in texts
    ]
    picks = _spread(long, QUERIES)
    return tuple(" ".join(words[: few + i % many]) for i, words in enumerate(picks))


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / len(texts)


def _spread(items: Sequence[Any], most: int) -> tuple[Any, ...]:
    """At most so many of the items, evenly over all."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[i * len(items) // most] for i in range(most))
