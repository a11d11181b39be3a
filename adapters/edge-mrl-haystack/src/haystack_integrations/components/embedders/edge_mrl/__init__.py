"""edge-mrl for Haystack: embedders."""

from haystack_integrations.components.embedders.edge_mrl.embedders import (
    EdgeMRLDocumentEmbedder,
    EdgeMRLTextEmbedder,
)

__all__ = ["EdgeMRLDocumentEmbedder", "EdgeMRLTextEmbedder"]
