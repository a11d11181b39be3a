"""What the machine gives and takes: processor, memory, durable files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.machine.durable import sync_path
    from edge_mrl.machine.facts import Cpu, FileSystem, Memory, Requirement, describe
    from edge_mrl.machine.memory import (
        as_error,
        ran_out,
        reporting_memory,
        require_room,
        require_room_for_products,
    )

__all__ = [
    "Cpu",
    "FileSystem",
    "Memory",
    "Requirement",
    "as_error",
    "describe",
    "ran_out",
    "reporting_memory",
    "require_room",
    "require_room_for_products",
    "sync_path",
]

__getattr__ = lazily(
    __name__,
    {
        "durable": ("sync_path",),
        "facts": ("Cpu", "FileSystem", "Memory", "Requirement", "describe"),
        "memory": (
            "as_error",
            "ran_out",
            "reporting_memory",
            "require_room",
            "require_room_for_products",
        ),
    },
)
