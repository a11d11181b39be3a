"""The native kernels, where the distribution ``edge-mrl-kernels`` is installed.

They run the same bundles as ONNX Runtime. EDGE_MRL_KERNEL chooses them by name (such as ``plain``), and
``off`` does without.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from edge_mrl.errors import UsageError, reason

if TYPE_CHECKING:
    from edge_mrl_kernels import Kernels

__all__ = ["KERNEL_VARIABLE", "kernel_version", "kernels", "reference_engine"]

KERNEL_VARIABLE = "EDGE_MRL_KERNEL"
OFF = "off"
_REFERENCE: ContextVar[bool] = ContextVar("reference", default=False)


def kernels() -> Kernels | None:
    """The kernels to use in this process; None where there are none, or they are switched off.

    Raises:
        UsageError: EDGE_MRL_KERNEL names kernels that this processor does not have.
    """
    wanted = OFF if _REFERENCE.get() else os.environ.get(KERNEL_VARIABLE, "")
    return None if wanted == OFF else _load(wanted)


@contextmanager
def reference_engine() -> Iterator[None]:
    """Open bundles in ONNX Runtime within a block: what is made of their vectors is for all machines."""
    before = _REFERENCE.set(True)
    try:
        yield
    finally:
        _REFERENCE.reset(before)


def kernel_version() -> str | None:
    """Version and name of the kernels, such as "0.1.0 avx512vnni"; None where there are none."""
    found = kernels()
    if found is None:
        return None
    from edge_mrl_kernels import __version__

    return f"{__version__} {found.name}"


@functools.cache
def _load(wanted: str) -> Kernels | None:
    try:
        from edge_mrl_kernels import KernelError, load
    except ImportError as error:
        why = f"edge-mrl-kernels is not installed ({reason(error)})"
    else:
        try:
            return load(wanted)
        except OSError as error:  # there is no library, or it was made for another machine
            why = f"its library cannot be loaded ({reason(error)})"
        except KernelError as error:
            why = reason(error)
    if wanted:
        raise UsageError(
            f"{KERNEL_VARIABLE} is {wanted!r}, but {why}: unset it, or set it to {OFF!r} or to the name "
            "of kernels that this processor has"
        )
    return None
