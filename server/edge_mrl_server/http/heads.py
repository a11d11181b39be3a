"""Which codes a device asks for, and the heads that make them, kept in memory."""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes, head_id
from edge_mrl.codes import CODE_MAX, INT8, Packing
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.storage import Database, Head, heads

__all__ = ["CodeKey", "HeadCache", "read_packing"]

#: Bytes of matrices that are kept.
MAX_CACHED_BYTES = 64 << 20
#: Heads that only truncate: they are known without being registered.
_PREFIXES = {head_id(None, layer_norm=norm): norm for norm in (False, True)}


@dataclass(frozen=True, slots=True)
class CodeKey:
    """The coarse code that a device asks for.

    Attributes:
        head: The head's id.
        dim: Dimensions of the code.
        scale: The value that 127 stands for.
        packing: How the device's store packs its codes; codes are sent packed in the same way.
        step: What values are multiplied with: scales that give the same one are the same code.
    """

    head: str
    dim: int
    scale: float = field(compare=False)
    packing: Packing = INT8
    step: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", float(np.float32(CODE_MAX / self.scale)))

    def as_json(self) -> dict[str, Any]:
        """As an answer names it: a device compares it with what it asked for."""
        named: dict[str, Any] = {"head": self.head, "dim": self.dim, "scale": self.scale}
        if self.packing != INT8:
            named |= {"stored": self.packing.kind, "step": self.packing.step}
        return named

    @property
    def none(self) -> NDArray[np.int8] | NDArray[np.uint8]:
        """No codes, with the type and width that codes have in a frame."""
        return self._packed(np.zeros((0, self.dim), np.int8))

    def derive(
        self, head: Head, vectors: NDArray[np.float16]
    ) -> NDArray[np.int8] | NDArray[np.uint8]:
        """The codes of full vectors, float16[n, full_dim]: int8[n, dim], or uint8[n, bytes] if packed."""
        if not len(vectors):
            return self.none
        codes = derive_codes(
            vectors.astype(np.float32),
            head.matrix,
            dim=self.dim,
            layer_norm=head.layer_norm,
            scale=self.scale,
        )
        return self._packed(codes)

    def _packed(self, codes: NDArray[np.int8]) -> NDArray[np.int8] | NDArray[np.uint8]:
        return codes if self.packing == INT8 else self.packing.pack(codes)


def read_packing(kind: str, step: str | None, centre: str | None, dim: int) -> Packing:
    """How a device wants codes of so many dimensions to be packed, from a request's parameters.

    Args:
        kind: One of ``edge_mrl.codes.CODE_KINDS``.
        step: A number, or None.
        centre: int8 values in base64url, or None.
        dim: Dimensions of the code.

    Raises:
        Refusal: The parameters are not those of a kind of code.
    """
    try:
        packing = Packing(kind, None if step is None else float(step), _centre(centre))
    except ValueError as error:
        raise Refusal(400, "malformed", f"step or centre: {error}") from error
    if not packing.fits(dim):
        wanted = "a kind of code, with its step and centre"
        raise Refusal(400, "malformed", f"stored={kind[:16]!r}, step, centre: expected {wanted}")
    return packing


def _centre(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    return tuple(np.frombuffer(data, np.int8).tolist())


class HeadCache:
    """The heads used last. They never change, as their names are their hashes. Thread-safe."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._heads: OrderedDict[tuple[str, str], Head] = OrderedDict()

    def get(self, database: Database, tenant: str, code: CodeKey, full_dim: int | None) -> Head:
        """The head of a code.

        Raises:
            Refusal: The head was not registered, or does not fit the dimensions.
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
        head = heads.find(database, tenant, name)
        if head is None:
            raise Refusal(
                404, "head_unknown", f"head {name[:64]} is not registered: PUT /v1/heads/ID first"
            )
        with self._lock:
            self._bytes += _size(head) - _size(self._heads.pop((tenant, name), None))
            self._heads[tenant, name] = head
            while self._bytes > self._max_bytes and len(self._heads) > 1:
                self._bytes -= _size(self._heads.popitem(last=False)[1])
        return head


def _size(head: Head | None) -> int:
    return 0 if head is None or head.matrix is None else head.matrix.nbytes
