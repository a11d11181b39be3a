"""Answers from notes, offline: the prompt for a language model is printed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.vector_stores.edge_mrl import EdgeMRLVectorStore

NOTES = [
    TextNode(text="The ferry leaves at dawn.", id_="ferry", metadata={"lang": "en"}),
    TextNode(text="Water the tomatoes every evening.", id_="garden", metadata={"lang": "en"}),
    TextNode(text="A cat and a dog.", id_="pets", metadata={"lang": "en"}),
]


def main() -> None:
    """Store notes and print the prompt for a question; a language model comes next."""
    bundle = os.environ.get("EDGE_MRL_BUNDLE", "minilm")
    with tempfile.TemporaryDirectory() as folder:
        store = EdgeMRLVectorStore.open(Path(folder) / "notes.db", bundle)
        store.add(NOTES)
        index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(embed_dim=1))
        question = "when does the ferry leave?"
        retriever = index.as_retriever(similarity_top_k=2, vector_store_query_mode="hybrid")
        notes = "\n".join(one.text for one in retriever.retrieve(question))
        print(f"Answer from these notes:\n{notes}\n\nQuestion: {question}")
        store.close()


if __name__ == "__main__":
    main()
