"""Text to measure quality on: retrieval sets in BEIR's layout, pairs with scores, or plain text."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_mrl.errors import UsageError
from edge_mrl.sources import LINES_SUFFIXES, find_sources, read_documents
from edge_mrl_export.texts.corpus import FEWEST_TEXTS, paragraphs

__all__ = ["Retrieval", "Similarity", "read_data", "read_passages"]

#: Passages that queries are made from, evenly spaced: they give the agreement to about a percent.
MOST_QUERIES = 500
#: A sentence shorter than this says too little to search for.
QUERY_CHARS = 20
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Documents to search and queries to search with.

    Attributes:
        name: Shown to people.
        documents: What is searched.
        queries: What is searched for.
        relevance: For each query, the gain of each relevant document's row; None if results are
            judged by the full model's own ranking.
        own: For each query its row, if queries are documents themselves; that row is left out of the
            query's results. None if queries are other texts.
        asked: What kind of queries they are.
        origins: For each query the row of the document that it was taken from; None if people asked.
    """

    name: str
    documents: list[str]
    queries: list[str]
    relevance: list[dict[int, float]] | None
    own: list[int] | None
    asked: str
    origins: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Similarity:
    """Pairs of texts with people's scores of their similarity."""

    name: str
    left: list[str]
    right: list[str]
    scores: list[float]


def read_data(path: Path) -> Retrieval | Similarity:
    """Read a folder in BEIR's layout, or a file of scored pairs.

    A folder has ``corpus.jsonl`` (``_id``, ``text``, perhaps ``title``), ``queries.jsonl`` (``_id``,
    ``text``) and ``qrels/test.tsv`` (query, document, gain, below a line of headings); see Thakur et al.,
    "BEIR" (NeurIPS 2021). Pairs are ``.csv``, ``.tsv`` or ``.jsonl`` with ``s1``, ``s2`` and ``score``.

    Raises:
        UsageError: Something is missing or malformed; the message names file and line.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise UsageError(f"no file or folder {path}")
    return _read_pairs(path)


def _read_folder(folder: Path) -> Retrieval:
    parts = [folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"]
    missing = [str(part.relative_to(folder)) for part in parts if not part.is_file()]
    if missing:
        raise UsageError(
            f"{folder} has no {', '.join(missing)}: expected BEIR's layout, corpus.jsonl, queries.jsonl "
            "and qrels/test.tsv"
        )
    corpus, queries = _entries(parts[0]), _entries(parts[1])
    rows = {name: row for row, name in enumerate(corpus)}
    judged: dict[str, dict[int, float]] = {}
    unknown = 0
    for where, (query, document, gain) in _judgements(parts[2]):
        if query not in queries:
            raise UsageError(f"{where}: the query {query!r} is not in queries.jsonl")
        if gain > 0 and document in rows:
            judged.setdefault(query, {})[rows[document]] = gain
        unknown += document not in rows
    if not judged:
        why = (
            f" ({unknown} judgements name documents that are not in the corpus)" if unknown else ""
        )
        raise UsageError(
            f"{parts[2]}: no query has a relevant document that is in corpus.jsonl{why}"
        )
    return Retrieval(
        name=folder.resolve().name,
        documents=list(corpus.values()),
        queries=[queries[name] for name in judged],
        relevance=list(judged.values()),
        own=None,
        asked="the set's own",
    )


def _entries(path: Path) -> dict[str, str]:
    """Text by id; a title comes before the text."""
    texts: dict[str, str] = {}
    for where, entry in _objects(path):
        name, text, title = entry.get("_id"), entry.get("text"), entry.get("title") or ""
        if type(name) not in (str, int) or not isinstance(text, str) or not isinstance(title, str):
            raise UsageError(f'{where}: expected "_id", "text" and perhaps "title", all strings')
        if str(name) in texts:
            raise UsageError(f'{where}: "_id" {name!r} was used before')
        texts[str(name)] = f"{title} {text}".strip()
    if not texts:
        raise UsageError(f"{path} is empty")
    return texts


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in _lines(path):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: not valid JSON ({error})") from error
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: {type(entry).__name__}, expected an object")
        yield where, entry


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each with its file and number."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start:,})") from error


def _judgements(path: Path) -> Iterator[tuple[str, tuple[str, str, float]]]:
    for number, (where, line) in enumerate(_lines(path)):
        fields = line.rstrip("\r\n").split("\t")
        gain = _number(fields[-1])
        if number == 0 and gain is None:
            continue  # the headings
        if len(fields) != 3 or gain is None or gain != round(gain):
            raise UsageError(
                f"{where}: {line.strip()[:80]!r}, expected query, document and gain, a whole number, "
                "between tabs"
            )
        yield where, (fields[0], fields[1], gain)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_pairs(path: Path) -> Similarity:
    suffix = path.suffix.lower()
    if suffix in SEPARATORS:
        entries = _table(path, SEPARATORS[suffix])
    elif suffix in LINES_SUFFIXES:
        entries = _objects(path)
    else:
        raise UsageError(
            f"{path}: expected a folder in BEIR's layout, or pairs in a .csv, .tsv or .jsonl file"
        )
    left, right, scores = [], [], []
    for where, entry in entries:
        first, second, score = (entry.get(name) for name in ("s1", "s2", "score"))
        value = _number(str(score))
        if not isinstance(first, str) or not isinstance(second, str) or value is None:
            raise UsageError(f'{where}: expected "s1" and "s2", texts, and "score", a number')
        left.append(first)
        right.append(second)
        scores.append(value)
    if len(set(scores)) < 2:
        raise UsageError(f"{path} has {len(scores)} pairs, expected some with different scores")
    return Similarity(path.stem, left, right, scores)


def _table(path: Path, separator: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows by heading; without headings, the first three columns are s1, s2 and score."""
    names = ["s1", "s2", "score"]
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        for number, row in enumerate(reader):
            heads = [cell.strip().lower() for cell in row]
            if number == 0 and set(names) <= set(heads):
                names = heads
            elif row:
                yield f"{path}:{reader.line_num}", dict(zip(names, row, strict=False))


