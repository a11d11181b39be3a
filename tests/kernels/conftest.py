from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl import native
from tests.kernels.support import build_package


@pytest.fixture(scope="session")
def package() -> Path:
    """A folder for sys.path that has the kernels."""
    return build_package()


@pytest.fixture
def installed(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kernels, as if they were installed: in this process, and in those that it starts."""
    monkeypatch.delenv(native.KERNEL_VARIABLE, raising=False)
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("PYTHONPATH", str(package))
    native._load.cache_clear()
    yield package
    native._load.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "edge_mrl_kernels"]:
        del sys.modules[name]
