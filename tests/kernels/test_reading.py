"""Graphs from strangers: what is cut short, damaged or unknown is refused, and never read beyond."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge_mrl import native
from tests.support.bundles import TINY

pytestmark = pytest.mark.test

GRAPH = (TINY / "model.onnx").read_bytes()
WEIGHTS = (TINY / "model.onnx.data").read_bytes()
#: Damaged graphs that are tried: enough for each field of a message to be hit.
CUTS, FLIPS = 200, 1500


def opens(graph: bytes, weights: bytes = WEIGHTS) -> bool:
    """Whether a graph opens; one that does is run."""
    from edge_mrl_kernels import ForeignGraphError

    kernels = native.kernels()
    assert kernels is not None
    try:
        model = kernels.open(graph, {"model.onnx.data": weights})
    except ForeignGraphError:
        return False
    model.encode([[0, 3, 4, 2], [5] * min(model.max_tokens or 9, 9)])
    model.close()
    return True


def test_a_graph_that_is_cut_short_is_foreign(installed: Path) -> None:
    assert opens(GRAPH)
    # What follows the graph in the model are the versions of its operators.
    cuts = random.Random(1).sample(range(len(GRAPH) - 400), CUTS)
    assert [cut for cut in cuts if opens(GRAPH[:cut])] == []


def test_no_damage_leads_out_of_the_graph(installed: Path) -> None:
    chance, opened = random.Random(2), 0
    for _ in range(FLIPS):
        damaged = bytearray(GRAPH)
        for _ in range(chance.choice((1, 1, 2, 8))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        opened += opens(bytes(damaged))
    assert 0 < opened < FLIPS


def test_weights_outside_their_file_are_foreign(installed: Path) -> None:
    assert not opens(GRAPH, WEIGHTS[:-1])
    assert not opens(GRAPH, b"")
    assert opens(GRAPH, WEIGHTS + bytes(100))


def test_weights_in_another_file_are_foreign(installed: Path) -> None:
    assert not opens(GRAPH.replace(b"model.onnx.data", b"model.onnx.datb"))


@pytest.mark.parametrize(
    "graph", [b"", b"\x00", b"\x3a\x00", b"\x3a\xff", bytes(100), b"\xff" * 30]
)
def test_what_is_no_graph_is_foreign(installed: Path, graph: bytes) -> None:
    assert not opens(graph)
