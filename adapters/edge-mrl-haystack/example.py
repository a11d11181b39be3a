"""Answers from notes, offline: the prompt for a language model is printed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from haystack import Document, Pipeline
from haystack.components.builders import PromptBuilder
from haystack_integrations.components.retrievers.edge_mrl import EdgeMRLRetriever
from haystack_integrations.document_stores.edge_mrl import EdgeMRLDocumentStore

NOTES = [
    Document(content="The ferry leaves at dawn.", meta={"lang": "en"}),
    Document(content="Water the tomatoes every evening.", meta={"lang": "en"}),
    Document(content="A cat and a dog.", meta={"lang": "en"}),
]
PROMPT = """\
Answer from these notes:
{% for note in documents %}{{ note.content }}
{% endfor %}
Question: {{ question }}"""


def main() -> None:
    """Store notes and print the prompt for a question; a generator comes next in the pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = os.environ.get("EDGE_MRL_BUNDLE", "minilm")
        store = EdgeMRLDocumentStore(str(Path(folder) / "notes.db"), bundle)
        store.write_documents(NOTES)
        pipeline = Pipeline()
        pipeline.add_component("retriever", EdgeMRLRetriever(store, top_k=2))
        pipeline.add_component("prompt", PromptBuilder(PROMPT, required_variables="*"))
        pipeline.connect("retriever.documents", "prompt.documents")
        question = "when does the ferry leave?"
        asked = {"retriever": {"query": question}, "prompt": {"question": question}}
        print(pipeline.run(asked)["prompt"]["prompt"])
        store.close()


if __name__ == "__main__":
    main()
