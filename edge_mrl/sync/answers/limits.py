"""How large the answer to a request may be, by its route."""

from __future__ import annotations

from edge_mrl.wire import MAX_BODY_BYTES

__all__ = ["MAX_REFUSAL_BYTES", "OVERSIZED_WAIT_S", "answer_limit"]

#: A refusal is a code and a sentence; a proxy's page is not worth more either.
MAX_REFUSAL_BYTES = 64 << 10
#: Enough for a token, a registered head, and whatever else is a few names.
_SMALL = 64 << 10
#: By the path behind /v1/. A pull's page has about a megabyte of vectors and texts; JSON's escapes and
#: the ids come on top. A part of a snapshot has 4 MiB. 512 documents or 1,000 scores have a line each.
_LIMITS = {
    "pull": 16 * MAX_BODY_BYTES,
    "snapshot": 5 * MAX_BODY_BYTES,
    "push": 2 * MAX_BODY_BYTES,
    "rerank": 2 * MAX_BODY_BYTES,
    "search": 16 * MAX_BODY_BYTES,
}
#: How long to wait before asking again for an answer that was too large: its sender will not have changed
#: in a second, and the next one may cost as many bytes.
OVERSIZED_WAIT_S = 300.0


def answer_limit(path: str, *, plain: bool = False) -> int:
    """Most bytes of a good answer to a request.

    Args:
        path: The path of the request, with or without a query, from /v1 on.
        plain: The server is not edge-mrl's, and has routes of its own.
    """
    if plain:
        return _LIMITS["pull"]
    _, _, rest = path.partition("/v1/")
    return _LIMITS.get(rest.partition("?")[0].partition("/")[0], _SMALL)
