"""The code file: all codes of a store in one file, a cache of its database."""

from __future__ import annotations

__all__: list[str] = []
