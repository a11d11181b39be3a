"""An ``.onnx`` file as it lies on disk: beside its data, behind links, and perhaps already quantised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edge_mrl.errors import UsageError, brief, reason

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

__all__ = [
    "is_linked",
    "read_graph",
    "read_whole",
    "refuse_quantised",
    "token_rows",
]

#: Parts of the names of operators that compute with integers, or unpack weights: ONNX's own and ONNX
#: Runtime's, such as DynamicQuantizeLinear, QLinearMatMul, MatMulInteger, QAttention, MatMulNBits.
QUANTISED = ("quantize", "integer", "qlinear", "nbits", "bnb4", "fpq4")
QUANTISED_OPS = {"QAttention", "QGemm", "QMoE", "QEmbedLayerNormalization", "QOrderedMatMul"}
#: Types that weights have only where they are quantised.
NARROW = ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")
#: Smaller tensors may be anything: masks, shapes, lists of characters.
SMALLEST_WEIGHT = 1024
#: What may stand between the token ids and the table that they are looked up in.
PASSING = {"Cast", "Identity"}


def read_graph(path: Path) -> ModelProto:
    """The file's contents, without the data that lies beside it.

    Raises:
        UsageError: The file is no ONNX file, or holds no graph.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError and OSError; onnx declares no common base
        raise UsageError(f"{path.name} is not an ONNX file: {reason(error)}") from error
    if not model.graph.node:
        raise UsageError(f"{path.name} is not an ONNX file: it holds no graph")
    return model


def _nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of subgraphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes_of(inner)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every constant tensor: initializers and attributes of nodes."""
    yield from model.graph.initializer
    for node in _nodes_of(model.graph):
        for attribute in node.attribute:
            yield from (*attribute.g.initializer, *attribute.tensors)
            if attribute.HasField("t"):
                yield attribute.t


def refuse_quantised(model: ModelProto, name: str) -> None:
    """Refuse a graph whose products or weights are integers, in whatever form.

    Raises:
        UsageError: It is such a graph; the message names the operators or the type of the weights.
    """
    from onnx import TensorProto

    found = {
        node.op_type
        for node in _nodes_of(model.graph)
        if node.op_type in QUANTISED_OPS or any(part in node.op_type.lower() for part in QUANTISED)
    }
    for tensor in _tensors(model):
        kind = TensorProto.DataType.Name(tensor.data_type)
        narrow = kind in NARROW or kind.startswith(("FLOAT8", "FLOAT4"))
        if narrow and _elements(tensor) >= SMALLEST_WEIGHT:
            found.add(f"weights of type {kind.lower()}")
    if found:
        raise UsageError(
            f"{name} is already quantised ({', '.join(sorted(found))}): give the file with fp32 or fp16 "
            "weights, often model.onnx; quantising twice loses accuracy"
        )


def _elements(tensor: TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def token_rows(model: ModelProto) -> int | None:
    """Rows of the constant table that the token ids are looked up in; None if there is no such table."""
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            sizes[node.output[0]] = list(node.attribute[0].t.dims)
    ids = {"input_ids"}
    for node in model.graph.node:  # in order: each node comes after its inputs
        inputs = list(node.input)
        if node.op_type in PASSING and inputs[0] in ids:
            ids.add(node.output[0])
        tables = {("Gather", 1): 0, ("EmbedLayerNormalization", 0): 2}
        for (kind, index), table in tables.items():
            if node.op_type == kind and len(inputs) > max(index, table) and inputs[index] in ids:
                size = sizes.get(inputs[table])
                if size is not None and len(size) == 2:
                    return int(size[0])
    return None


def _external_data(path: Path, model: ModelProto) -> list[Path]:
    """The files beside the graph that hold its weights.

    Raises:
        UsageError: One is missing, or would lie outside the file's folder.
    """
    names = {e.value for t in _tensors(model) for e in t.external_data if e.key == "location"}
    for name in sorted(names):
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or Path(name).is_absolute():
            raise UsageError(
                f"{path.name} keeps its weights in {brief(name, 100)!r}, outside its own folder: refused"
            )
        if not (path.parent / name).is_file():
            raise UsageError(
                f"{path.name} keeps its weights in {brief(name, 100)}, which is missing beside it"
            )
    return [path.parent / name for name in sorted(names)]


def is_linked(path: Path, model: ModelProto) -> bool:
    """Whether links lead to a graph with data beside it, which ONNX Runtime then does not find.

    Hubs keep files as links to blobs; and onnx refuses data with several names.
    """
    data = _external_data(path, model)
    return bool(data) and any(_is_linked(place, path.parent) for place in (path, *data))


def read_whole(path: Path) -> ModelProto:
    """The file's contents with the data that lies beside it, through links.

    Raises:
        UsageError: Data is missing, or shorter than the graph says.
    """
    model = read_graph(path)
    _external_data(path, model)
    for tensor in _tensors(model):
        if tensor.external_data:
            facts = {entry.key: entry.value for entry in tensor.external_data}
            start, length = int(facts.get("offset") or 0), int(facts.get("length") or -1)
            with (path.parent / facts["location"]).open("rb") as file:
                file.seek(start)
                tensor.raw_data = file.read(length)
            if length >= 0 and len(tensor.raw_data) != length:
                raise UsageError(
                    f"{facts['location']} is shorter than {path.name} says: get it again"
                )
            del tensor.external_data[:]
            tensor.data_location = type(tensor).DEFAULT
    return model


def _is_linked(place: Path, root: Path) -> bool:
    """Whether a file is a link or has several names, or a folder between it and the root is a link."""
    between = [part for part in place.parents if root in part.parents]
    return place.stat().st_nlink > 1 or any(part.is_symlink() for part in (place, *between))
