"""The version of the kernels; that of edge-mrl, which they belong to."""

__all__ = ["__version__"]

__version__ = "0.1.0"
