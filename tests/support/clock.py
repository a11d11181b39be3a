"""Processes whose clock is wrong: Python's own, patched when it starts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["clock_off"]

#: Python looks for a module of this name when it starts.
_MODULE = """
import os, time
_real, _off = time.time_ns, int(os.environ.get("EDGE_MRL_TEST_CLOCK_NS", "0"))
time.time_ns = lambda: _real() + _off
time.time = lambda: (_real() + _off) / 1e9
"""


@contextmanager
def clock_off(offset_ns: int) -> Iterator[None]:
    """Processes that are started meanwhile have clocks that are off by so much, for all their lives."""
    if not offset_ns:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="emrl-clock-") as folder:
        (Path(folder) / "sitecustomize.py").write_text(_MODULE)
        wanted = {"PYTHONPATH": folder, "EDGE_MRL_TEST_CLOCK_NS": str(offset_ns)}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
