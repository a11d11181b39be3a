"""The kinds of stored codes, and what goes with them: for readers of a manifest, who need no numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["CODE_BITS", "CODE_KINDS", "CODE_MAX", "kind_fits"]

#: Codes lie in [-127, 127]: -128 is never used, so that negation and the dot product cannot overflow.
CODE_MAX = 127
#: Bits of a dimension in a stored code, by kind.
CODE_BITS = {"int8": 8, "int4": 4, "1bit": 1}
#: What a store may keep of a document.
CODE_KINDS = tuple(CODE_BITS)


def kind_fits(kind: str, step: float | None, centre: Sequence[int] | None, dim: int) -> bool:
    """Whether these are values that codes of so many dimensions can be packed with.

    Args:
        kind: One of CODE_KINDS.
        step: See ``edge_mrl.codes.packing.Packing``.
        centre: Likewise.
        dim: Dimensions of the code.
    """
    if kind == "int4":
        return centre is None and step is not None and 0 < step < math.inf
    if kind != "1bit" or centre is None:
        return kind in CODE_KINDS and step is None and centre is None
    if step is None or step not in range(1, CODE_MAX + 1):
        return False
    return len(centre) == dim and all(abs(c) + step <= CODE_MAX for c in centre)
