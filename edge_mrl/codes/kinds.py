"""The kinds of stored codes, and which parameters each kind takes; readable without numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["CODE_BITS", "CODE_KINDS", "CODE_MAX", "PLANES", "kind_fits"]

#: Elements of int8 codes are in [-127, 127]. -128 is not used, so that negation and dot products cannot
#: overflow.
CODE_MAX = 127
#: Bits per dimension of a stored code, by kind.
CODE_BITS = {"int8": 8, "int4": 4, "2bit": 2, "1bit": 1}
#: Kinds that are kept as planes, a plane for each bit of a dimension: how many there are.
PLANES = {"2bit": 2, "1bit": 1}
#: The outermost level of a kind with a centre, in steps from the centre.
_OUTERMOST = {"2bit": 3, "1bit": 1}
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
    if kind not in CODE_KINDS:
        return False
    if kind == "int4":
        return centre is None and step is not None and 0 < step < math.inf
    if kind == "int8" or (kind == "1bit" and centre is None):
        return step is None and centre is None
    outermost = _OUTERMOST[kind]
    if step is None or step not in range(1, CODE_MAX // outermost + 1):
        return False
    if centre is None:
        return True
    return len(centre) == dim and all(abs(c) + outermost * step <= CODE_MAX for c in centre)
