"""Answers from notes, offline: the prompt for a language model is printed."""

from __future__ import annotations

import os

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.edge_mrl import EdgeMRLEmbedding

NOTES = [
    TextNode(text="The ferry leaves at dawn.", id_="ferry"),
    TextNode(text="Water the tomatoes every evening.", id_="garden"),
    TextNode(text="A cat and a dog.", id_="pets"),
]


def main() -> None:
    """Index notes in memory and print the prompt for a question; a language model comes next."""
    embedding = EdgeMRLEmbedding(os.environ.get("EDGE_MRL_BUNDLE", "minilm"))
    index = VectorStoreIndex(NOTES, embed_model=embedding)
    question = "when does the ferry leave?"
    found = index.as_retriever(similarity_top_k=2).retrieve(question)
    notes = "\n".join(one.get_content() for one in found)
    print(f"Answer from these notes:\n{notes}\n\nQuestion: {question}")


if __name__ == "__main__":
    main()
