"""edge-mrl for Haystack: a retriever."""

from haystack_integrations.components.retrievers.edge_mrl.retriever import EdgeMRLRetriever

__all__ = ["EdgeMRLRetriever"]
