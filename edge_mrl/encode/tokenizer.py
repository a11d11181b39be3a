"""A bundle's tokenizer, loaded and called only where there is memory for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_mrl.bundle import TOKENIZER, Manifest, bundle_error, check_tokenizer, read_file
from edge_mrl.errors import EdgeMrlError, EncoderError, reason
from edge_mrl.machine import ran_out, require_room

__all__ = ["load_tokenizer", "replace_surrogates", "require_room_for_tokens", "tokenizing"]

#: Memory that must be free before a tokenizer works: a base, and more for each character of the texts
#: and for each byte of a tokenizer's file. Where there is less, the tokenizer ends the process.
BASE_BYTES, BYTES_PER_CHAR, BYTES_PER_FILE_BYTE = 8_000_000, 30, 25
_SURROGATES = re.compile("[\ud800-\udfff]")


def load_tokenizer(bundle: Path, manifest: Manifest, *, checked: bool) -> Any:
    """Load the tokenizer of the bundle in a folder: a ``tokenizers.Tokenizer``.

    Args:
        bundle: The bundle's folder.
        manifest: Its manifest. The file's bytes are compared with the hash that it names.
        checked: Whether the same bytes have been checked before.

    Raises:
        BundleError: The file cannot be read, or has parts that no bundle has.
        OutOfMemoryError: There is not enough memory.
    """
    data = read_file(bundle, TOKENIZER, manifest.files[TOKENIZER])
    require_room(BASE_BYTES + BYTES_PER_FILE_BYTE * len(data))
    if not checked:
        check_tokenizer(data, max_tokens=manifest.max_tokens)
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_buffer(data)
    except BaseException as error:
        if not _is_the_librarys(error):
            raise
        raise bundle_error(error, bundle) from error


@contextmanager
def tokenizing() -> Iterator[None]:
    """Raise an EncoderError in place of the library's own errors; a shortage of memory passes.

    Raises:
        EncoderError: The library cannot tokenise a text.
    """
    try:
        yield
    except BaseException as error:
        if not _is_the_librarys(error) or ran_out(error):
            raise
        raise EncoderError(
            f"the bundle's tokenizer cannot read this text: {reason(error)}"
        ) from error


def _is_the_librarys(error: BaseException) -> bool:
    """Whether it is an error of the Rust library, whose panics are no ``Exception``."""
    return type(error).__name__ == "PanicException" or (
        isinstance(error, Exception) and not isinstance(error, EdgeMrlError | MemoryError)
    )


def require_room_for_tokens(chars: int = 0) -> None:
    """Check that there is memory to tokenise texts of so many characters together.

    Raises:
        OutOfMemoryError: There is not.
    """
    require_room(BASE_BYTES + BYTES_PER_CHAR * chars)


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 cannot encode; offsets stay the same."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)
