"""Text to vectors, with the bundle's graph and tokenizer."""

from __future__ import annotations

import itertools
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from edge_mrl.arguments import check_flag, check_whole, path_of
from edge_mrl.bundle import KINDS, Manifest, bundle_folder
from edge_mrl.codes import normalize
from edge_mrl.encode.kernel_session import Session, open_session
from edge_mrl.encode.pretrained import Pretrained
from edge_mrl.encode.tokenizer import (
    load_tokenizer,
    replace_surrogates,
    require_room_for_tokens,
    tokenizing,
)
from edge_mrl.encode.trial import admit
from edge_mrl.errors import EncoderError, UsageError
from edge_mrl.machine import memory, reporting_memory

__all__ = ["Encoder", "Encoding", "OpeningKeywords", "check_opening"]

#: Texts that are tokenised, sorted by length and encoded together. More texts sort better, but take
#: more memory.
WINDOW_TEXTS = 512
#: Characters after which such a window ends early, so that texts of megabytes take bounded memory.
WINDOW_CHARS = 2_000_000
LOW_MEMORY_WINDOW_CHARS = 200_000
#: Most characters of a text. A book has 2 million.
MOST_TEXT_CHARS = 20_000_000
#: Tokens in one batch, padding included. Small sorted batches stay in the cache and are faster.
BATCH_TOKENS = 512
LOW_MEMORY_BATCH_TOKENS = 256
#: Few texts make smaller batches, so that each thread gets one. Fewer tokens than this are not worth
#: waking a thread.
LEAST_BATCH_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Encoding:
    """Vectors of n texts.

    Attributes:
        coarse: int8[n, dim], the codes that a device stores and searches.
        full: float32[n, D], the full vectors: unit length, in the model's own space. None if the bundle
            gives codes only.
    """

    coarse: NDArray[np.int8]
    full: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.coarse)


class OpeningKeywords(TypedDict, total=False):
    """How a bundle is opened; see ``Encoder.open``."""

    threads: int | None
    low_memory: bool
    trust: str | os.PathLike[str] | None


