"""The documents that a filter selects, as a set of keys.

Where one of several conditions holds for few documents, these are looked up first, and the others are
asked about them alone: SQLite would make a set of each condition.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.store.filters.compiling import Group, Leaf, compile_filter, holds, parse, select

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store.filters.compiling import Condition, Query

__all__ = ["select_keys"]

#: So many documents are asked about one by one; that takes a few microseconds each.
FEW = 4_096


def select_keys(connection: sqlite3.Connection, where: Mapping[str, Any]) -> NDArray[np.int64]:
    """int64: keys of the documents that a filter selects, ascending; see ``compile_filter``.

    Raises:
        UsageError: The filter cannot be understood.
    """
    condition = parse(where)
    if isinstance(condition, Group) and condition.how == "all":
        sizes = [_size(connection, part) for part in condition.parts]
        narrowest = min(range(len(sizes)), key=sizes.__getitem__)
        if sizes[narrowest] <= FEW:
            return _from(connection, condition, narrowest)
    return _fetch(connection, compile_filter(where))


def _from(connection: sqlite3.Connection, group: Group, first: int) -> NDArray[np.int64]:
    """The documents for which one of several conditions holds, and all the others too."""
    keys = _fetch(connection, select(group.parts[first]))
    others = [part for number, part in enumerate(group.parts) if number != first]
    condition, values = holds(Group("all", others), "asked.value")
    query = f"SELECT asked.value FROM json_each(?) AS asked WHERE {condition}"  # noqa: S608 - own text
    return _fetch(connection, (query, [json.dumps(keys.tolist()), *values]))


def _size(connection: sqlite3.Connection, condition: Condition) -> int:
    """How many documents a condition selects; of more than ``FEW``, that they are more."""
    if isinstance(condition, Leaf):
        sql, values = condition.query
        query = f"SELECT count(*) FROM ({sql} LIMIT {FEW + 1})"  # noqa: S608 - own text
        return int(connection.execute(query, values).fetchone()[0])
    if condition.how == "none":  # as a rule nearly all
        return FEW + 1
    sizes = [_size(connection, part) for part in condition.parts]
    return min(sizes) if condition.how == "all" else min(sum(sizes), FEW + 1)


def _fetch(connection: sqlite3.Connection, query: Query) -> NDArray[np.int64]:
    keys = [key for (key,) in connection.execute(*query)]
    return np.unique(np.array(keys, np.int64))
