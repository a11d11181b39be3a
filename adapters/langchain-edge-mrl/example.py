"""Answers from notes, offline: the documents that a prompt for a language model is made of."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_edge_mrl import EdgeMRLVectorStore

NOTES = [
    Document("The ferry leaves at dawn.", id="ferry", metadata={"lang": "en"}),
    Document("Water the tomatoes every evening.", id="garden", metadata={"lang": "en"}),
    Document("A cat and a dog.", id="pets", metadata={"lang": "en"}),
]
PROMPT = PromptTemplate.from_template("Answer from these notes:\n{notes}\n\nQuestion: {question}")


def main() -> None:
    """Store notes and print the prompt for a question; a model of your choice comes next in the chain."""
    bundle = os.environ.get("EDGE_MRL_BUNDLE", "minilm")
    with (
        tempfile.TemporaryDirectory() as folder,
        EdgeMRLVectorStore.open(Path(folder) / "notes.db", bundle) as store,
    ):
        store.add_documents(NOTES)
        retriever = store.as_retriever(search_kwargs={"k": 2, "filter": {"lang": "en"}})
        notes = retriever | RunnableLambda(lambda found: "\n".join(d.page_content for d in found))
        chain = {"notes": notes, "question": RunnablePassthrough()} | PROMPT
        print(chain.invoke("when does the boat go?").to_string())


if __name__ == "__main__":
    main()
