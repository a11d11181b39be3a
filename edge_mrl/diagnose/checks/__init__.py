"""The checks of ``edge-mrl doctor``: the machine, the packages, a bundle and a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.diagnose.checks import bundle, machine, packages, store

__all__ = ["bundle", "machine", "packages", "store"]

__getattr__ = lazily(__name__, {"": ("bundle", "machine", "packages", "store")})
