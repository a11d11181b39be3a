"""The exporter: from a text-embedding model to a verified bundle. Start at ``build``."""
