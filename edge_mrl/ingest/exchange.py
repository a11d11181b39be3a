"""Stores as lines of JSON: for other programs, and for another store."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.codes import code_bytes, normalize
from edge_mrl.documents import Document, metadata_problem, shorten
from edge_mrl.errors import UsageError
from edge_mrl.ingest.putting import BATCH_DOCUMENTS, Stored, put_documents
from edge_mrl.store import Entry, list_entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.encode import Encoder
    from edge_mrl.store import Bound, Store

__all__ = ["Loaded", "Parsed", "dump_lines", "load_lines", "parse_line"]

#: Digits of a vector's numbers: a cosine of such vectors is right to 0.00001.
VECTOR_DIGITS = 6
#: The longest offset of a passage.
MOST_OFFSET = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Parsed:
    """A line of a dump.

    Attributes:
        document: The document.
        made_by: What its codes are bound to (``_made_by``); None if the line has none.
        spans: Offsets of its passages.
        codes: The codes of its passages, packed.
        full: float16 of their full vectors as bytes, or None.
    """

    document: Document
    made_by: Mapping[str, Any] | None = None
    spans: tuple[tuple[int, int], ...] = ()
    codes: bytes = b""
    full: bytes | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading did.

    Attributes:
        taken: Documents whose codes were taken as they are.
        embedded: Documents whose text was embedded, or was there already.
    """

    taken: int = 0
    embedded: int = 0

    def __add__(self, other: Loaded) -> Loaded:
        return Loaded(self.taken + other.taken, self.embedded + other.embedded)


def dump_lines(
    store: Store,
    where: Mapping[str, Any] | None = None,
    *,
    codes: bool = False,
    vectors: bool = False,
) -> Generator[dict[str, Any], None, None]:
    """What a store holds, one object a document, in one state of the store.

    Args:
        store: The store.
        where: Which documents; None for all.
        codes: Also the codes of passages, and full vectors where they are kept, so that ``load_lines``
            can store them in another store of the same bundle without embedding.
        vectors: Also vectors of length 1, as numbers: full ones where they are kept, else of codes.

    Returns:
        ``{"id", "text", "metadata", "source"}``, and with codes or vectors ``"made_by"`` and
        ``"passages"``: ``{"start", "end", "code", "full", "vector"}`` for each.

    Raises:
        DamagedError: Documents are not what was put. All others were given before it is raised.
    """
    for entry, bound in list_entries(store, where):
        document = entry.document
        line: dict[str, Any] = {
            "id": document.id,
            "text": document.text,
            "metadata": dict(document.metadata),
        }
        if document.source is not None:
            line["source"] = document.source
        if codes or vectors:
            line["made_by"] = _made_by(bound)
            line["passages"] = [{"start": start, "end": end} for start, end in entry.spans]
        if codes:
            _add_codes(line["passages"], entry, bound)
        if vectors:
            _add_vectors(line["passages"], entry)
        yield line


def parse_line(line: object) -> Parsed:
    """A line of a dump, checked.

    Raises:
        UsageError: It is none; the message says why.
    """
    if not isinstance(line, dict):
        raise UsageError(f"it is {type(line).__name__}, expected an object")
    text, source = line.get("text"), line.get("source")
    if not isinstance(text, str) or not isinstance(source, str | None):
        raise UsageError('expected strings as "text" and, if given, "source"')
    metadata = line.get("metadata", {})
    if (problem := metadata_problem(metadata)) is not None:
        raise UsageError(problem)
    if not isinstance(line.get("id"), str):
        raise UsageError(f'"id" is {shorten(line.get("id"))}, expected a string')
    document = Document(line["id"], text, metadata, source)
    passages = line.get("passages")
    if not passages or not isinstance(passages, list) or not isinstance(line.get("made_by"), dict):
        return Parsed(document)
    if not all(isinstance(one, dict) for one in passages):
        raise UsageError('"passages" must be objects')
    if not all("code" in one for one in passages):
        return Parsed(document)
    spans = tuple(_span(one) for one in passages)
    codes = b"".join(_bytes_of(one, "code") for one in passages)
    whole = all("full" in one for one in passages)
    full = b"".join(_bytes_of(one, "full") for one in passages) if whole else None
    return Parsed(document, line["made_by"], spans, codes, full)


