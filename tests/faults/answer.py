"""The model answer, from what stores acknowledged alone; and the comparison of every document with it."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_mrl import Encoder
from edge_mrl.bundle.head import bundle_codes
from edge_mrl.codes import INT8, Packing
from edge_mrl.documents import PassageRule
from edge_mrl.encode.passages import split_passages
from edge_mrl.store import Binding, Store, check
from edge_mrl.store.replica.dead_letters import (
    DELETED_ELSEWHERE,
    REPLACED_ELSEWHERE,
    DeadLetter,
    list_dead_letters,
)
from edge_mrl.store.replica.queue import queue_of
from tests.faults.databases import Held
from tests.faults.device import PASSAGE
from tests.faults.plan import Op

__all__ = ["Answer", "Content", "Copy", "Made", "compare_levels", "make_vectors"]

#: A vector of float16 is off by half a unit in the last place, 0.00025; the encoder's float32 by less
#: than a millionth. Vectors of two texts of the plans differ by more than 0.01 in some element.
VECTOR_TOLERANCE = 1e-3
#: A code made from a float16 vector may be rounded to the other side.
CODE_TOLERANCE = 1
#: What stands in a store for a version that it gave up, until the server's is pulled.
GIVEN_UP = 1, ""


@dataclass(frozen=True, slots=True)
class Content:
    """A live document as it should be, and the device that wrote it."""

    text: str
    metadata: Mapping[str, Any]
    writer: int


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What the encoder gives for a text: float32[n, full_dim] and int8[n, dim]."""

    full: NDArray[np.float32]
    codes: NDArray[np.int8]


class Seen(NamedTuple):
    """A version that a store had: a row of its history."""

    stamp: int
    device: str
    deleted: bool
    acknowledged: int
    place: int

    @property
    def version(self) -> tuple[int, str]:
        """What orders it."""
        return self.stamp, self.device


@dataclass(slots=True)
class Copy:
    """A device's store, opened after the end: what it holds, and each version that it ever had.

    Attributes:
        name: For people.
        names: Those that the device had at the server.
        copied: How many versions its history had when its store was copied from another device's.
        history: Stamp, device, whether deleted, the stamp that the server had then, and the place in the
            history, of each version, by document.
    """

    name: str
    names: tuple[str, ...]
    copied: int
    documents: dict[str, Any]
    codes: dict[str, NDArray[np.int8]]
    fulls: dict[str, NDArray[np.float32]]
    kept: str | None
    waiting: int
    letters: list[DeadLetter]
    history: dict[str, list[Seen]]
    problems: list[str]
    packing: Packing = INT8

    @classmethod
    def read(cls, path: Path, name: str, names: Sequence[str], *, copied: int = 0) -> Copy:
        """Open a store as an application does, and check it."""
        with Store.open(path) as store:
            problems = [f"{name}: {text}" for text in check(store).problems]
            letters, waiting = list_dead_letters(store), queue_of(store).items
            with store.reading() as view, store.locked() as (connection, _):
                rows = connection.execute("SELECT key, id FROM documents").fetchall()
                keys = [key for key, _ in rows]
                documents, fulls = view.documents(keys), view.fulls(keys)
                codes = _codes(connection, store.binding)
                history = _history(connection)
        ids = dict(rows)
        if len({name for _, name in rows}) != len(rows):
            problems.append(f"{name}: an id is there twice")
        return cls(
            name,
            tuple(names),
            copied,
            {document.id: document for document in documents.values()},
            {ids[key]: value for key, value in codes.items()},
            {ids[key]: value for key, value in fulls.items()},
            store.keep_full,
            waiting,
            letters,
            history,
            problems,
            store.binding.packing,
        )


def _codes(connection: sqlite3.Connection, binding: Binding) -> dict[int, NDArray[np.int8]]:
    """The levels of each document's codes."""
    width = binding.packing.bytes(binding.dim)
    rows = connection.execute("SELECT document, codes FROM passages")
    return {
        key: binding.packing.unpack(np.frombuffer(data, np.uint8).reshape(-1, width), binding.dim)
        for key, data in rows
    }


