"""ONNX files by hand, field by field: what onnx itself refuses to write too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: TensorProto.DataType of the arrays that are written here.
TYPES = {"float32": 1, "int8": 3, "int64": 7}


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def chunk(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: NDArray[Any]) -> bytes:
    """A weight inside the graph."""
    dims = b"".join(number(1, size) for size in values.shape)
    return dims + number(2, TYPES[str(values.dtype)]) + chunk(8, name) + chunk(9, values.tobytes())


def external(
    name: str, dims: Iterable[int], places: Mapping[str, object], *, kind: int = 1
) -> bytes:
    """A weight in another file; ``places`` are the entries of its external data."""
    out = b"".join(number(1, size) for size in dims) + number(2, kind) + chunk(8, name)
    for key, value in places.items():
        out += chunk(13, chunk(1, key) + chunk(2, str(value)))
    return out + number(14, 1)


def attribute(name: str, kind: int, field: bytes) -> bytes:
    return chunk(1, name) + field + number(20, kind)


def node(
    kind: str, inputs: Iterable[str], outputs: Iterable[str], *attributes: bytes, domain: str = ""
) -> bytes:
    out = b"".join(chunk(1, name) for name in inputs) + b"".join(chunk(2, n) for n in outputs)
    out += chunk(4, kind) + b"".join(chunk(5, one) for one in attributes)
    return out + (chunk(7, domain) if domain else b"")


def value(name: str, kind: int, dims: Iterable[int | str]) -> bytes:
    """An input or output of the graph."""
    shape = b""
    for dim in dims:
        shape += chunk(1, number(1, dim) if isinstance(dim, int) else chunk(2, dim))
    return chunk(1, name) + chunk(2, chunk(1, number(1, kind) + chunk(2, shape)))


def graph(
    nodes: Iterable[bytes], weights: Iterable[bytes], *, dim: int, full: int, more: bytes = b""
) -> bytes:
    """A GraphProto with the inputs and outputs of a bundle."""
    out = b"".join(chunk(1, one) for one in nodes) + chunk(2, "g")
    out += b"".join(chunk(5, one) for one in weights)
    for name in ("input_ids", "attention_mask"):
        out += chunk(11, value(name, 7, ("texts", "tokens")))
    out += chunk(12, value("coarse", 3, ("texts", dim)))
    out += chunk(12, value("full", 1, ("texts", full)))
    return out + more


def model(graph_: bytes, more: bytes = b"") -> bytes:
    """A ModelProto of opset 18 and ONNX Runtime's operators."""
    opsets = chunk(8, number(2, 18)) + chunk(8, chunk(1, "com.microsoft") + number(2, 1))
    return number(1, 9) + opsets + chunk(7, graph_) + more


def row_of(weight: str) -> list[bytes]:
    """Nodes that give every text the row of a weight float32[1, full], and its beginning as codes."""
    return [
        node("Shape", ["input_ids"], ["shape"], attribute("end", 2, number(3, 1))),
        node("Concat", ["shape", "one"], ["wide"], attribute("axis", 2, number(3, 0))),
        node("Tile", [weight, "wide"], ["full"]),
        node("Slice", ["full", "zero", "dim", "last"], ["cut"]),
        node("Cast", ["cut"], ["coarse"], attribute("to", 2, number(3, 3))),
    ]


def numbers(dim: int) -> list[bytes]:
    """The weights that ``row_of`` needs."""
    return [
        tensor("one", np.array([1], np.int64)),
        tensor("zero", np.array([0], np.int64)),
        tensor("dim", np.array([dim], np.int64)),
        tensor("last", np.array([-1], np.int64)),
    ]
