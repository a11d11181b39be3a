"""The kinds of stored codes, and which parameters each kind takes; readable without numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["CODE_BITS", "CODE_KINDS", "CODE_MAX", "kind_fits"]

#: Elements of int8 codes are in [-127, 127]. -128 is not used, so that negation and dot products cannot
#: overflow.
CODE_MAX = 127
#: Bits per dimension of a stored code, by kind.
CODE_BITS = {"int8": 8, "int4": 4, "1bit": 1}
#: The kinds of codes that a store can keep of documents.
CODE_KINDS = tuple(CODE_BITS)


def kind_fits(kind: str, step: float | None, centre: Sequence[int] | None, dim: int) -> bool:
    """Whether codes of so many dimensions can be packed with these parameters.

    Args:
        kind: One of CODE_KINDS.
        step: The step, as in ``edge_mrl.codes.Packing``.
        centre: The centre, as in ``edge_mrl.codes.Packing``.
        dim: Dimensions of the code.
    """
    if kind == "int4":
        return centre is None and step is not None and 0 < step < math.inf
    if kind != "1bit" or centre is None:
        return kind in CODE_KINDS and step is None and centre is None
    if step is None or step not in range(1, CODE_MAX + 1):
        return False
    return len(centre) == dim and all(abs(c) + step <= CODE_MAX for c in centre)
