"""Native kernels for edge-mrl: its bundles run, and its codes are searched, in one small C library."""

from edge_mrl_kernels._version import __version__
from edge_mrl_kernels.calls import ForeignGraphError, KernelError
from edge_mrl_kernels.library import Kernels, Model, load

__all__ = ["ForeignGraphError", "KernelError", "Kernels", "Model", "__version__", "load"]
