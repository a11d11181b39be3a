"""The model card and settings in a model's folder: licence and Matryoshka training."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["read_licence", "read_mrl_dims"]

#: Files whose keys may name the prefix sizes: jina-embeddings-v3 has matryoshka_dimensions in the first.
CONFIGS = ("config.json", "config_sentence_transformers.json", "sentence_bert_config.json")
MRL_KEYS = {"matryoshka_dims", "matryoshka_dimensions", "mrl_dims", "mrl_dimensions"}
#: sentence-transformers writes a loss's settings as JSON into the model card.
CARD_DIMS = re.compile(r'"matryoshka_dims"\s*:\s*\[([\d\s,]+)\]')
#: Tags in the card's front matter; sentence-transformers writes the first.
MRL_TAGS = {"loss:matryoshkaloss", "loss:matryoshka2dloss", "matryoshka", "mrl"}


def read_licence(folder: Path) -> str:
    """The licence in the model card's front matter, or "unknown"."""
    for line in _front_matter(_card(folder)):
        if line.startswith("license:"):
            return line.split(":", 1)[1].strip().strip("\"'") or "unknown"
    return "unknown"


def read_mrl_dims(folder: Path) -> tuple[int, ...] | None:
    """The prefix sizes that a model was trained for (MRL, arXiv 2205.13147), ascending.

    Returns:
        The sizes; empty if the files mention such training without sizes; None if they do not
        mention it.
    """
    for name in CONFIGS:
        for key, value in _items(_parsed(folder / name)):
            if key.lower() in MRL_KEYS and (sizes := _sizes(value)):
                return sizes
    card = _card(folder)
    found = CARD_DIMS.search(card)
    if found is not None:
        return _sizes([int(part) for part in found[1].split(",") if part.strip()])
    tags = {line.strip().lstrip("-").strip().lower() for line in _front_matter(card)}
    return () if tags & MRL_TAGS else None


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(size) is int and size > 0 for size in value):
        return ()
    return tuple(sorted(set(value)))


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _items(inner)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError:  # the reader that needs this file reports the error
        return {}


def _card(folder: Path) -> str:
    path = folder / "README.md"
    return path.read_text("utf-8", errors="replace") if path.exists() else ""


def _front_matter(card: str) -> list[str]:
    """The lines between the two lines of "---" at the start of a card."""
    lines = card.splitlines()
    if not lines or lines[0].strip() != "---":
        return []
    end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
    return lines[1:end]
