"""The measured side of bench/support/children.py: requests on standard input, answers on standard output.

Imports nothing that costs time, as starting is measured, too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["serve"]


def serve(methods: Sequence[Callable[..., Any]]) -> int:
    """Answer requests until standard input ends.

    A request is a line of JSON: ``{"do": name, ...}``, with the arguments of the method of that name.
    An answer is ``{"ok": what it returned}`` or ``{"error": text}``. What engines print goes to standard
    error.

    Returns:
        The exit code, 0.
    """
    kept = os.dup(1)
    os.dup2(2, 1)
    named = {method.__name__: method for method in methods}
    with os.fdopen(kept, "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            answers.write(json.dumps(_answer(named, json.loads(line))) + "\n")
            answers.flush()
    return 0


def _answer(methods: dict[str, Callable[..., Any]], request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request says; a failure is an answer, too."""
    try:
        return {"ok": methods[request.pop("do")](**request)}
    except Exception as error:  # noqa: BLE001 - a peer may raise anything; the run goes on
        return {"error": f"{type(error).__name__}: {error}"}
