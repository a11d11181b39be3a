"""Text to vectors, with the bundle's graph and tokenizer."""

from __future__ import annotations

import itertools
import math
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import KINDS, TOKENIZER, Manifest, bundle_error, check_files, read_manifest
from edge_mrl.encode.session import GraphSession
from edge_mrl.errors import UsageError
from edge_mrl.machine import reporting_memory, require_room

__all__ = ["Encoder", "Encoding"]

#: Texts that are tokenised, sorted by length and encoded together; more sorts better but holds more.
WINDOW_TEXTS = 512
#: Characters after which a window ends early, so that a run of megabyte texts stays bounded.
WINDOW_CHARS = 2_000_000
LOW_MEMORY_WINDOW_CHARS = 200_000
#: Characters that are tokenised at once when a text is cut into passages: a tokenizer takes up to 700
#: bytes for each, so that a book in one piece would take hundreds of megabytes.
BLOCK_CHARS = 20_000
#: Memory that must be there before texts are tokenised, for each of their characters, and for each byte
#: of a tokenizer's file that is read: where it is not, the tokenizer ends the process.
TOKENIZE_ROOM_BYTES, CHAR_ROOM, TOKENIZER_ROOM = 8_000_000, 30, 25
#: Tokens in one batch, padding included. Small sorted batches stay in the cache and beat large ones.
BATCH_TOKENS = 512
LOW_MEMORY_BATCH_TOKENS = 256
#: Few texts make smaller batches, so that each thread has one; below this, a thread is not worth waking.
LEAST_BATCH_TOKENS = 64
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """Vectors of n texts.

    Attributes:
        coarse: int8[n, dim], the codes that a device keeps and searches.
        full: float32[n, D], unit length, in the model's own space; None from a coarse-only bundle.
    """

    coarse: NDArray[np.int8]
    full: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.coarse)


