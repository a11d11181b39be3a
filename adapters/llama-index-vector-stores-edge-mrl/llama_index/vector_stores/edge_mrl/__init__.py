"""edge-mrl for LlamaIndex: a vector store."""

from llama_index.vector_stores.edge_mrl.base import EdgeMRLVectorStore

__all__ = ["EdgeMRLVectorStore", "__version__"]

__version__ = "0.1.0"