def load_lines(
    store: Store,
    encoder: Callable[[], Encoder],
    lines: Iterable[Parsed],
    *,
    committed: Callable[[Loaded], None] | None = None,
) -> Loaded:
    """Store what ``dump_lines`` gave, in its order.

    Codes are taken as they are if they were made by the store's own bundle and passage rule, with full
    vectors if the store keeps those; other documents are embedded.

    Args:
        store: The store.
        encoder: Gives the store's encoder, where one is needed.
        lines: The parsed lines. If it raises, what it gave before is stored first.
        committed: Called after each commit, with what was done so far.

    Raises:
        UsageError: The bytes of codes or vectors are not as many as the store's.
        RefusedDocumentsError: The bundle cannot take some texts; all others of their group were stored.
        StoreError: The store cannot be written.
    """
    total = Loaded()
    for taken, group in itertools.groupby(lines, key=lambda line: _fits(line, store)):
        for done in _take(store, group) if taken else _embed(store, encoder, group):
            total += done
            if committed is not None:
                committed(total)
    return total


#: What must be equal for codes to be taken as they are.
_MADE_BY = ("space", "code", "max_tokens", "overlap", "splitter")


def _made_by(bound: Bound) -> dict[str, Any]:
    return {
        "space": bound.binding.space_id,
        "code": bound.binding.code_id,
        "max_tokens": bound.rule.max_tokens,
        "overlap": bound.rule.overlap,
        "splitter": bound.rule.splitter,
    }


def _add_codes(passages: list[dict[str, Any]], entry: Entry, bound: Bound) -> None:
    packed = bound.binding.packing.pack(entry.codes)
    for passage, code in zip(passages, packed, strict=True):
        passage["code"] = base64.b64encode(code.tobytes()).decode()
    if entry.full is not None:
        for passage, vector in zip(passages, entry.full.astype("<f2"), strict=True):
            passage["full"] = base64.b64encode(vector.tobytes()).decode()


def _add_vectors(passages: list[dict[str, Any]], entry: Entry) -> None:
    known = entry.codes.astype(np.float32) if entry.full is None else entry.full
    for passage, vector in zip(passages, normalize(known), strict=True):
        passage["vector"] = [round(float(value), VECTOR_DIGITS) for value in vector]


def _span(passage: Mapping[str, Any]) -> tuple[int, int]:
    start: Any = passage.get("start")
    end: Any = passage.get("end")
    whole = type(start) is int and type(end) is int
    if not whole or not 0 <= start <= end <= MOST_OFFSET:
        raise UsageError(f"a passage is from {shorten(start)} to {shorten(end)}, expected offsets")
    return start, end


def _bytes_of(passage: Mapping[str, Any], name: str) -> bytes:
    value = passage[name]
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise UsageError(f"a passage's {name!r} is not base64") from None


def _fits(line: Parsed, store: Store) -> bool:
    """Whether a store takes a line's codes as they are."""
    binding, rule = store.binding, store.rule
    mine = (*binding.code, rule.max_tokens, rule.overlap, rule.splitter)
    made_by = {"splitter": "tokens", **(line.made_by or {})}
    if tuple(made_by.get(name) for name in _MADE_BY) != mine:
        return False
    return store.keep_full is None or line.full is not None


def _take(store: Store, lines: Iterable[Parsed]) -> Iterator[Loaded]:
    following = iter(lines)
    failed: Exception | None = None
    while failed is None:
        batch: list[Entry] = []
        try:
            batch.extend(_entry(one, store) for one in itertools.islice(following, BATCH_DOCUMENTS))
        except Exception as error:  # noqa: BLE001 - raised again below
            failed = error
        if batch:
            store.put(batch)
            yield Loaded(taken=len(batch))
        elif failed is None:
            return
    raise failed


def _entry(line: Parsed, store: Store) -> Entry:
    binding, rows = store.binding, len(line.spans)
    wanted = rows * code_bytes(binding.dim, binding.packing.kind)
    if len(line.codes) != wanted:
        raise UsageError(
            f"document {line.document.id!r} has {len(line.codes)} bytes of codes, expected {wanted}"
        )
    packed = np.frombuffer(line.codes, np.uint8).reshape(rows, -1)
    codes = binding.packing.representatives(packed, binding.dim)
    return Entry(line.document, line.spans, codes, _full(line, store))


def _full(line: Parsed, store: Store) -> NDArray[np.float32] | None:
    if store.keep_full is None or line.full is None:
        return None
    values = np.frombuffer(line.full[: len(line.full) // 2 * 2], "<f2").astype(np.float32)
    width = store.binding.full_dim or 0
    if len(line.full) != 2 * width * len(line.spans) or not np.isfinite(values).all():
        raise UsageError(
            f"document {line.document.id!r} has {len(line.full)} bytes of full vectors, expected "
            f"{2 * width * len(line.spans)} of finite numbers"
        )
    return values.reshape(-1, width)


def _embed(
    store: Store, encoder: Callable[[], Encoder], lines: Iterable[Parsed]
) -> Iterator[Loaded]:
    done: list[Stored] = []
    put_documents(store, encoder, (line.document for line in lines), committed=done.append)
    yield Loaded(embedded=done[-1].documents if done else 0)
