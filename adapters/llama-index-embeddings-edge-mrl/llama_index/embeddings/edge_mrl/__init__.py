"""edge-mrl for LlamaIndex: embeddings of a bundle."""

from llama_index.embeddings.edge_mrl.base import EdgeMRLEmbedding

__all__ = ["EdgeMRLEmbedding", "__version__"]

__version__ = "0.1.0"
