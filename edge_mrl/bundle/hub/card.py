"""The model card of a bundle: README.md of its repository, with front matter that the hub reads."""

from __future__ import annotations

import hashlib
import json
import re

from edge_mrl.bundle.manifest import Manifest

__all__ = ["CARD", "is_made", "make_card"]

CARD = "README.md"
#: The last line of a card that was made: SHA-256 of all lines before it. A person's change breaks it.
_MARK = re.compile(r"<!-- made by edge-mrl: ([0-9a-f]{64}) -->\n?\Z")
#: Licences that the hub knows by their name in small letters; all else is "other", with its name.
_LICENCES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc", "cc-by-2.0",
    "cc-by-3.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-2.0", "creativeml-openrail-m", "ecl-2.0", "epl-2.0",
    "gemma", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "llama2", "llama3",
    "mit", "mpl-2.0", "ms-pl", "openrail", "openrail++", "osl-3.0", "unknown", "unlicense", "wtfpl",
    "zlib",
})  # fmt: skip
_HUB_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
_MEASURED = {
    "cosine_mean": "cosine of full vectors to the original model's, mean",
    "cosine_min": "cosine of full vectors to the original model's, least",
    "code_cosine_mean": "cosine of codes to those of the original model, mean",
    "code_cosine_min": "cosine of codes to those of the original model, least",
    "texts": "texts that were compared",
}


def make_card(manifest: Manifest, *, name: str | None = None, licence: str | None = None) -> str:
    """The card of a bundle, of what its manifest says.

    Args:
        manifest: The bundle's manifest.
        name: "OWNER/NAME" on the hub; None if it is not there yet.
        licence: The hub's name of the weights' licence; None for what the manifest says.
    """
    front = ["---", "library_name: edge-mrl", *_licence_lines(licence or manifest.source.licence)]
    if _HUB_ID.fullmatch(manifest.source.model):
        front += [
            f"base_model: {json.dumps(manifest.source.model)}",
            "base_model_relation: quantized",
        ]
    tags = ["edge-mrl", "onnx", "matryoshka", "sentence-similarity", f"{manifest.dim}-dimensions"]
    front += ["pipeline_tag: sentence-similarity", "tags:", *(f"- {tag}" for tag in tags), "---"]
    body = "\n".join([*front, "", *_body(manifest, name), ""])
    return f"{body}<!-- made by edge-mrl: {_digest(body)} -->\n"


def is_made(card: str) -> bool:
    """Whether a card is one of ``make_card`` that nobody has changed."""
    found = _MARK.search(card)
    return found is not None and _digest(card[: found.start()]) == found[1]


def _licence_lines(licence: str) -> list[str]:
    """The front matter's lines for a licence; none if it is not known."""
    known = licence.strip().lower()
    if known in ("", "unknown"):
        return []
    if known in _LICENCES:
        return [f"license: {json.dumps(known)}"]
    return ["license: other", f"license_name: {json.dumps(licence.strip()[:100])}"]


def _without_path(model: str) -> str:
    """A hub's name as it is; of a path, which older exports gave, the last part alone."""
    return model if _HUB_ID.fullmatch(model) else re.split(r"[\\/]", model.rstrip("\\/"))[-1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _body(manifest: Manifest, name: str | None) -> list[str]:
    where = f"hf://{name}" if name is not None else "DIR"
    full = "none: codes only" if manifest.full_dim is None else f"float32[{manifest.full_dim}]"
    facts = {
        "made of": f"{_without_path(manifest.source.model)} ({manifest.source.architecture})",
        "files": f"{manifest.size_bytes / 1e6:.1f} MB",
        "full vectors": full,
        "codes": f"{manifest.dim} dimensions, kept as {manifest.code.stored}",
        "head": manifest.head.kind,
        "weights": f"{manifest.precision.weights}, activations {manifest.precision.activations}",
        "longest input": f"{manifest.max_tokens} tokens",
        "prompt for questions": json.dumps(manifest.prompts["query"], ensure_ascii=False),
        "prompt for documents": json.dumps(manifest.prompts["document"], ensure_ascii=False),
    }
    lines = [
        f"# {_plain(manifest.name)}",
        "",
        "A bundle for edge-mrl: a text-embedding model for search that runs on the device.",
        "",
        "```console",
        *([f"edge-mrl pull {name}"] if name is not None else []),
        f"edge-mrl index notes/ --store notes.db --bundle {where}",
        'edge-mrl search "when does the boat go?" --store notes.db',
        "```",
        "",
        *_table("what", "", facts),
    ]
    if manifest.quality:
        measured = {
            _MEASURED.get(key, key): f"{value:g}" for key, value in manifest.quality.items()
        }
        lines += ["", "Measured at the export:", "", *_table("measure", "value", measured)]
    return [*lines, ""]


def _table(left: str, right: str, rows: dict[str, str]) -> list[str]:
    shown = [f"| {_plain(key)} | {_plain(value)} |" for key, value in rows.items()]
    return [f"| {left} | {right} |", "|---|---|", *shown]


def _plain(text: str) -> str:
    """Text of a manifest as Markdown that shows it, on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:500]).split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", line)