def _history(connection: sqlite3.Connection) -> dict[str, list[Seen]]:
    found: dict[str, list[Seen]] = {}
    sql = "SELECT id, stamp, device, deleted, acknowledged, rowid FROM seen_versions ORDER BY rowid"
    try:
        rows = connection.execute(sql).fetchall()
    except sqlite3.OperationalError:  # a store that no device of the plan wrote
        return {}
    for name, stamp, device, deleted, acknowledged, place in rows:
        found.setdefault(name, []).append(Seen(stamp, device, bool(deleted), acknowledged, place))
    return found


@dataclass(slots=True)
class Answer:
    """What was acknowledged, and what follows from it.

    Attributes:
        with_text: Whether text and metadata are sent.
        purged: Whether the server forgot tombstones.
        restored: Whether the server's database was replaced by an older copy.
        gone: Documents that nobody wrote any more after they were deleted.
    """

    with_text: bool
    purged: bool = False
    restored: bool = False
    gone: set[str] = field(default_factory=set)
    _ops: dict[str, dict[int, list[tuple[Op, bool]]]] = field(default_factory=dict)
    #: By the number of a copy: how many writes of each document it has from its original.
    _had: dict[int, dict[str, int]] = field(default_factory=dict)
    #: By the number of a copy: that of its original.
    _original: dict[int, int] = field(default_factory=dict)

    def fork(self, original: int, copy: int) -> None:
        """A device's store was copied: what that had acknowledged, the copy has too."""
        self._original[copy] = original
        had = self._had.setdefault(copy, {})
        for name, by_device in self._ops.items():
            if original in by_device:
                by_device[copy] = list(by_device[original])
                had[name] = len(by_device[original])

    def note(self, device: int, op: Op, *, last: bool) -> None:
        """A write that a store has acknowledged.

        Args:
            device: Whose.
            op: What.
            last: Whether the version that the store had of the document then was that of this write.
        """
        self._ops.setdefault(op.id, {}).setdefault(device, []).append((op, last))

    @property
    def count(self) -> int:
        """How many writes."""
        had = sum(sum(names.values()) for names in self._had.values())
        return sum(len(ops) for by in self._ops.values() for ops in by.values()) - had

    def contents(self, copies: Mapping[int, Copy]) -> tuple[dict[str, Content | None], list[str]]:
        """Every document ever written, as it should be now (None: deleted), and problems found.

        Where one device alone wrote an id, its last write counts. Where several did, the one with the
        last version, as the stores' own history has it.
        """
        problems: list[str] = []
        found: dict[str, Content | None] = {}
        for name, by_device in self._ops.items():
            if name in self.gone:  # versions tell nothing: one that comes back has the last of all
                found[name] = None
            elif len(by_device) == 1:
                ((device, ops),) = by_device.items()
                found[name] = _content(ops[-1][0], device)
            else:
                found[name], wrong = self._winner(name, by_device, copies)
                problems += wrong
        return found, problems

    def _winner(
        self, name: str, by_device: Mapping[int, list[tuple[Op, bool]]], copies: Mapping[int, Copy]
    ) -> tuple[Content | None, list[str]]:
        """What a document that several devices wrote should be now, and problems found."""
        problems = []
        versions = {}
        for device, ops in by_device.items():
            last = [op for op, mine in ops if mine]
            had = self._had.get(device, {}).get(name, 0)
            version = _last_own(copies[device], name)
            if version is not None and last:
                versions[version] = _content(last[-1], device)
            elif self._new(device, by_device, ops[had:]) and last[-1].kind != "delete":
                problems.append(f"{name}: no version for what device {device} wrote")
        winner = versions[max(versions)] if versions else None
        if winner is not None and self.purged and _letter(copies[winner.writer], name):
            return None, problems  # written while its deletion was forgotten: kept as a letter
        return winner, problems

    def _new(
        self,
        device: int,
        by_device: Mapping[int, list[tuple[Op, bool]]],
        ops: list[tuple[Op, bool]],
    ) -> bool:
        """Whether some of the writes make a version: a copy repeats a step that may be in its store."""
        repeated = [op for op, _ in by_device.get(self._original.get(device, device), ())]
        mine = [op for op, mine in ops if mine and op.kind != "delete"]
        return bool(mine) and not (device in self._original and all(op in repeated for op in mine))

    def compare_server(
        self, held: Held, contents: Mapping[str, Content | None], made: Mapping[str, Made]
    ) -> list[str]:
        """What is wrong in a server's database."""
        problems: list[str] = []
        live = {row.id: row for row in held.rows if not row.deleted}
        dead = {row.id for row in held.rows if row.deleted}
        if len(live) + len(dead) != len(held.rows):
            problems.append("server: an id is there twice")
        if len({row.change for row in held.rows}) != len(held.rows):
            problems.append("server: a change number was given twice")
        problems += _differences("server", live, contents)
        for name in live.keys() & {name for name, c in contents.items() if c is not None}:
            content, row = contents[name], live[name]
            assert content is not None
            said = (row.text, row.metadata)
            expected = (content.text, dict(content.metadata)) if self.with_text else (None, None)
            if said != expected:
                problems.append(f"server: {name}: {said!r:.100}, expected {expected!r:.100}")
            vectors = held.vectors.get(name, np.zeros((0, 1), np.float16))
            problems += _compare(f"server: {name}", vectors, made[content.text].full)
        stray = held.vectors.keys() - live.keys()
        problems += [f"server: vectors of {name}, which is not there" for name in stray]
        counted = len(live), len(dead), sum(len(v) for v in held.vectors.values())
        if counted != (held.documents, held.tombstones, held.passages):
            problems.append(
                f"server: it counts {held.documents} documents, {held.tombstones} tombstones and "
                f"{held.passages} passages, there are {counted}"
            )
        return problems

    def compare_copy(
        self, copy: Copy, number: int | None, contents: Mapping[str, Content | None],
        made: Mapping[str, Made],
    ) -> list[str]:  # fmt: skip
        """What is wrong in a device's store; ``number`` is the device's, None for a fresh one."""
        problems = [*copy.problems, *_differences(copy.name, copy.documents, contents)]
        if copy.waiting:
            problems.append(f"{copy.name}: {copy.waiting} documents still wait")
        for letter in copy.letters:
            shared = self._is_shared(letter.id, number)
            if letter.reason not in (DELETED_ELSEWHERE, REPLACED_ELSEWHERE) or not shared:
                problems.append(f"{copy.name}: a dead letter, {letter.id}: {letter.reason}")
        if copy.kept == "until-synced" and copy.fulls:
            problems.append(f"{copy.name}: {len(copy.fulls)} documents' vectors are still kept")
        for name in copy.documents.keys() & {n for n, c in contents.items() if c is not None}:
            content = contents[name]
            assert content is not None
            problems += self._compare_document(copy, name, content, made[content.text], number)
        # What an older copy of the database lacks, and a device has codes of alone, it gives up.
        gives_up = self.restored and not self.with_text and copy.kept != "fp16"
        for name, versions in copy.history.items():
            problems += _backwards(copy, name, versions, gives_up=gives_up)
        return problems

    def _is_shared(self, name: str, number: int | None) -> bool:
        """Whether several devices wrote a document, as far as this one can tell.

        What its copy wrote before the two were told apart has this device's name.
        """
        by_device = self._ops.get(name, {})
        twins = {(one, other) for one, other in self._original.items()}
        return len(by_device) > 1 or any(
            (one, number) in twins or (number, one) in twins for one in by_device
        )

    def _compare_document(
        self, copy: Copy, name: str, content: Content, made: Made, number: int | None
    ) -> list[str]:
        where, document = f"{copy.name}: {name}", copy.documents[name]
        said, expected = (document.text, document.metadata), (content.text, dict(content.metadata))
        if self.with_text or content.writer == number:
            if said != expected:
                return [f"{where}: {said!r:.100}, expected {expected!r:.100}"]
        elif document.text not in ("", content.text):
            return [f"{where}: text {document.text!r:.60}, expected none or {content.text!r:.60}"]
        codes = copy.codes.get(name, np.zeros((0, made.codes.shape[1]), np.int8))
        problems = compare_levels(f"{where}: codes", codes, made.codes, copy.packing)
        if copy.kept == "fp16" and len(made.full):
            full = copy.fulls.get(name, np.zeros((0, 1), np.float32))
            problems += _compare(where, full, made.full)
        return problems