class Encoder(Pretrained):
    """Encodes text with a bundle. Safe to share between threads.

    Attributes:
        path: The bundle's folder.
        manifest: The bundle's manifest.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        session: Session,
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
        trust: str | os.PathLike[str] | None = None,
        untried: bool = False,
    ) -> Encoder:
        """Open a bundle.

        Files are compared with their hashes the first time, and again whenever they have changed. A
        bundle that this machine does not know is first tried in a process of its own, with limits of
        time and memory. What was found out is kept in the user's folder for state.

        Args:
            path: The bundle's folder; or a .zip of one, which is unpacked into the user's cache; or
                "hf://OWNER/NAME" for one on a hub, with or without "@REVISION"; or the name of a bundle
                that is installed (edge-mrl-minilm has "minilm").
            threads: Use at most so many threads (default: one per core).
            low_memory: Use smaller batches and no memory arena: slower, with the smallest RSS.
            verify_hashes: Compare every file's SHA-256 again, even if the files have not changed.
            trust: A file of public keys: a bundle that none of them has signed is refused, and every
                SHA-256 is compared (default: the file that EDGE_MRL_TRUST names, if it is set).
            untried: Neither try the bundle nor ask for a signature: for one that this process has
                just made.

        Raises:
            UsageError: The folder does not exist, or ``threads`` is below 1.
            SignatureError: No trusted key has signed the bundle.
            BundleError: The bundle is damaged, or cannot be opened.
            OutOfMemoryError: There is not enough memory. The methods that encode may raise it too.
        """
        check_opening({"threads": threads, "low_memory": low_memory, "trust": trust})
        folder = bundle_folder(path_of("bundle", path))
        trust = "" if untried else trust
        with reporting_memory():
            memory.load_unwinder()
            admitted = admit(folder, trust=trust, verify_hashes=verify_hashes, untried=untried)
            manifest = admitted.manifest
            tokenizer = load_tokenizer(folder, manifest, checked=admitted.checked)
            tokenizer.no_padding()
            with tokenizing():
                tokenizer.enable_truncation(manifest.max_tokens)
            session = open_session(
                folder,
                manifest,
                threads,
                low_memory=low_memory,
                files=admitted.files,
                checked=admitted.checked,
            )
        return cls(
            folder,
            manifest,
            session,
            tokenizer,
            batch_tokens=LOW_MEMORY_BATCH_TOKENS if low_memory else BATCH_TOKENS,
            window_chars=LOW_MEMORY_WINDOW_CHARS if low_memory else WINDOW_CHARS,
        )

    def encode(
        self,
        texts: Iterable[str],
        *,
        kind: str = "document",
        advance: Callable[[int], None] | None = None,
    ) -> Encoding:
        """Encode texts.

        Args:
            texts: Any iterable of strings. It is read in windows, so that memory stays bounded apart
                from the result. Texts longer than ``manifest.max_tokens`` are truncated. An empty
                string is a text like any other. A lone surrogate is read as U+FFFD.
            kind: "document" or "query": the model's prompt for it is put in front of each text.
            advance: Called with the number of texts that were encoded since the last call.

        Returns:
            The vectors of the n texts, in their order; n may be 0.

        Raises:
            TypeError: ``texts`` is a single str, or an element is not a str.
            UsageError: The kind is unknown, or the encoder is closed.
            EncoderError: The bundle cannot encode a text; the others of the call are not encoded either.
        """
        chunks = list(self.stream(texts, kind=kind, advance=advance))
        if not chunks:
            return self._empty()
        full = None
        if self.manifest.full_dim is not None:
            full = np.concatenate([chunk.full for chunk in chunks])
        return Encoding(np.concatenate([chunk.coarse for chunk in chunks]), full)

    def stream(
        self,
        texts: Iterable[str],
        *,
        kind: str = "document",
        advance: Callable[[int], None] | None = None,
    ) -> Iterator[Encoding]:
        """Encode texts in order, a few hundred at a time, in bounded memory.

        Arguments and errors are those of ``encode``. The arguments are checked at once, each text when
        it is read.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("texts is a single string: pass a list of strings, e.g. [text]")
        if kind not in KINDS:
            raise UsageError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
        prompt = self.manifest.prompts[kind]
        windows = _windows(texts, prompt, self._window_chars)
        return (self._encode_window(window, advance) for window in windows)

    @property
    def dim(self) -> int:
        """Dimensions of a code."""
        return self.manifest.dim

    @property
    def full_dim(self) -> int | None:
        """Dimensions of a full vector; None if the bundle gives codes only."""
        return self.manifest.full_dim

    def encode_query(
        self, texts: str | Iterable[str], *, dim: int | None = None
    ) -> NDArray[np.float32]:
        """Vectors of length 1 for questions, as other tools take them; see ``encode_document``."""
        return self._vectors(texts, "query", dim)

    def encode_document(
        self, texts: str | Iterable[str], *, dim: int | None = None
    ) -> NDArray[np.float32]:
        """Vectors of length 1 for documents, as other tools take them.

        Args:
            texts: One text, or an iterable of n texts.
            dim: How many dimensions. The full ones are the model's own; up to ``self.dim`` it is a prefix
                of the code, which is an embedding of its own (Matryoshka). Default: the full ones, or all
                of the code if the bundle gives codes only.

        Returns:
            float32[dim] for one text, float32[n, dim] for several.

        Raises:
            UsageError: The bundle has no vectors of that many dimensions.
            EncoderError: The bundle cannot encode a text.
        """
        return self._vectors(texts, "document", dim)

    def _vectors(
        self, texts: str | Iterable[str], kind: str, dim: int | None
    ) -> NDArray[np.float32]:
        wanted = (self.full_dim or self.dim) if dim is None else dim
        check_whole("dim", wanted)
        if wanted != self.full_dim and wanted > self.dim:
            full = "" if self.full_dim is None else f", or {self.full_dim}"
            raise UsageError(f"dim is {wanted}, expected at most {self.dim}{full}")
        found = self.encode([texts] if isinstance(texts, str) else texts, kind=kind)
        if found.full is not None and wanted == self.full_dim:
            vectors = found.full
        else:
            vectors = normalize(found.coarse[:, :wanted].astype(np.float32))
        return vectors[0] if isinstance(texts, str) else vectors

    def encode_padded(self, texts: Sequence[str], *, kind: str = "document") -> Encoding:
        """Encode all texts as one batch, padded to the longest: for checks, not for speed.

        It shows whether a graph's vectors depend on the padding, or on the other texts of a batch.
        """
        with reporting_memory():
            outputs = self._session.run(self.tokenize(texts, kind=kind))
        return Encoding(outputs[0], outputs[1] if len(outputs) > 1 else None)

    def tokenize(self, texts: Sequence[str], *, kind: str = "document") -> list[list[int]]:
        """Token ids as the graph gets them: with prompt and special tokens, truncated, not padded."""
        prompt = self.manifest.prompts[kind]
        return self._token_ids([replace_surrogates(prompt + text) for text in texts])

    def count_tokens(self, texts: Sequence[str], *, kind: str = "document") -> list[int]:
        """Tokens of each text with prompt and special tokens, as if nothing were truncated.

        Those above ``manifest.max_tokens`` are not encoded.

        Raises:
            EncoderError: The tokenizer cannot read a text.
        """
        prompt = self.manifest.prompts[kind]
        whole = [replace_surrogates(prompt + text) for text in texts]
        require_room_for_tokens(sum(map(len, whole)))
        tokenizer = self.untruncated_tokenizer()
        with tokenizing():
            return [len(found.ids) for found in tokenizer.encode_batch_fast(whole)]

    def spans(self, text: str, *, max_tokens: int, overlap: int) -> list[tuple[int, int]]:
        """Deprecated: use ``edge_mrl.encode.token_spans``."""
        from edge_mrl.encode.passages import token_spans

        warning = "Encoder.spans has moved: use token_spans of edge_mrl.encode"
        warnings.warn(warning, DeprecationWarning, stacklevel=2)
        return token_spans(self, text, max_tokens=max_tokens, overlap=overlap)

    @property
    def engine(self) -> str:
        """What runs the graph: "onnxruntime", or "kernels" and their name, such as "kernels avx2"."""
        return self._session.engine

    def untruncated_tokenizer(self) -> Any:
        """A ``tokenizers.Tokenizer`` that neither truncates nor pads, loaded when it is first needed."""
        with self._lock:
            if self._whole is None:
                self._whole = load_tokenizer(self.path, self.manifest, checked=True)
                self._whole.no_truncation()
                self._whole.no_padding()
            return self._whole

    def __repr__(self) -> str:
        return f"Encoder({str(self.path)!r}, dim={self.dim}, full_dim={self.full_dim})"

    def close(self) -> None:
        """Free the session and the mapped weights. Encoding with a closed encoder is a UsageError."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        require_room_for_tokens(sum(map(len, texts)))
        with tokenizing():
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    def _empty(self) -> Encoding:
        width = self.manifest.full_dim
        full = None if width is None else np.empty((0, width), np.float32)
        return Encoding(np.empty((0, self.manifest.dim), np.int8), full)

    def _encode_window(
        self, texts: list[str], advance: Callable[[int], None] | None = None
    ) -> Encoding:
        with reporting_memory():
            return self._encode_texts(texts, advance)

    def _encode_texts(self, texts: list[str], advance: Callable[[int], None] | None) -> Encoding:
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
            if advance is not None:
                advance(len(batch))
        return Encoding(coarse, full)

    def _batches(self, lengths: list[int]) -> list[list[int]]:
        """Indices of the texts that run together; few texts are shared out between the threads."""
        share = max(LEAST_BATCH_TOKENS, math.ceil(sum(lengths) / self._session.threads))
        return list(_batches(lengths, min(self._batch_tokens, share)))


def check_opening(opening: OpeningKeywords) -> str | os.PathLike[str] | None:
    """Check how a bundle is to be opened; returns the file of trusted keys.

    Raises:
        UsageError: A value is none that ``Encoder.open`` takes.
    """
    if (threads := opening.get("threads")) is not None:
        check_whole("threads", threads)
    check_flag("low_memory", opening.get("low_memory", False))
    if (trust := opening.get("trust")) is not None:
        path_of("trust", trust)
    return trust


def _windows(texts: Iterable[str], prompt: str, most_chars: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    for first in iterator:
        window, chars = [], 0
        for text in itertools.chain([first], itertools.islice(iterator, WINDOW_TEXTS - 1)):
            if not isinstance(text, str):
                raise TypeError(f"a text is {type(text).__name__}, expected str")
            if len(text) > MOST_TEXT_CHARS:
                raise EncoderError(
                    f"a text has {len(text)} characters, expected at most {MOST_TEXT_CHARS}: split it"
                )
            window.append(replace_surrogates(prompt + text))
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
