"""Builds what Gradle would build: the parts it needs are pinned by hash in pins.toml."""
