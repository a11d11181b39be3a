"""Sample texts to measure with: the user's own, or English prose from Python's standard library."""

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

__all__ = ["DOCUMENTS", "QUERIES", "Sample", "built_in_sample", "sample_of_file"]

#: Documents in one timed pass: enough for batches of similar length with little padding, and few
#: enough for a small board to encode in seconds.
DOCUMENTS = 128
#: Different queries; more would only repeat the same lengths.
QUERIES = 100
QUERY_WORDS = range(4, 13)
#: Words of the built-in documents: 20 to 200, all lengths about equally often, similar ones far apart.
SHORTEST, LENGTHS, STEP = 20, 181, 37
#: Modules of the standard library with long docstrings. Their files are read, not imported.
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
#: Characters that mark code in a paragraph of a docstring.
_CODE = re.compile(r">>>|::|[=_{}\[\]|]|\w\(")


@dataclass(frozen=True, slots=True)
class Sample:
    """Texts to measure with.

    Attributes:
        name: Where the texts come from.
        documents: At most DOCUMENTS texts.
        queries: At most QUERIES short texts.
    """

    name: str
    documents: tuple[str, ...]
    queries: tuple[str, ...]

    @property
    def document_words(self) -> float:
        """Average number of words of a document."""
        return _mean_words(self.documents)

    @property
    def query_words(self) -> float:
        """Average number of words of a query."""
        return _mean_words(self.queries)

    @property
    def digest(self) -> str:
        """12 hex digits that name the texts, because figures of different texts cannot be compared."""
        parts = "\0".join((*self.documents, "\0", *self.queries))
        return hashlib.sha256(parts.encode("utf-8", "backslashreplace")).hexdigest()[:12]


def built_in_sample() -> Sample:
    """Documents of 20 to 200 words and queries of 4 to 12, from the standard library's docstrings.

    They are the same on every machine with the same Python, and nearly the same with other ones.

    Raises:
        UsageError: This Python has no sources of its standard library.
    """
    texts = list(_paragraphs())
    words = " ".join(texts).split()
    lengths = [SHORTEST + number * STEP % LENGTHS for number in range(DOCUMENTS)]
    if len(words) < sum(lengths):
        raise UsageError(
            "this Python has no sources of its standard library to take texts from: name a file with "
            "--texts"
        )
    # Spread over all modules, because each has its own words.
    starts = [number * (len(words) - max(lengths)) // DOCUMENTS for number in range(DOCUMENTS)]
    documents = (" ".join(words[i : i + n]) for i, n in zip(starts, lengths, strict=True))
    return Sample("built in", tuple(documents), _queries(texts))


def sample_of_file(path: str) -> Sample:
    """Texts of a file: one per line, or the "text" of each line of a JSON Lines file.

    At most DOCUMENTS texts are taken, evenly spread over the file. Queries are the first words of texts.

    Raises:
        UsageError: The file does not exist, or holds no text.
    """
    if not Path(path).is_file():
        raise UsageError(f"no file {path}: expected a file with one text per line")
    texts = [text for text in _read(path) if text.strip()]
    if not texts:
        raise UsageError(f"{path} holds no text: expected one text per line")
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
        except (OSError, SyntaxError):  # this Python has no such module
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if text.endswith(".") and not _CODE.search(text):
                    yield text


def _queries(texts: Sequence[str]) -> tuple[str, ...]:
    """The first words of texts that are long enough; the number of words goes through QUERY_WORDS."""
    few, many = QUERY_WORDS[0], len(QUERY_WORDS)
    long = [text.split() for text in texts if len(text.split()) >= few] or [
        text.split() for text in texts
    ]
    picks = _spread(long, QUERIES)
    return tuple(" ".join(words[: few + i % many]) for i, words in enumerate(picks))


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / len(texts)


def _spread(items: Sequence[Any], most: int) -> tuple[Any, ...]:
    """At most so many of the items, evenly spread over all."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[i * len(items) // most] for i in range(most))
