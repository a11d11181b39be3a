"""Heads: the matrices with which coarse codes are made from full vectors (FORMAT.md, "Codes")."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes, head_id
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import Refusal
from edge_mrl_server.storage import Database

__all__ = ["MAX_HEADS", "Code", "Head", "HeadCache", "put_head"]

#: Heads of one tenant at most: one for each kind of device, or each text that one was fitted on.
MAX_HEADS = 256
MAX_HEAD_BYTES = 16 << 20
_CACHED = 64
_PREFIXES = {head_id(None, layer_norm=norm): norm for norm in (False, True)}


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A head.

    Attributes:
        layer_norm: Whether vectors are centred first.
        matrix: float32[D, dim]; None for the prefix.
    """

    layer_norm: bool
    matrix: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Code:
    """A coarse code: what a device asks for.

    Attributes:
        head: The head's id.
        dim: Dimensions.
        scale: The value that 127 stands for.
    """

    head: str
    dim: int
    scale: float

    def derive(self, head: Head, vectors: NDArray[np.float16]) -> NDArray[np.int8]:
        """int8[n, dim] of float16[n, D]."""
        if not len(vectors):
            return np.zeros((0, self.dim), np.int8)
        return derive_codes(
            vectors.astype(np.float32),
            head.matrix,
            dim=self.dim,
            layer_norm=head.layer_norm,
            scale=self.scale,
        )


class HeadCache:
    """Heads used last. They never change, as their names are their hashes. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: OrderedDict[tuple[str, str], Head] = OrderedDict()

    def get(self, database: Database, tenant: str, code: Code, full_dim: int | None) -> Head:
        """The head of a code.

        Raises:
            Refusal: It was not registered, or does not fit the dimensions.
        """
        head = self._find(database, tenant, code.head)
        rows, columns = (full_dim, full_dim) if head.matrix is None else head.matrix.shape
        if columns is not None and code.dim > columns:
            raise Refusal(400, "malformed", f"dim={code.dim}: the head has {columns}")
        if full_dim is not None and rows != full_dim:
            raise Refusal(
                400,
                "malformed",
                f"a head for {rows} dimensions: the tenant's vectors have {full_dim}",
            )
        return head

    def _find(self, database: Database, tenant: str, name: str) -> Head:
        if name in _PREFIXES:
            return Head(_PREFIXES[name], None)
        with self._lock:
            if (tenant, name) in self._heads:
                self._heads.move_to_end((tenant, name))
                return self._heads[tenant, name]
        with database.read() as session:
            rows = session.rows(
                "SELECT layer_norm, matrix_rows, matrix_columns, matrix FROM heads "
                "WHERE tenant = ? AND head = ?",
                tenant,
                name,
            )
        if not rows:
            raise Refusal(
                404, "head_unknown", f"head {name[:64]} is not registered: PUT /v1/heads/ID first"
            )
        layer_norm, height, width, data = rows[0]
        head = Head(bool(layer_norm), np.frombuffer(data, "<f4").reshape(height, width))
        with self._lock:
            self._heads[tenant, name] = head
            if len(self._heads) > _CACHED:
                self._heads.popitem(last=False)
        return head


def put_head(
    database: Database, tenant: str, name: str, matrix: NDArray[np.float32], *, layer_norm: bool
) -> bool:
    """Register a head; returns whether it is new.

    Raises:
        Refusal: It is not the head of that name, or the tenant has too many.
    """
    if not np.isfinite(matrix).all() or not matrix.size:
        raise Refusal(400, "malformed", "a head of finite values was expected")
    if head_id(matrix, layer_norm=layer_norm) != name:
        raise Refusal(400, "malformed", "the matrix is not the head of that id")
    with database.write() as session:
        session.lock_tenant(tenant)
        found = session.rows("SELECT head FROM heads WHERE tenant = ?", tenant)
        if (name,) in found:
            return False
        if len(found) >= MAX_HEADS:
            raise Refusal(
                403, "forbidden", f"the tenant has {MAX_HEADS} heads, the most there may be"
            )
        session.run(
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
