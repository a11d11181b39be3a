"""``.onnx`` files: as they lie on disk, what they take and give, and run as they are."""

from __future__ import annotations

__all__: list[str] = []
