"""Whether a model's folder is whole: no guess replaces a lost file against what others say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from edge_mrl.errors import UsageError, brief, reason
from edge_mrl_export.source.json_files import read_json

__all__ = ["listed_modules", "note_lost", "refuse_changed_tokenizer", "refuse_incomplete"]

#: Modules that cannot be made without their settings, and those that have weights.
WITH_SETTINGS = {"Pooling", "Dense", "LayerNorm", "WeightedLayerPooling"}
WITH_WEIGHTS = {"Dense", "LayerNorm"}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
#: Text on which tokenizers that differ are likely to differ.
SAMPLES = (
    "The Quick Brown Fox",
    "naïve Größe, 3.99 €!",
    "猫は暖かい",
    "don't  stop\tnow",
    "HTTP/2 #42",
)


def listed_modules(folder: Path) -> list[dict[str, Any]]:
    """The entries of modules.json; none if there is no such file.

    Raises:
        UsageError: The file is malformed.
    """
    entries = read_json(folder / "modules.json") or []
    if not isinstance(entries, list) or not all(
        isinstance(e, dict)
        and isinstance(e.get("type"), str)
        and isinstance(e.get("path", ""), str)
        for e in entries
    ):
        raise UsageError(
            f'modules.json is {brief(entries, 80)}, expected a list of {{"type", "path"}}'
        )
    return entries


def refuse_incomplete(folder: Path, label: str, modules: list[dict[str, Any]]) -> None:
    """Refuse a folder that lacks a file which others speak of.

    Raises:
        UsageError: There is no such file; the message names it.
    """
    if not modules:
        _refuse_lost_list(folder, label)
    for module in modules:
        kind, place = module["type"].rsplit(".", 1)[-1], folder / module.get("path", "")
        lost = []
        if kind in WITH_SETTINGS and not (place / "config.json").is_file():
            lost.append("config.json")
        if kind in WITH_WEIGHTS and not any((place / name).is_file() for name in WEIGHTS):
            lost.append(WEIGHTS[0])
        if lost:
            raise UsageError(
                f"{label} is incomplete: modules.json names {kind} in {module.get('path')!r}, without "
                f"{' and '.join(lost)}. Get the whole folder again"
            )
    first = folder / (modules[0].get("path", "") if modules else "")
    tokenizers = ("tokenizer.json", "tokenizer_config.json")
    if not any((place / name).is_file() for place in (first, folder) for name in tokenizers):
        raise UsageError(
            f"{label} has neither {' nor '.join(tokenizers)}: nothing says how text is divided into "
            "tokens. Get the whole folder again"
        )


def _refuse_lost_list(folder: Path, label: str) -> None:
    """Without modules.json, mean pooling is assumed: refuse if the folder speaks of anything else."""
    numbered = sorted(p.name for p in folder.iterdir() if p.is_dir() and re.match(r"\d+_", p.name))
    told = [*numbered]
    if (folder / "config_sentence_transformers.json").is_file():
        told.append("config_sentence_transformers.json")
    if not told or (numbered == ["1_Pooling"] and _is_mean(folder / "1_Pooling")):
        return
    raise UsageError(
        f"{label} has no modules.json, but {', '.join(told)}: it is a sentence-transformers folder whose "
        "list of modules is lost, so its pooling would be guessed. Get the whole folder again"
    )


def _is_mean(pooling: Path) -> bool:
    settings = read_json(pooling / "config.json")
    modes = {k for k, v in settings.items() if k.startswith("pooling_mode_") and v is True}
    named = settings.get("pooling_mode")
    return modes == {"pooling_mode_mean_tokens"} or named in ("mean", ["mean"])


def note_lost(folder: Path) -> list[str]:
    """Files that sentence-transformers writes and that this folder lacks, with what follows from that."""
    notes = []
    if not (folder / "modules.json").exists():
        notes.append("no modules.json: mean pooling is assumed, as in sentence-transformers")
    elif not (folder / "config_sentence_transformers.json").exists():
        notes.append(
            "no config_sentence_transformers.json: prompts, if the model has some, are not known"
        )
    return notes


def refuse_changed_tokenizer(folder: Path, tokenizer: Any, label: str) -> None:
    """Refuse a tokenizer that its library changed, because tokenizer_config.json is lost.

    transformers then takes the usual settings of the model's type, such as lower-casing, over those of
    tokenizer.json.

    Raises:
        UsageError: The library's tokens are not those of tokenizer.json.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if (folder / "tokenizer_config.json").exists() or not path.exists():
        return
    try:
        whole = Tokenizer.from_str(json.dumps(read_json(path)))
    except Exception as error:  # tokenizers raises Exception itself
        raise UsageError(f"tokenizer.json of {label} cannot be read: {reason(error)}") from error
    whole.no_truncation()
    whole.no_padding()
    for text in SAMPLES:
        if whole.encode(text).ids != tokenizer(text)["input_ids"]:
            raise UsageError(
                f"{label} has no tokenizer_config.json, and transformers then divides text otherwise "
                "than tokenizer.json says. Get the whole folder again"
            )
