"""A bundle's tokenizer, loaded and called only where there is memory for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edge_mrl.bundle import TOKENIZER, bundle_error
from edge_mrl.machine import require_room

__all__ = ["load_tokenizer", "replace_surrogates", "require_room_for_tokens"]

#: Memory that must be free before a tokenizer works: a base, and more for each character of the texts
#: and for each byte of a tokenizer's file. Where there is less, the tokenizer ends the process.
BASE_BYTES, BYTES_PER_CHAR, BYTES_PER_FILE_BYTE = 8_000_000, 30, 25
_SURROGATES = re.compile("[\ud800-\udfff]")


def load_tokenizer(bundle: Path) -> Any:
    """Load the tokenizer of the bundle in a folder: a ``tokenizers.Tokenizer``.

    Raises:
        BundleError: The file cannot be read.
        OutOfMemoryError: There is not enough memory.
    """
    from tokenizers import Tokenizer

    path = bundle / TOKENIZER
    require_room(BASE_BYTES + BYTES_PER_FILE_BYTE * path.stat().st_size)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust binding raises bare Exception
        raise bundle_error(error, bundle) from error


def require_room_for_tokens(chars: int = 0) -> None:
    """Check that there is memory to tokenise texts of so many characters together.

    Raises:
        OutOfMemoryError: There is not.
    """
    require_room(BASE_BYTES + BYTES_PER_CHAR * chars)


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 cannot encode; offsets stay the same."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)
