"""JSON from strangers: bounded, without repeated names, with one clear error."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from edge_mrl.errors import FormatError, ManifestError, brief

__all__ = ["build", "parse_json"]


def parse_json(data: bytes, name: str) -> Any:
    """Parse a file's JSON.

    Readers disagree about an object that has a name twice, so that what one of them checked another one
    does not read. It is refused.

    Args:
        data: The file's bytes, whose number was checked.
        name: The file's name, for the error.

    Raises:
        FormatError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{name} is not valid JSON ({brief(error)}): copy the bundle again"
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a name twice")
    return found


def build(kind: Any, value: Any, name: str, where: str = "") -> Any:
    """Build a dataclass from parsed JSON. Every key must be present, known, and of the right type.

    Args:
        kind: The dataclass.
        value: What was parsed.
        name: The file's name, for errors.
        where: The place in the file.

    Raises:
        ManifestError: It is not.
    """
    if not isinstance(value, dict):
        raise ManifestError(f"{name}: {where or 'the manifest'} must be an object")
    hints = typing.get_type_hints(kind)
    missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
    if missing or unknown:
        what = f"missing {', '.join(missing)}" if missing else f"unknown {', '.join(unknown)}"
        raise ManifestError(f"{name}: {brief(what)}{f' in {where}' if where else ''}")
    return kind(
        **{
            key: _convert(hint, value[key], name, f"{where}.{key}".lstrip("."))
            for key, hint in hints.items()
        }
    )


def _convert(hint: Any, value: Any, name: str, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, name, where)
    if not all(map(_encodable, value if isinstance(value, dict) else [value])):
        raise ManifestError(f"{name}: {brief(repr(where))} holds half of a character (a surrogate)")
    if origin is dict and isinstance(value, Mapping):
        return {
            key: _convert(arguments[1], item, name, f"{where}.{key}") for key, item in value.items()
        }
    if origin is list and isinstance(value, list):
        return [_convert(arguments[0], item, name, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is types.UnionType and value is not None:
        for option in arguments:
            if typing.get_origin(option) is not None:
                return _convert(option, value, name, where)
    options = arguments if origin not in (dict, list, None) else (hint,)
    if float in options and type(value) is int and abs(value) < 1 << 53:
        return float(value)
    if type(value) not in options:
        raise ManifestError(f"{name}: {brief(where)} is {type(value).__name__}, expected {hint}")
    return value


def _encodable(value: Any) -> bool:
    """Whether a text can be written and printed: JSON may hold halves of characters."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return False
    return True
