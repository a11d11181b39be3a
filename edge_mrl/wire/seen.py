"""What a server that refuses a request says of its headers: whether they came as they were sent.

Nothing but TLS protects the headers of a request. A bit that changes in the token on its way makes the
server refuse a device that has a good one, for good; so a refusal says what was refused (FORMAT.md,
"Requests").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

__all__ = ["SEEN", "seen_headers"]

#: The header of a refusal.
SEEN = "Edge-MRL-Seen"
_HEADERS = ("authorization", "edge-mrl-copy", "edge-mrl-protocol", "edge-mrl-space")
_DIGITS = 16


def seen_headers(headers: Mapping[str, str]) -> str:
    """16 hex digits of the SHA-256 of those headers that a refusal may be due to.

    Args:
        headers: The request's, by names in any case.
    """
    named = {name.lower(): value for name, value in headers.items()}
    lines = [f"{name}: {named[name].strip()}\n" for name in _HEADERS if name in named]
    data = "".join(lines).encode("latin-1", "backslashreplace")
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
