"""Graph passes, each with what it requires and ensures."""
