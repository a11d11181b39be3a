"""What a result depends on: the machine and the versions. No names, no paths."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "describe", "save"]

RESULTS = Path(__file__).parent.parent / "results"
PACKAGES = (
    "numpy",
    "onnxruntime",
    "tokenizers",
    "onnx-ir",
    "sentence-transformers",
    "torch",
    "transformers",
)


def describe() -> dict[str, Any]:
    """CPU, cores, memory, operating system and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", errors="replace").splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set((known.get("flags") or known.get("Features") or "").split())
    return {
        "cpu": known.get("model name", platform.processor() or platform.machine()),
        "architecture": platform.machine(),
        "integer_dot": sorted(flags & {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"}),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def save(name: str, settings: dict[str, Any], results: Any) -> Path:
    """Write bench/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    data = {"machine": describe(), "settings": settings, "results": results}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return path
