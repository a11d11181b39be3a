"""JSON files of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge_mrl.errors import UsageError

__all__ = ["read_json"]


def read_json(path: Path) -> Any:
    """The value that a JSON file holds, or an empty object if there is no such file.

    Raises:
        UsageError: The file is not valid JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is not valid JSON: {error}") from error
