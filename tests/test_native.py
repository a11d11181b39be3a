"""Kernels that are not there, or not for this machine: everything works without them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl import native
from edge_mrl.encode import Encoder
from edge_mrl.errors import UsageError
from tests.support.bundles import ROOT, TINY


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known of kernels before a test, nor after it."""
    monkeypatch.delenv(native.KERNEL_VARIABLE, raising=False)
    native._load.cache_clear()
    yield
    native._load.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "edge_mrl_kernels"]:
        del sys.modules[name]


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as it is in the repository: nothing is compiled."""
    monkeypatch.syspath_prepend(str(ROOT / "kernels"))


@pytest.mark.skipif(native.kernels() is not None, reason="kernels are installed here")
def test_without_kernels_onnx_runtime_runs_bundles() -> None:
    assert native.kernels() is None
    assert native.kernel_version() is None
    with Encoder.open(TINY) as encoder:
        assert encoder.engine == "onnxruntime"


def test_a_package_without_its_library_counts_as_none(without_library: None) -> None:
    assert native.kernels() is None


def test_a_library_of_another_machine_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "edge_mrl_kernels"
    package.mkdir()
    for source in (ROOT / "kernels" / "edge_mrl_kernels").glob("*.py"):
        (package / source.name).write_bytes(source.read_bytes())
    (package / "libemrl.so").write_bytes(b"\x7fELF" + bytes(100))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert native.kernels() is None


def test_switched_off_they_are_not_even_loaded(
    without_library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.KERNEL_VARIABLE, "off")
    assert native.kernels() is None
    assert "edge_mrl_kernels" not in sys.modules


def test_kernels_that_are_asked_for_and_not_there_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(native.KERNEL_VARIABLE, "plain")
    monkeypatch.setitem(sys.modules, "edge_mrl_kernels", None)
    with pytest.raises(UsageError, match=r"EDGE_MRL_KERNEL is 'plain', .* not installed"):
        native.kernels()
