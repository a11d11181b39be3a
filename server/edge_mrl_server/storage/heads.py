"""Heads: the matrices with which coarse codes are made from full vectors (FORMAT.md, "Codes")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import head_id, is_head
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import InvalidHeadError, LimitReachedError
from edge_mrl_server.storage.database import Database

__all__ = ["Head", "find", "register"]

#: Heads of one tenant at most: one for each kind of device, or each text that one was fitted on.
MAX_HEADS = 256
#: Bytes of all matrices of one tenant at most.
MAX_HEADS_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A head.

    Attributes:
        layer_norm: Whether vectors are centred and scaled to unit variance first.
        matrix: float32[full_dim, dim]; None for the head that only truncates.
    """

    layer_norm: bool
    matrix: NDArray[np.float32] | None


def find(database: Database, tenant: str, name: str) -> Head | None:
    """The head that a tenant has registered under an id, or None."""
    with database.read() as transaction:
        rows = transaction.rows(
            "SELECT layer_norm, matrix_rows, matrix_columns, matrix FROM heads "
            "WHERE tenant = ? AND head = ?",
            tenant,
            name,
        )
    if not rows:
        return None
    row = rows[0]
    matrix = np.frombuffer(row["matrix"], "<f4")
    return Head(bool(row["layer_norm"]), matrix.reshape(row["matrix_rows"], row["matrix_columns"]))


def register(
    database: Database, tenant: str, name: str, matrix: NDArray[np.float32], *, layer_norm: bool
) -> bool:
    """Register a head; returns whether it is new.

    Args:
        database: Where.
        tenant: Whose.
        name: The head's id.
        matrix: float32[full_dim, dim].
        layer_norm: Whether vectors are centred and scaled to unit variance first.

    Raises:
        InvalidHeadError: The matrix is not the head of that id, or not finite.
        LimitReachedError: The tenant has as many heads as it may have.
    """
    if not is_head(matrix):
        raise InvalidHeadError("a head of finite values was expected, from -1e9 to 1e9")
    if head_id(matrix, layer_norm=layer_norm) != name:
        raise InvalidHeadError("the matrix is not the head of that id")
    with database.write() as transaction:
        transaction.lock_tenant(tenant)
        rows = transaction.rows(
            "SELECT head, matrix_rows * matrix_columns AS size FROM heads WHERE tenant = ?", tenant
        )
        if name in {row["head"] for row in rows}:
            return False
        if len(rows) >= MAX_HEADS:
            raise LimitReachedError(f"the tenant has {MAX_HEADS} heads, the most there may be")
        if matrix.nbytes + 4 * sum(row["size"] for row in rows) > MAX_HEADS_BYTES:
            raise LimitReachedError(
                f"the tenant's heads take {MAX_HEADS_BYTES >> 20} MiB, the most there may be"
            )
        transaction.run(
            "INSERT INTO heads (tenant, head, layer_norm, matrix_rows, matrix_columns, matrix, "
            "created_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
            tenant,
            name,
            layer_norm,
            matrix.shape[0],
            matrix.shape[1],
            np.ascontiguousarray(matrix, "<f4").tobytes(),
            now_ms(),
        )
    return True
