"""Processes whose clock is wrong: Python's own, patched when it starts."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Stepped", "clock_off"]

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


class Stepped:
    """A clock of another process that jumps while it runs: its offset stands in a file.

    Args:
        path: The file; it is made.

    Attributes:
        program: Python to run in that process at first.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        self.program = (
            "import mmap, time\n"
            f"with open({str(path)!r}, 'rb') as _file:\n"
            "    _map = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)\n"
            "_real = time.time_ns\n"
            "time.time_ns = lambda: _real() + int.from_bytes(_map[:8], 'little', signed=True)\n"
            "time.time = lambda: time.time_ns() / 1e9\n"
        )

    def jump(self, offset_ns: int) -> None:
        """Put the clock so far off the right time."""
        self._map[:8] = offset_ns.to_bytes(8, "little", signed=True)

    def close(self) -> None:
        """Close the file."""
        self._map.close()
