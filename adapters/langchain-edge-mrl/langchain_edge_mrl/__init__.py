"""edge-mrl for LangChain: embeddings, a vector store and a retriever."""

from langchain_edge_mrl.embeddings import EdgeMRLEmbeddings
from langchain_edge_mrl.retriever import EdgeMRLRetriever
from langchain_edge_mrl.store import EdgeMRLVectorStore

__all__ = ["EdgeMRLEmbeddings", "EdgeMRLRetriever", "EdgeMRLVectorStore", "__version__"]

__version__ = "0.1.0"
