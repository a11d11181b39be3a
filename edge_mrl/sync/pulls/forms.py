"""What a device asks a server for: which codes, and what of each document."""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.codes import CODE_MAX
from edge_mrl.sync.answers.fields import is_number

if TYPE_CHECKING:
    from edge_mrl.bundle import Manifest
    from edge_mrl.codes import Packing

__all__ = ["PAGE_ITEMS", "CodeKey", "PageForm"]

#: 127 divided by it is still a float32.
_LEAST_SCALE = 1e-30

#: Documents in a page of a pull.
PAGE_ITEMS = 512


@dataclass(frozen=True, slots=True)
class CodeKey:
    """Which codes a server makes for a device.

    Attributes:
        head: The id of the projection head.
        dim: Dimensions of a code.
        scale: The scale of int8 values.
        packing: How the store packs its codes; a server that knows how sends them packed.
    """

    head: str
    dim: int
    scale: float
    packing: Packing

    @classmethod
    def of(cls, manifest: Manifest) -> CodeKey:
        """The key of a bundle's codes."""
        code = manifest.code
        return cls(manifest.head.id, manifest.dim, code.scale, code.packing)

    def is_named(self, said: object) -> bool:
        """Whether an answer names this key. Scales that give the same codes are the same.

        A server that knows no packed codes says nothing of them, and sends int8 codes.
        """
        if not isinstance(said, dict):
            return False
        packed = (self.packing.kind, self.packing.step)
        if "stored" in said and (said["stored"], said.get("step")) != packed:
            return False
        scale = said.get("scale")
        return (said.get("head"), said.get("dim")) == (self.head, self.dim) and (
            is_number(scale)
            and scale >= _LEAST_SCALE
            and np.float32(CODE_MAX / scale) == np.float32(CODE_MAX / self.scale)
        )

    @property
    def query(self) -> dict[str, Any]:
        """The key as parameters of a request; servers that do not know the last three ignore them."""
        query: dict[str, Any] = {
            "head": self.head,
            "dim": self.dim,
            "scale": repr(float(self.scale)),
        }
        packing = self.packing
        if packing.kind != "int8":
            query["stored"] = packing.kind
            if packing.step is not None:
                query["step"] = repr(float(packing.step))
            if packing.centre is not None:
                centre = np.array(packing.centre, np.int8).tobytes()
                query["centre"] = base64.urlsafe_b64encode(centre).decode().rstrip("=")
        return query


@dataclass(frozen=True, slots=True)
class PageForm:
    """What a page of changes contains.

    Attributes:
        vectors: "coarse", "full" or "none".
        code: Which codes the server makes, if ``vectors`` is "coarse".
        text: Whether texts and metadata come too.
        limit: Documents at most.
        groups: Documents of these groups alone; None for all. An older server sends all.
        differs: How many groups differ, where that is why some are asked for.
        sums: Whether the sums of the tenant's documents come too.
    """

    vectors: str
    code: CodeKey | None = None
    text: bool = True
    limit: int = PAGE_ITEMS
    groups: Collection[int] | None = None
    differs: int = 0
    sums: bool = False

    @property
    def query(self) -> dict[str, Any]:
        """The form as parameters of a request."""
        query: dict[str, Any] = {"limit": self.limit, "vectors": self.vectors}
        if self.text:
            query["text"] = 1
        if self.code is not None and self.vectors == "coarse":
            query |= self.code.query
        if self.groups is not None:
            query["groups"] = ",".join(map(str, sorted(self.groups)))
            query["differs"] = self.differs
        if self.sums:
            query["sums"] = 1
        return query
