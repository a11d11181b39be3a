"""The machine: its processor, its memory and its limits, and files that survive a power cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.machine import facts, memory
    from edge_mrl.machine.durability import advice_about, obstacle_to_writing, sync_path
    from edge_mrl.machine.facts import Cpu, FileSystem, Memory, Requirement, describe
    from edge_mrl.machine.memory import (
        as_error,
        limit_process,
        ran_out,
        reporting_memory,
        require_room,
        require_room_for_products,
        require_room_for_runtime,
    )
    from edge_mrl.machine.positional import BINARY, read_at, read_into, write_at

__all__ = [
    "BINARY",
    "Cpu",
    "FileSystem",
    "Memory",
    "Requirement",
    "advice_about",
    "as_error",
    "describe",
    "facts",
    "limit_process",
    "memory",
    "obstacle_to_writing",
    "ran_out",
    "read_at",
    "read_into",
    "reporting_memory",
    "require_room",
    "require_room_for_products",
    "require_room_for_runtime",
    "sync_path",
    "write_at",
]

__getattr__ = lazily(
    __name__,
    {
        "": ("facts", "memory"),
        "durability": ("advice_about", "obstacle_to_writing", "sync_path"),
        "facts": ("Cpu", "FileSystem", "Memory", "Requirement", "describe"),
        "memory": (
            "as_error",
            "limit_process",
            "ran_out",
            "reporting_memory",
            "require_room",
            "require_room_for_products",
            "require_room_for_runtime",
        ),
        "positional": ("BINARY", "read_at", "read_into", "write_at"),
    },
)