def read_passages(paths: Sequence[Path]) -> Retrieval:
    """Read text without judgements: results are judged by the full model's own ranking.

    Queries are the documents' titles if all have one, else sentences from the passages if most have
    several, else whole passages, each of which is left out of its own results.

    Raises:
        UsageError: There is too little text.
    """
    titled, texts = _passages(paths)
    rows = (
        np.linspace(0, len(texts) - 1, min(len(texts), MOST_QUERIES)).round().astype(int).tolist()
    )
    name = ", ".join(path.resolve().name for path in paths)
    if all(titled):
        bodies = [
            text.removeprefix(title).strip() for title, text in zip(titled, texts, strict=True)
        ]
        titles = [titled[i] for i in rows]
        return Retrieval(name, bodies, titles, None, None, "titles", rows)
    taken = {i: sentence for i in rows if (sentence := _sentence(texts[i]))}
    if 2 * len(taken) >= len(rows):
        sentences = list(taken.values())
        asked = "sentences of the passages"
        return Retrieval(name, texts, sentences, None, None, asked, list(taken))
    return Retrieval(name, texts, [texts[i] for i in rows], None, rows, "passages", rows)


def _passages(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Titles (empty for texts without one) and texts; equal texts count once."""
    found: dict[str, str] = {}
    problems: list[str] = []

    def skip(source: str, why: str) -> None:
        problems.append(f"{source}: {why}")

    for source in find_sources(paths):
        whole = Path(source.path).suffix.lower() in LINES_SUFFIXES
        for document in read_documents([source], skipped=skip):
            title = str(document.metadata.get("title") or "").strip()
            for text in [document.text] if whole else paragraphs(document.text):
                if text.strip() and text.strip() != title:
                    found.setdefault(text.strip(), title if whole else "")
    if len(found) < FEWEST_TEXTS:
        why = f" ({problems[0]})" if problems else ""
        raise UsageError(
            f"the corpus has {len(found)} different texts{why}, expected at least {FEWEST_TEXTS}: "
            "give a .jsonl file, or text files with one text in each paragraph or line"
        )
    return list(found.values()), list(found)


def _sentence(text: str) -> str:
    """A sentence from the middle of a passage; "" if the passage has only one."""
    parts = [part.strip() for part in re.split(r"(?<=[.!?。！？])\s+|\n+", text)]
    long = [part for part in parts if len(part) >= QUERY_CHARS]
    return long[len(long) // 2] if len(long) > 1 else ""
