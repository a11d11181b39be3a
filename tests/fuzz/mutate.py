"""Changes to valid files: of their bytes, of their JSON, of their protobuf messages."""

from __future__ import annotations

import json
import random
from typing import Any

__all__ = ["mutated"]

NUMBERS = (
    *(0, 1, -1, 2, 127, 128, 255, 256, 65_535),
    *(1 << 31, (1 << 32) - 1, 1 << 53, 1 << 63, -(1 << 63), 1 << 70),
)
BYTES = (
    *(b"\x00", b"\xff", b"\x80", b"\n", b'"', b"{", b"[", b"\\"),
    *(b"\xed\xa0\x80", b"\xc0\x80", b"1e999", b"NaN"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "\x00", "\ud800", "ﬁ", "../a", "x" * 3000),
    *(0.5, -0.0, 1e308, 10**400, [], {}, [[]] * 3, {"a": {"a": {}}}),
    *({"type": "Sequence"}, {"Regex": "(a+)+$"}, {"String": ""}),
    *NUMBERS,
)


def mutated(data: bytes, rng: random.Random, *, others: list[bytes]) -> bytes:
    """A changed copy of a file: one to four changes of the same or of different kinds."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.random()
        if kind < 0.45 and data[:1] in (b"{", b"["):
            data = in_json(data, rng)
        elif kind < 0.6 and data[4:5] == b"{":
            data = in_frame(data, rng)
        elif kind < 0.6 and data[8:9] == b"{":  # a frame behind its length
            frame = in_frame(data[4:], rng)
            data = len(frame).to_bytes(4, "little") + frame
        elif kind < 0.6:
            data = in_messages(data, rng)
        else:
            data = in_bytes(data, rng, others)
    return data


def in_bytes(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Flip, overwrite, insert, delete, repeat, cut, or join with another file."""
    if not data:
        return rng.choice(others)
    at = rng.randrange(len(data))
    size = min(1 << rng.randrange(8), len(data) - at)
    new = rng.choice(
        (
            rng.choice(BYTES),
            rng.randbytes(size),
            rng.choice(NUMBERS).to_bytes(10, "little", signed=True)[: rng.choice((1, 2, 4, 8))],
            str(rng.choice(NUMBERS)).encode(),
        )
    )
    how = rng.randrange(7)
    if how == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if how == 1:
        return data[:at] + new + data[at + len(new) :]
    if how == 2:
        return data[:at] + new + data[at:]
    if how == 3:
        return data[:at] + data[at + size :]
    if how == 4:
        return data[:at] + data[at : at + size] * rng.choice((2, 3, 50)) + data[at + size :]
    if how == 5:
        return data[:at]
    other = rng.choice(others)
    return data[:at] + other[rng.randrange(len(other) + 1) :]


def in_json(data: bytes, rng: random.Random) -> bytes:
    """Change one value of JSON: another value, another place, gone, or twice. What follows stays."""
    try:
        value, end = json.JSONDecoder().raw_decode(data.decode("latin-1"))
        value = json.loads(data[:end])
    except (ValueError, RecursionError):
        return data
    places = list(_places(value))
    if not places:
        return data
    holder, key = rng.choice(places)
    how = rng.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "type", "\ud800", str(key) * 2))] = holder.pop(key)
    elif how == 2:
        other, name = rng.choice(places)
        copied = json.loads(json.dumps(other[name])) if name in _keys(other) else None
        holder[key] = copied
    elif how == 3 and isinstance(holder[key], list):
        holder[key] = holder[key] * rng.choice((2, 70))
    else:
        holder[key] = rng.choice(VALUES)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    rest = data[end:]
    bare = rest.lstrip(b" ")
    return text.ljust(end + len(rest) - len(bare)) + bare  # a head of a fixed size keeps it


def in_frame(data: bytes, rng: random.Random) -> bytes:
    """Change one value of a frame's JSON, and make the length before it right; sometimes the vectors."""
    size = int.from_bytes(data[:4], "little")
    header, vectors = data[4 : 4 + size], data[4 + size :]
    if len(header) < size:
        return data
    if rng.random() < 0.9:
        header = in_json(header, rng)
    else:
        vectors = vectors[: rng.choice((0, len(vectors) // 2))]
    return len(header).to_bytes(4, "little") + header + vectors


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def _places(value: Any) -> Any:
    """Every (holder, key) below a value."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            for key in _keys(holder):
                yield holder, key
                waiting.append(holder[key])


def in_messages(data: bytes, rng: random.Random) -> bytes:
    """Change one field somewhere in a protobuf message, and make the lengths around it right."""
    fields = _fields(data)
    if not fields:
        return data
    place = rng.randrange(len(fields))
    number, wire, value = fields[place]
    how = rng.randrange(6)
    if how == 0:
        del fields[place]
    elif how == 1:
        fields.insert(rng.randrange(len(fields)), fields[place])
    elif how == 2:
        fields[place] = (rng.choice((number, 1, 5, 7, 13, 14, 15, 20, 25)), wire, value)
    elif wire == 2 and how < 5:
        inner = in_messages(value, rng) if rng.random() < 0.8 else rng.choice(BYTES)
        fields[place] = (number, wire, inner)
    else:
        fields[place] = (number, 0, _varint(rng.choice(NUMBERS)))
    return b"".join(_field(*field) for field in fields)


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """The fields of a message; [] for what is none."""
    found, at = [], 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            start = at
            _, at = _read_varint(data, at)
            found.append((number, wire, data[start:at]))
            continue
        size = {1: 8, 5: 4}.get(wire, -1)
        if wire == 2:
            size, at = _read_varint(data, at)
        if size < 0 or at + size > len(data) or not number:
            return []
        found.append((number, wire, data[at : at + size]))
        at += size
    return found


def _field(number: int, wire: int, value: bytes) -> bytes:
    return _varint(number << 3 | wire) + (_varint(len(value)) if wire == 2 else b"") + value


def _varint(value: int) -> bytes:
    out, value = bytearray(), value & (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            break
        shift += 7
    return value, at
