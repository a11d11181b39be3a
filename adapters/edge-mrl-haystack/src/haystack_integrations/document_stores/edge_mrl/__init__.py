"""edge-mrl for Haystack: a document store."""

from haystack_integrations.document_stores.edge_mrl.store import EdgeMRLDocumentStore

__all__ = ["EdgeMRLDocumentStore", "__version__"]

__version__ = "0.1.0"