def make_vectors(encoder: Encoder, texts: Iterable[str]) -> dict[str, Made]:
    """What the encoder gives for texts; codes from float16 vectors, as all but the writer have them."""
    rule = PassageRule(PASSAGE["max_tokens"], PASSAGE["overlap"])
    ordered = sorted(set(texts))
    spans = [split_passages(encoder, text, rule) for text in ordered]
    pieces = [text[a:b] for text, cut in zip(ordered, spans, strict=True) for a, b in cut]
    full = encoder.encode(pieces).full if pieces else np.zeros((0, encoder.manifest.full_dim or 1))
    assert full is not None
    full = full.astype(np.float32)
    manifest = encoder.manifest
    codes = bundle_codes(full.astype(np.float16).astype(np.float32), None, manifest)
    made, at = {}, 0
    for text, cut in zip(ordered, spans, strict=True):
        made[text] = Made(full[at : at + len(cut)], codes[at : at + len(cut)])
        at += len(cut)
    return made


def _content(op: Op, device: int) -> Content | None:
    return None if op.kind == "delete" else Content(op.text, op.metadata, device)


def _last_own(copy: Copy, name: str) -> tuple[int, str] | None:
    """The last version of a document that was written on this device.

    What another machine wrote under the same name was pulled: the server had it from the first.
    """
    seen: set[tuple[int, str]] = set()
    last = None
    for row in copy.history.get(name, ()):
        first = row.version not in seen
        seen.add(row.version)
        own = row.device in copy.names and row.acknowledged < row.stamp
        if first and own and row.place > copy.copied:
            last = row.version
    return last


