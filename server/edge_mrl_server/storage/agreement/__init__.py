"""Whether devices and this database hold the same, and what devices offer that it has lost."""

from __future__ import annotations

__all__: list[str] = []
