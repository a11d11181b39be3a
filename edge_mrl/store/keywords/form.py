"""The form of a text in which its words are indexed, the same in every version of Python.

Unicode's forms change for a character once: when a version has it that former ones had not. So the form
is made by the tables of one version, 3.2, and of the characters that it has. Python keeps those tables
(IDNA needs them), but mixes them with its newest for all others, which is why those never get there.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from edge_mrl.store.keywords.unassigned import UNASSIGNED

__all__ = ["keyword_text", "lacking"]


def keyword_text(text: str) -> str:
    """The text as its words are indexed and looked for: in the compatibility form NFKC of Unicode 3.2.

    So ligatures, letters of full width and numbers in circles are found as what they stand for. A
    character that Unicode 3.2 does not have stays as it is, and nothing is joined or sorted across it.

    Source: Unicode Standard Annex 15 with Corrigendum 5, and UnicodeData-3.2.0.txt.
    """
    if text.isascii():
        return text
    parts = lacking().split(text)
    parts[::2] = [unicodedata.ucd_3_2_0.normalize("NFKC", part) for part in parts[::2]]
    return "".join(parts)


@functools.cache
def lacking() -> re.Pattern[str]:
    """What finds runs of characters that Unicode 3.2 does not have."""
    ranges = (pair.split("-") for pair in UNASSIGNED.split())
    within = "".join(f"\\U{int(first, 16):08x}-\\U{int(last, 16):08x}" for first, last in ranges)
    return re.compile(f"([{within}]+)")
