"""What grows with a store, by counts: steps of SQLite, plans, rows and bytes, never by time."""
