"""What may come back for a request: how large it may be, and who else may have answered."""

from __future__ import annotations

__all__: list[str] = []
