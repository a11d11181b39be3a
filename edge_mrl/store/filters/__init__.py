"""Filters on metadata and words: as SQL over indexes, and compared with a document itself."""

__all__: list[str] = []
