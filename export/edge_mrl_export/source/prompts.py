"""What is put before queries and documents, as sentence-transformers puts it there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl.errors import UsageError, brief
from edge_mrl_export.source.json_files import read_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["apply_settings", "read_prompts"]

KINDS = ("query", "document")
SETTINGS = "config_sentence_transformers.json"
#: Names that models give to such prompts, in lower case with "_" between words. They are used where the
#: library's own reading finds no prompt and the file has none under the library's own names.
NAMES = {
    "query": (
        "query",
        "search_query",
        "retrieval_query",
        "web_search_query",
        "s2p_query",
        "queries",
        "question",
    ),
    "document": (
        "document",
        "passage",
        "corpus",
        "search_document",
        "retrieval_document",
        "retrieval_passage",
        "documents",
        "passages",
        "doc",
    ),
}
#: Prefixes that model cards speak of, where models register none: e5, Nomic, BGE and Arctic.
PREFIXES = (
    "query: ",
    "passage: ",
    "search_query: ",
    "search_document: ",
    "Represent this sentence",
)


def apply_settings(model: SentenceTransformer, root: Path) -> None:
    """Give a model that was put together here the prompts that its folder's settings name.

    Raises:
        UsageError: The settings are malformed.
    """
    settings = _settings(root)
    model.prompts.update(_registered(root))
    default = settings.get("default_prompt_name")
    model.default_prompt_name = default if default in model.prompts else None


def read_prompts(
    model: SentenceTransformer, root: Path, given: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Prompts by kind, and what the user should know about them.

    Args:
        model: The model; its ``encode_query`` and ``encode_document`` say what they use.
        root: The folder with its settings.
        given: By kind, a prompt or the name of a registered one, as the user gave it.

    Raises:
        UsageError: The settings are malformed.
    """
    registered = _registered(root)
    prompts: dict[str, str] = {}
    notes: list[str] = []
    for kind in KINDS:
        asked = given.get(kind)
        if asked is not None:
            prompts[kind] = registered.get(asked, asked)
            continue
        prompts[kind] = _used_by_library(model, kind)
        if not prompts[kind] and kind not in registered:
            name = _known_name(registered, kind)
            if name is not None:
                prompts[kind] = registered[name]
                notes.append(
                    f"the prompt {name!r} is put before each {kind}; sentence-transformers' "
                    f"encode_{kind} puts nothing there, and --{kind}-prompt '' does as it does"
                )
    unused = {
        name: text for name, text in registered.items() if text and text not in prompts.values()
    }
    if unused:
        listed = ", ".join(f"{name} ({brief(text, 60)!r})" for name, text in unused.items())
        notes.append(
            f"prompts that the model has and that are not used: {listed}; --query-prompt NAME or "
            "--document-prompt NAME uses one"
        )
    if not registered and not any(prompts.values()) and not given:
        notes += _hint(root)
    return prompts, tuple(notes)


def _settings(root: Path) -> dict[str, Any]:
    settings = read_json(root / SETTINGS)
    if not isinstance(settings, dict):
        raise UsageError(f"{SETTINGS} holds {type(settings).__name__}, expected an object")
    return settings


def _registered(root: Path) -> dict[str, str]:
    """The prompts that the file names. The library itself takes null for none."""
    found = _settings(root).get("prompts") or {}
    if not isinstance(found, dict) or not all(isinstance(t, str | None) for t in found.values()):
        raise UsageError(
            f'the "prompts" of {SETTINGS} are {brief(found, 80)!r}, expected names with texts'
        )
    return {name: text for name, text in found.items() if text is not None}


class _SeenError(Exception):
    """Ends a call of the library once the prompt is known."""


def _used_by_library(model: SentenceTransformer, kind: str) -> str:
    """The prompt that encode_query or encode_document puts before a text: the library is asked itself."""
    seen: list[str] = []

    def look(_: Any, prompt: str | None = None, **__: Any) -> None:
        seen.append(prompt or "")
        raise _SeenError

    encode: Callable[..., Any] = getattr(model, f"encode_{kind}")
    model.preprocess = look
    try:
        encode(["text"], show_progress_bar=False)
    except _SeenError:
        return seen[0]
    finally:
        del model.preprocess
    raise UsageError(
        f"sentence-transformers' encode_{kind} does not tokenise by preprocess: please report this"
    )


def _known_name(registered: Mapping[str, str], kind: str) -> str | None:
    """The registered prompt of a kind under another name that is in use."""
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()): name for name in registered}
    return next(
        (plain[name] for name in NAMES[kind] if name in plain and registered[plain[name]]), None
    )


def _hint(root: Path) -> list[str]:
    """What the model card says about prefixes, where the model registers none."""
    card = root / "README.md"
    text = card.read_text("utf-8", errors="replace") if card.is_file() else ""
    found = [prefix for prefix in PREFIXES if prefix in text]
    if not found and not re.search(r"(^|[-_/])e5([-_]|$)", root.name.lower()):
        return []
    named = " and ".join(repr(prefix) for prefix in found) or "'query: ' and 'passage: ' (e5)"
    note = f"the model registers no prompts, but its card speaks of {named}: "
    return [f"{note}--query-prompt and --document-prompt put them there"]