def _letter(copy: Copy, name: str) -> bool:
    found = [letter for letter in copy.letters if letter.reason == DELETED_ELSEWHERE]
    return any(letter.id == name for letter in found)


def _differences(
    where: str, live: Mapping[str, Any], contents: Mapping[str, Content | None]
) -> list[str]:
    expected = {name for name, content in contents.items() if content is not None}
    lost, extra = sorted(expected - live.keys()), sorted(live.keys() - expected)
    problems = [f"{where}: LOST {name}" for name in lost]
    return problems + [f"{where}: RESURRECTED {name}" for name in extra]


def _compare(
    where: str,
    got: NDArray[Any],
    expected: NDArray[Any],
    tolerance: float = VECTOR_TOLERANCE,
) -> list[str]:
    if len(got) != len(expected):
        return [f"{where}: {len(got)} passages, expected {len(expected)}"]
    if not len(got):
        return []
    off = float(np.abs(got.astype(np.float32) - expected.astype(np.float32)).max())
    return [f"{where}: vectors of another text (off by {off:.3f})"] if off > tolerance else []


def compare_levels(
    where: str, got: NDArray[np.int8], expected: NDArray[np.int8], kept: Packing
) -> list[str]:
    """Compare what a store keeps with codes, each of which may be off by CODE_TOLERANCE."""
    if len(got) != len(expected):
        return _compare(where, got, expected)
    ends = [expected.astype(np.int16) + off for off in (-CODE_TOLERANCE, CODE_TOLERANCE)]
    low, high = (
        kept.unpack(kept.pack(np.clip(end, -127, 127).astype(np.int8)), expected.shape[1])
        for end in ends
    )
    return _compare(where, got, np.clip(got, low, high), 0)


def _backwards(copy: Copy, name: str, versions: Sequence[Seen], *, gives_up: bool) -> list[str]:
    """Versions never run backwards, but for one's own that no server had yet (a wrong clock).

    A device that was enrolled anew has another name, and so have its versions. What it may give up is
    never its own; behind that stands whatever the server has.
    """
    for before, after in itertools.pairwise(versions):
        own = before.device in copy.names and after.device in copy.names
        free = own and (before.acknowledged < before.stamp or before.stamp == after.stamp)
        if gives_up and before.device not in copy.names:
            free = free or GIVEN_UP in (before.version, after.version)
        if after.version < before.version and not free:
            return [f"{copy.name}: {name}: version {after.version} replaced {before.version}"]
    return []
