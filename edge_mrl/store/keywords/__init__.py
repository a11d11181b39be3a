"""Full-text search by SQLite's FTS5: what of a text is indexed, and a user's words as a query."""

__all__: list[str] = []
