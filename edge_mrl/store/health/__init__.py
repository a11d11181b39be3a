"""Checking everything that a store holds, and repairing what can be made again."""

__all__: list[str] = []
