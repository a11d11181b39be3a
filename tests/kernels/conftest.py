from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl import native
from edge_mrl.errors import UsageError
from tests.kernels.support import PREBUILT, build_package

OTHERS = {"x86_64": ("avx2", "avxvnni", "avx512vnni"), "aarch64": ("neon", "dotprod", "i8mm")}
KERNELS = ("plain", *OTHERS.get(platform.machine(), ()))


@pytest.fixture(scope="session")
def package() -> Path:
    """A folder for sys.path that has the kernels: new ones, or those that PREBUILT names."""
    prebuilt = os.environ.get(PREBUILT)
    return Path(prebuilt) if prebuilt else build_package()


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


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, installed: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernels of each name that this processor can run."""
    name: str = request.param
    monkeypatch.setenv(native.KERNEL_VARIABLE, name)
    try:
        assert native.kernels() is not None
    except UsageError as error:
        pytest.skip(str(error))
    return name
