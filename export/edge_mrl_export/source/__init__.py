"""Source models: found, loaded, and run by their own library as the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_export.source.loading import load_source
    from edge_mrl_export.source.location import DEFAULT_MODEL, installed_default, locate
    from edge_mrl_export.source.model2vec import Model2Vec
    from edge_mrl_export.source.source import Source

__all__ = [
    "DEFAULT_MODEL",
    "Model2Vec",
    "Source",
    "installed_default",
    "load_source",
    "locate",
]

__getattr__ = lazily(
    __name__,
    {
        "loading": ("load_source",),
        "location": ("DEFAULT_MODEL", "installed_default", "locate"),
        "model2vec": ("Model2Vec",),
        "source": ("Source",),
    },
)
