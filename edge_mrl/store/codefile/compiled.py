"""The native kernels' way to read rows of codes, where they are installed; else numpy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.native import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checks_of", "take_rows"]


def take_rows(table: NDArray[Any], rows: NDArray[np.int64], out: NDArray[Any]) -> NDArray[Any]:
    """Copy rows of an array.

    Args:
        table: Numbers, [n] or [n, m].
        rows: int64[k], each from 0 to n - 1.
        out: Where they go: [k] or [k, m], of the same type.

    Returns:
        ``out``.

    Raises:
        IndexError: There is no such row.
    """
    found = kernels()
    plain = table.flags.c_contiguous and out.flags.c_contiguous and rows.flags.c_contiguous
    if found is None or not plain or not len(table):
        return table.take(rows, 0, out)
    from edge_mrl_kernels import KernelError

    size = table.nbytes // len(table)
    try:
        found.gather((_address(table), len(table), size), _address(rows), len(rows), _address(out))
    except KernelError as error:
        raise IndexError(str(error)) from error
    return out


def checks_of(
    words: NDArray[Any],
    keys: NDArray[np.uint32],
    rows: NDArray[np.int64],
    factors: NDArray[np.uint64],
) -> NDArray[np.uint32] | None:
    """Check values of rows, whose codes are uint64[n, words]; None where numpy has to make them.

    The other arguments are those of ``row_checks``, and the multipliers, uint64[words + 2].
    """
    found = kernels()
    arrays = (words, keys, rows, factors)
    if found is None or not all(array.flags.c_contiguous for array in arrays):
        return None
    checks = np.empty(len(words), np.uint32)
    others = (_address(keys), _address(rows), _address(factors), _address(checks))
    found.checks(_address(words), len(words), words.shape[1], others)
    return checks


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
