"""Answers from a collection, offline: the prompt for a language model is printed."""

from __future__ import annotations

import llm
import sqlite_utils

NOTES = {
    "ferry": "The ferry leaves at dawn.",
    "garden": "Water the tomatoes every evening.",
    "pets": "A cat and a dog.",
}


def main() -> None:
    """Embed notes and print the prompt for a question; ``llm.get_model(...).prompt(...)`` comes next."""
    database = sqlite_utils.Database(memory=True)
    notes = llm.Collection("notes", database, model_id="edge-mrl/document")
    notes.embed_multi(NOTES.items(), store=True)
    question = "when does the boat go?"
    vector = llm.get_embedding_model("edge-mrl/query").embed(question)
    found = "\n".join(str(one.content) for one in notes.similar_by_vector(vector, number=2))
    print(f"Answer from these notes:\n{found}\n\nQuestion: {question}")


if __name__ == "__main__":
    main()
