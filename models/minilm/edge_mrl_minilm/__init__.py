"""all-MiniLM-L6-v2 as a bundle for edge-mrl, which finds it by the entry point ``minilm``."""

from pathlib import Path

__all__ = ["BUNDLE", "__version__"]

__version__ = "0.1.0"

#: The bundle's folder.
BUNDLE = Path(__file__).resolve().parent / "bundle"
