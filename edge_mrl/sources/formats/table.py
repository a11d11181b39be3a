"""CSV and TSV: each row is a document, as each line of JSON Lines is."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_mrl.sources.formats.registry import Part, Unreadable
from edge_mrl.sources.text import NotText, decode

__all__ = ["read_table"]

#: Hexadecimal digits of the key of a row without an id.
KEY_DIGITS = 32
#: Characters of one value.
MOST_CHARS = 10_000_000


def read_table(path: str, encoding: str | None) -> Iterable[Part]:
    """Each row as a document. The first row names the columns.

    A column "text" is the text, "title" is put before it, "id" tells the rows apart, and the others are
    metadata. Without a column "text", the text is all columns, each with its name.

    Raises:
        Unreadable: It is no text, or no table.
    """
    try:
        text = decode(Path(path).read_bytes(), encoding)
    except NotText as error:
        raise Unreadable(str(error)) from error
    delimiter = "\t" if path.lower().endswith(".tsv") else _delimiter(text)
    before = csv.field_size_limit(MOST_CHARS)
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
        if not rows.fieldnames or len(set(rows.fieldnames)) < len(rows.fieldnames):
            raise Unreadable("has no first row that names each column once")
        for row in rows:
            part = _part({str(name): value for name, value in row.items() if name is not None})
            if part is not None:
                yield part
    except csv.Error as error:
        raise Unreadable(f"is no table: {error}") from error
    finally:
        csv.field_size_limit(before)


def _delimiter(text: str) -> str:
    """The sign between columns, by the first line: a comma, a semicolon or a tab."""
    first = text[: text.find("\n")] if "\n" in text else text
    return max(",;\t", key=first.count)


def _part(row: dict[str, str]) -> Part | None:
    if not any(value.strip() for value in row.values()):
        return None
    key = row.get("id") or _digest(row)
    if "text" not in row:
        text = "\n".join(f"{name}: {value}" for name, value in row.items() if value.strip())
        return Part(text, key, {name: _value(value) for name, value in row.items() if value})
    title = row.get("title", "")
    facts = {
        name: _value(value) for name, value in row.items() if value and name not in ("text", "id")
    }
    return Part(f"{title}\n{row['text']}" if title else row["text"], key, facts)


def _digest(row: dict[str, str]) -> str:
    content = json.dumps(row, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:KEY_DIGITS]


def _value(text: str) -> Any:
    """A number as a number; any other text stays as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    if text.strip().lstrip("+-").isdecimal():
        whole = int(text)
        return whole if abs(whole) < 2**63 and str(whole) == text else text
    return value if repr(value) == text or f"{value:g}" == text else text
