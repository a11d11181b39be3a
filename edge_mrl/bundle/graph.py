"""What a bundle's graph file contains: a strict reader of ONNX's protobuf, which needs no onnx.

ONNX Runtime opens files that a graph names, and older versions open any file of the machine. So each name
is compared with the manifest before ONNX Runtime sees the graph. Whatever this reader does not know, or
could understand otherwise than ONNX Runtime, it refuses: unknown fields, fields that are given twice,
nested graphs, functions, training, sparse tensors. No exporter here writes any of them.

The fields are those of onnx/onnx.proto (onnx/onnx, version 1.20); the encoding is that of
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from edge_mrl.bundle.operators import OPERATORS
from edge_mrl.errors import GraphError, brief

__all__ = ["External", "Graph", "read_graph"]

#: Bytes of one element, by TensorProto.DataType; types of less than a byte are never external here.
ELEMENT_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
#: More than any model has: transformers of 48 layers have about 3,000 nodes.
MOST_NODES = 100_000
#: Branches within branches; an exported model has one.
MOST_DEPTH = 4
#: External weights may be read more than once (as by the first exporters' heads), but not often.
MOST_READS = 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class External:
    """A weight that lies in another file of the bundle.

    Attributes:
        name: The weight's name.
        location: The file's name.
        offset: Its first byte in that file.
        length: Its number of bytes.
    """

    name: str
    location: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Graph:
    """What a graph file says.

    Attributes:
        externals: Weights in other files.
        operators: (domain, operator) of its nodes.
    """

    externals: tuple[External, ...]
    operators: frozenset[tuple[str, str]]

    @property
    def locations(self) -> frozenset[str]:
        """Names of the files that the graph reads."""
        return frozenset(external.location for external in self.externals)


def read_graph(data: bytes, sizes: Mapping[str, int]) -> Graph:
    """Read a graph file, and check that it is one that a bundle may have.

    Args:
        data: The bytes of model.onnx.
        sizes: Bytes of the files that it may read, by name.

    Raises:
        GraphError: It is damaged, has parts that no bundle has, or reads another file.
    """
    reader = _Reader(data, sizes)
    reader.model((0, len(data)))
    total, most = sum(x.length for x in reader.externals), MOST_READS * sum(sizes.values())
    if total > most:
        _refuse(f"it reads {total} bytes of files that have {sum(sizes.values())}")
    return Graph(tuple(reader.externals), frozenset(reader.operators))


def _refuse(what: str) -> NoReturn:
    raise GraphError(f"model.onnx cannot be opened: {what}; export the model again")


class _Reader:
    """Walks through the messages. Each method reads one kind of message in a span of the bytes."""

    def __init__(self, data: bytes, sizes: Mapping[str, int]) -> None:
        self.data = data
        self.sizes = sizes
        self.externals: list[External] = []
        self.operators: set[tuple[str, str]] = set()
        self.nodes = 0
        self.names: set[str] = set()
        self.depth = 0

    def model(self, span: Span) -> None:
        """ModelProto. Training (20) and functions (25) are refused."""
        graphs = 0
        for number, value in self.fields(span, "the model", "v1 s2 s3 s4 v5 s6 s7 s8 s14"):
            if number == 7:
                graphs += 1
                self.graph(self.part(value))
        if graphs != 1:
            _refuse(f"it has {graphs} graphs, expected 1")

    def branch(self, span: Span) -> None:
        """A graph in a node: a branch of If. Its weights are inside it."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            _refuse(f"its graphs lie more than {MOST_DEPTH} deep in each other")
        self.graph(span)
        self.depth -= 1

    def graph(self, span: Span) -> None:
        """GraphProto. Sparse initializers (15) are refused."""
        for number, value in self.fields(span, "the graph", "s1 s2 s5 s10 s11 s12 s13 s14 s16"):
            if number == 1:
                self.node(self.part(value))
            elif number == 5:
                self.tensor(self.part(value), weight=not self.depth)

    def node(self, span: Span) -> None:
        """NodeProto."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            _refuse(f"it has more than {MOST_NODES} nodes")
        kind, domain = "", ""
        for number, value in self.fields(span, "a node", "s1 s2 s3 s4 s5 s6 s7 s8 s9", once="3478"):
            if number == 4:
                kind = self.text(value)
            elif number == 7:
                domain = self.text(value)
            elif number == 5:
                self.attribute(self.part(value))
            elif number == 8 and self.text(value):
                _refuse("a node calls a function")
        if kind not in OPERATORS.get(domain, ()):
            _refuse(
                f"it has the operator {brief(f'{domain}.{kind}'.lstrip('.'))}, which no bundle has"
            )
        self.operators.add((domain, kind))

    def attribute(self, span: Span) -> None:
        """AttributeProto. Lists of graphs (11), sparse tensors (22, 23), references (21) are refused."""
        known = "s1 f2 v3 s4 s5 s6 *7 *8 s9 s10 s13 v20"
        for number, value in self.fields(span, "an attribute", known, once="13456"):
            if number in (5, 10):
                self.tensor(self.part(value), weight=False)
            elif number == 6:
                self.branch(self.part(value))

    def tensor(self, span: Span, *, weight: bool) -> None:
        """TensorProto. Only a weight of the graph itself may lie in another file."""
        numbers = {2: 0, 14: 0}
        name, dims, entries = "", list[int](), dict[str, str]()
        known = "*1 v2 *4 *5 s6 *7 s8 s9 *10 *11 s12 s13 v14 s16"
        for number, value in self.fields(span, "a tensor", known, once="2 8 9 14"):
            if number == 1:
                dims += self.numbers(value)
            elif number == 8:
                name = self.text(value)
            elif number == 13:
                self.entry(self.part(value), entries)
            elif number in numbers:
                numbers[number] = self.number(value)
        external = numbers[14] == _EXTERNAL
        if weight:
            self.count(name)
        if (external or entries) and not (weight and external):
            _refuse("a constant of a node lies in another file")
        if external:
            self.externals.append(self.external(name, numbers[2], dims, entries))

    def count(self, name: str) -> None:
        """Count a weight's name."""
        if name in self.names:
            _refuse(f"two weights have the name {brief(name)}")
        self.names.add(name)

    def entry(self, span: Span, entries: dict[str, str]) -> None:
        """StringStringEntryProto of a tensor's external data."""
        key, text = "", ""
        for number, value in self.fields(span, "the place of a weight", "s1 s2", once="12"):
            if number == 1:
                key = self.text(value)
            else:
                text = self.text(value)
        if key not in ("location", "offset", "length") or key in entries:
            _refuse(f"the place of a weight says {brief(key)}")
        entries[key] = text

    def external(self, name: str, kind: int, dims: list[int], entries: dict[str, str]) -> External:
        """Check where a weight lies: in a file of the manifest, and inside it."""
        location = entries.get("location", "")
        size = self.sizes.get(location)
        if size is None:
            _refuse(
                f"it reads the file {brief(location)}, which is not one of the bundle's weights "
                f"({', '.join(sorted(self.sizes))})"
            )
        numbers = [entries.get("offset", "0"), entries.get("length", "")]
        # Digits alone: other readers take signs, blanks and hexadecimal numbers differently.
        if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in numbers):
            _refuse(f"the place of the weight {brief(name)} is no number")
        offset, length = map(int, numbers)
        if kind not in ELEMENT_BYTES or any(dim < 0 for dim in dims):
            _refuse(f"the weight {brief(name)} has an unknown type or shape")
        if length != math.prod(dims) * ELEMENT_BYTES[kind] or offset + length > size:
            _refuse(
                f"the weight {brief(name)} does not fit into {location}, which has {size} bytes"
            )
        return External(name, location, offset, length)

    def fields(
        self, span: Span, what: str, known: str, *, once: str = ""
    ) -> Iterator[tuple[int, int | Span]]:
        """Numbers and values of a message's fields.

        Args:
            span: Where the message lies.
            what: Its name, for errors.
            known: The fields that it may have: a letter for the type (v: varint, s: bytes, f: 32 bits,
                *: any, because repeated numbers have two encodings), and the number.
            once: Numbers of fields that may be given only once, because readers differ in what they make
                of two.
        """
        types = {int(field[1:]): _TYPES[field[0]] for field in known.split()}
        single = set(map(int, once.split() if " " in once else once))
        at, end = span
        while at < end:
            key, at = self.varint(at, end)
            number, wire = key >> 3, key & 7
            if wire not in types.get(number, ()):
                _refuse(f"{what} has the unknown field {number} (type {wire})")
            if number in single:
                single.remove(number)
                types[number] = ()
            value: int | Span
            if wire == _VARINT:
                value, at = self.varint(at, end)
            else:
                size = 8 if wire == _FIXED64 else 4
                if wire == _BYTES:
                    size, at = self.varint(at, end)
                if size > end - at:
                    _refuse(f"{what} is cut short")
                value, at = (at, at + size), at + size
            yield number, value

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """A number of one to ten bytes, and where the next field starts."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (1 << 64) - 1, at
        _refuse("a number is cut short or too long")

    def part(self, value: int | Span) -> Span:
        """The span of a message or text."""
        assert not isinstance(value, int)  # its type was checked
        return value

    def number(self, value: int | Span) -> int:
        """A number, with its sign."""
        assert isinstance(value, int)  # its type was checked
        return value - (1 << 64) if value >> 63 else value

    def numbers(self, value: int | Span) -> list[int]:
        """Numbers in either encoding."""
        if isinstance(value, int):
            return [self.number(value)]
        found, (at, end) = [], value
        while at < end:
            one, at = self.varint(at, end)
            found.append(self.number(one))
        return found

    def text(self, value: int | Span) -> str:
        """A text."""
        start, end = self.part(value)
        try:
            return self.data[start:end].decode("utf-8")
        except UnicodeDecodeError:
            _refuse("a name is not UTF-8")


_TYPES: dict[str, tuple[int, ...]] = {
    "v": (_VARINT,),
    "s": (_BYTES,),
    "f": (_FIXED32,),
    "*": (_VARINT, _FIXED64, _BYTES, _FIXED32),
}
