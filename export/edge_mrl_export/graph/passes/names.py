"""Short names. The names of values and nodes are half of a traced graph's file."""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["ShortenNames"]


class ShortenNames(ir.passes.InPlacePass):
    """Rename values to a, b, c, ...; drop names of nodes, and types and shapes that a reader can infer.

    Requires: nothing.
    Ensures: inputs and outputs keep their names, types and shapes; no two values have one name.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        kept = {*graph.inputs, *graph.outputs}
        weights = [value for value in graph.initializers.values() if value not in kept]
        inner = [value for node in graph for value in node.outputs if value not in kept]
        named = [value for value in (*weights, *inner) if value.name]  # else it is left out
        for number, value in enumerate(named):
            value.name = f"/{number}"  # so that no new name is one that is still in use
        for value, name in zip(named, _names({str(value.name) for value in kept}), strict=False):
            value.name = name
        for value in (*weights, *inner):
            value.type = value.shape = None
        for node in graph:
            node.name = None
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        graph = model.graph
        made = [value for node in graph for value in node.outputs]
        counts = Counter(v.name for v in {*graph.inputs, *graph.initializers.values(), *made})
        twice = [name for name, count in counts.items() if name and count > 1]
        if twice:
            raise ir.passes.PostconditionError(f"two values have the same name: {twice}")


def _names(taken: set[str]) -> Iterator[str]:
    """All words of letters that are not taken, the shortest first."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            if (name := "".join(letters)) not in taken:
                yield name