class Encoder:
    """Encodes text with a bundle. Safe to share between threads.

    Attributes:
        path: The bundle's folder.
        manifest: What the bundle says of itself.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        session: GraphSession,
        tokenizer: Any,
        *,
        batch_tokens: int,
        window_chars: int = WINDOW_CHARS,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self._session = session
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens
        self._window_chars = window_chars
        self._whole: Any = None
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        low_memory: bool = False,
        verify_hashes: bool = False,
    ) -> Encoder:
        """Open a bundle.

        Args:
            path: The bundle's folder.
            threads: Threads to use at most; None for one per processor.
            low_memory: Smaller batches and no memory arena: slower, with the smallest RSS.
            verify_hashes: Check every file's SHA-256 first; sizes are always checked.

        Raises:
            UsageError: No such folder, or a thread count below 1.
            BundleError: The bundle cannot be trusted or opened.
            OutOfMemoryError: There is not enough memory; also from the methods that encode.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, expected at least 1")
        folder = Path(path).resolve()
        manifest = read_manifest(folder)
        check_files(folder, manifest, hashes=verify_hashes)
        with reporting_memory():
            tokenizer = _load_tokenizer(folder)
            tokenizer.no_padding()
            tokenizer.enable_truncation(manifest.max_tokens)
            session = GraphSession(folder, manifest, threads, low_memory=low_memory)
        return cls(
            folder,
            manifest,
            session,
            tokenizer,
            batch_tokens=LOW_MEMORY_BATCH_TOKENS if low_memory else BATCH_TOKENS,
            window_chars=LOW_MEMORY_WINDOW_CHARS if low_memory else WINDOW_CHARS,
        )

    def encode(self, texts: Iterable[str], *, kind: str = "document") -> Encoding:
        """Encode texts, in order.

        Args:
            texts: Any iterable of strings; it is read in windows, so that beside the result memory
                stays bounded. Texts longer than ``manifest.max_tokens`` are cut. An empty string is a
                text like any other. A lone surrogate is read as U+FFFD.
            kind: "document" or "query": which of the model's prompts is put in front.

        Returns:
            An Encoding of n texts; n may be 0.

        Raises:
            TypeError: ``texts`` is a str, or holds something else than strings.
            UsageError: An unknown kind.
        """
        chunks = list(self.stream(texts, kind=kind))
        if not chunks:
            return self._empty()
        full = None
        if self.manifest.full_dim is not None:
            full = np.concatenate([chunk.full for chunk in chunks])
        return Encoding(np.concatenate([chunk.coarse for chunk in chunks]), full)

    def stream(self, texts: Iterable[str], *, kind: str = "document") -> Iterator[Encoding]:
        """Encode texts in order, a few hundred at a time, with bounded memory.

        Args and errors as for ``encode``; the arguments are checked at once, the texts as they come.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("texts is a single string: pass a list of strings, e.g. [text]")
        if kind not in KINDS:
            raise UsageError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
        prompt = self.manifest.prompts[kind]
        windows = _windows(texts, prompt, self._window_chars)
        return (self._encode_window(window) for window in windows)

    def encode_padded(self, texts: Sequence[str], *, kind: str = "document") -> Encoding:
        """Encode all texts as one batch, padded to the longest: for checks, not for speed.

        A graph that depends on its padding or on a batch's other texts shows here.
        """
        with reporting_memory():
            outputs = self._session.run(self.tokenize(texts, kind=kind))
        return Encoding(outputs[0], outputs[1] if len(outputs) > 1 else None)

    def tokenize(self, texts: Sequence[str], *, kind: str = "document") -> list[list[int]]:
        """Token ids as the graph gets them: with prompt and special tokens, cut, without padding."""
        prompt = self.manifest.prompts[kind]
        return self._token_ids([_clean(prompt + text) for text in texts])

    def spans(self, text: str, *, max_tokens: int, overlap: int) -> list[tuple[int, int]]:
        """Split a text into passages by tokens, between words where a word fits a passage.

        Args:
            text: Any string.
            max_tokens: Most tokens in a passage, special tokens not counted.
            overlap: Tokens that a passage shares with the one before it.

        Returns:
            Character offsets (start, end) of each passage, in order. A passage runs on to where the
            next tokens begin, so that together they cover the text; [] for a text without tokens.

        Raises:
            UsageError: ``overlap`` is negative or not below ``max_tokens``.
        """
        if not 0 <= overlap < max_tokens:
            raise UsageError(
                f"overlap is {overlap}, expected 0 to {max_tokens - 1} (below max_tokens)"
            )
        with reporting_memory():
            starts, words = self._tokens(_clean(text))
        spans: list[tuple[int, int]] = []
        first, after = 0, 0
        while after < len(starts):
            after = _word_start(words, first + max_tokens, above=first)
            end = int(starts[after]) if after < len(starts) else len(text)
            spans.append((int(starts[first]) if spans else 0, end))
            first = _word_start(words, max(after - overlap, first + 1), above=first)
        return spans

    def close(self) -> None:
        """Free the session and the mapped weights; encoding afterwards is an error."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        require_room(TOKENIZE_ROOM_BYTES + CHAR_ROOM * sum(map(len, texts)))
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def _tokens(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64[n] each: where a text's tokens start, and the numbers of their words, -1 for none."""
        tokenizer = self._whole_tokenizer()
        starts, words, count = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for first, after in _blocks(text):
            require_room(TOKENIZE_ROOM_BYTES)
            encoding = tokenizer.encode(text[first:after], add_special_tokens=False)
            starts.append(np.array([start for start, _ in encoding.offsets], np.int64) + first)
            numbers = [-1 if word is None else word + count for word in encoding.word_ids]
            words.append(np.array(numbers, np.int64))
            count = max(numbers, default=count) + 1
        return np.concatenate(starts), np.concatenate(words)

    def _whole_tokenizer(self) -> Any:
        """A second tokenizer that does not truncate, made when passages are first asked for."""
        with self._lock:
            if self._whole is None:
                self._whole = _load_tokenizer(self.path)
                self._whole.no_truncation()
                self._whole.no_padding()
            return self._whole

    def _empty(self) -> Encoding:
        width = self.manifest.full_dim
        full = None if width is None else np.empty((0, width), np.float32)
        return Encoding(np.empty((0, self.manifest.dim), np.int8), full)

    def _encode_window(self, texts: list[str]) -> Encoding:
        with reporting_memory():
            return self._encode_texts(texts)

    def _encode_texts(self, texts: list[str]) -> Encoding:
        rows = self._token_ids(texts)
        width = self.manifest.full_dim
        coarse = np.empty((len(rows), self.manifest.dim), np.int8)
        full = None if width is None else np.empty((len(rows), width), np.float32)
        batches = self._batches([len(row) for row in rows])
        results = self._session.run_all([[rows[i] for i in batch] for batch in batches])
        for batch, outputs in zip(batches, results, strict=True):
            coarse[batch] = outputs[0]
            if full is not None:
                full[batch] = outputs[1]
        return Encoding(coarse, full)

    def _batches(self, lengths: list[int]) -> list[list[int]]:
        """Indices of the texts that run together; few texts are shared out between the threads."""
        share = max(LEAST_BATCH_TOKENS, math.ceil(sum(lengths) / self._session.threads))
        return list(_batches(lengths, min(self._batch_tokens, share)))


def _clean(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot carry, as U+FFFD; offsets stay the same."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Parts of a text to tokenise by themselves, cut in front of blanks where there are any.

    Tokenizers join a word with the blank in front of it, if with any.
    """
    first = 0
    while len(text) - first > BLOCK_CHARS:
        after = first + BLOCK_CHARS
        while after > first + BLOCK_CHARS // 2:
            if text[after].isspace() and not text[after - 1].isspace():
                break
            after -= 1
        else:
            after = first + BLOCK_CHARS  # no blanks, as in Chinese
        yield first, after
        first = after
    yield first, len(text)


def _word_start(words: NDArray[np.int64], token: int, *, above: int) -> int:
    """The first token of the word that ``token`` is in; ``token`` itself if that is not above."""
    if token >= len(words):
        return len(words)
    start = token
    while start > above and words[start] >= 0 and words[start] == words[start - 1]:
        start -= 1
    return start if start > above else token


def _windows(texts: Iterable[str], prompt: str, most_chars: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    for first in iterator:
        window, chars = [], 0
        for text in itertools.chain([first], itertools.islice(iterator, WINDOW_TEXTS - 1)):
            if not isinstance(text, str):
                raise TypeError(f"a text is {type(text).__name__}, expected str")
            window.append(_clean(prompt + text))
            chars += len(text)
            if chars > most_chars:
                break
        yield window


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, each at most ``budget`` tokens with its padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        # The first text is the longest, so it sets the batch's width.
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _load_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    require_room(TOKENIZE_ROOM_BYTES + TOKENIZER_ROOM * path.stat().st_size)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust binding raises bare Exception
        raise bundle_error(error, folder) from error
