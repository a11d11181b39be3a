"""What a device reads of a server's answers, into a store: a documented error, or a sound store."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self, cast
from unittest import mock

import numpy as np

from edge_mrl.bundle import read_manifest
from edge_mrl.documents import Document
from edge_mrl.errors import EdgeMrlError, NetworkError
from edge_mrl.index import Index
from edge_mrl.store import Enrollment, Store, check, replica
from edge_mrl.sync import enrollment
from edge_mrl.sync.budget import Budget
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.link import Link
from edge_mrl.sync.pulls.forms import CodeKey
from edge_mrl.sync.transport import Response, Transport, _refusal
from edge_mrl.wire import Item, encode_items
from tests.fuzz.reader import Reader
from tests.support.bundles import TINY
from tests.support.serving import units
from tests.sync.parts import Parts

__all__ = ["ANSWERS"]

URL, OLD, EPOCH = "http://127.0.0.1", 1 << 40, "e" * 16
MANIFEST = read_manifest(TINY)
CODE = CodeKey.of(MANIFEST)
NAMED = {
    "space": MANIFEST.space_id,
    "code": {"head": CODE.head, "dim": CODE.dim, "scale": CODE.scale},
}


class Line:
    """A transport on which one answer comes, and nothing after it.

    Args:
        data: The body.
        status: The status of the answer.
        headers: Its headers.
    """

    def __init__(
        self, data: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.server = URL
        self.bytes_sent = self.bytes_received = 0
        self._answers = [Response(status, headers or {}, data)]

    def request(self, *_: Any, **__: Any) -> Response:
        """Send nothing; the answer."""
        if not self._answers:
            raise NetworkError("the line is dead")
        answer = self._answers.pop()
        if answer.status >= 400:
            raise _refusal(URL, answer)
        return answer

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def prepare(scratch: Path) -> None:
    """A store with two documents to send, one that is empty, and one that is not enrolled."""
    for name in ("full", "empty", "new"):
        path = scratch / f"{name}.db"
        with Index.open(path, TINY) as index:
            if name != "empty":
                index.put([Document(f"d{n}", f"the cat number {n}") for n in range(2)])
            if name != "new":
                Credentials(URL, "t", "d", "secret").write(path)
                replica.enroll(index.store, Enrollment(URL, "t", "d"), full_dim=MANIFEST.full_dim)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def opened(scratch: Path, name: str) -> Iterator[Index]:
    """A store of its own; it is sound whatever was read into it, and opens again."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    path = folder / f"{name}.db"
    for file in scratch.glob(f"{name}*"):
        shutil.copyfile(file, folder / file.name)
    try:
        try:
            with Index.open(path, TINY) as index:
                yield index
        finally:
            with Store.open(path) as store:
                found = check(store)
                assert found.sound, found.problems
                replica.enrollment_of(store)
    finally:
        shutil.rmtree(folder)


@contextmanager
def synced(scratch: Path, name: str, line: Line) -> Iterator[tuple[Parts, Link]]:
    """Pusher and puller of a store, on a line."""
    with opened(scratch, name) as index, closing(Link(index.store, None)) as link:
        remote = link.follow()
        remote.transport = cast("Transport", line)
        yield Parts(index, remote), link


def _pulled() -> bytes:
    codes = np.ones((3, CODE.dim), np.int8)
    text = "one note and more"
    items = [
        Item("a", OLD, codes[:2], False, "x", text, {"n": 1}, [(0, 4), (4, 17)]),
        Item("b", OLD + 1, codes[:0], deleted=True, device="x"),
        Item("d0", OLD + 2, codes[2:], device="x"),
    ]
    return encode_items({**_page(), "cursor": 3, **NAMED}, items, like=codes)


def _page() -> dict[str, Any]:
    return {
        "since": 0,
        "cursor": 0,
        "more": False,
        "fence": 0,
        "epoch": EPOCH,
        "kept": 0,
        "now_ms": 1 << 40,
        "offers": f"{OLD:016x}",
        "sum": "0" * 16,
        "receipt": "r",
    }


def page_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    restamped = {"from": f"{OLD:016x}", "to": f"{OLD + 9:016x}", "epochs": ["f" * 16]}
    none = np.zeros((0, CODE.dim), np.int8)
    return [_pulled(), encode_items({**_page(), "restamped": restamped}, [], like=none)]


def read_page(data: bytes, scratch: Path) -> None:
    for name, way in (("full", "changes"), ("full", "everything")):
        with synced(scratch, name, Line(data)) as (parts, _):
            getattr(parts.puller(), way)()


def snapshot_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    frame = _pulled()
    return [len(frame).to_bytes(4, "little") + frame]


def read_snapshot(data: bytes, scratch: Path) -> None:
    with synced(scratch, "empty", Line(data, headers={"etag": '"e"'})) as (parts, _):
        parts.puller().bootstrap()


def answer_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    said = {"now_ms": OLD, "receipt": "r", "token": "t", "expires_ms": OLD}
    results = [{"status": "applied"}, {"status": "stale", "v": f"{OLD:016x}", "reason": "x"}]
    ahead = {"status": "clock_ahead", "v": f"{OLD:016x}"}
    return [
        json.dumps({**said, "results": results, "scores": [0.5, None]}).encode(),
        json.dumps({**said, "results": [ahead, {"status": "invalid"}], "scores": [1, 0]}).encode(),
        json.dumps(
            {**said, "results": [], "refused": ["d0"], "tenant": "t", "device": "e"}
        ).encode(),
        json.dumps({**said, "results": [], "refused": None, "space": MANIFEST.space_id}).encode(),
    ]


def _scored(_: Parts, link: Link) -> None:
    scores = link.follow().rerank(["d0", "d1"], units(1, 32)[0], total_s=1.0)
    assert all(isinstance(score, float) for score in scores.values())


USES: tuple[Callable[[Parts, Link], object], ...] = (
    lambda parts, _: parts.pusher().push(),
    lambda parts, _: parts.pusher().settle(),
    lambda _, link: link.renew(link.follow(), refused=True),
    _scored,
)


def read_answer(data: bytes, scratch: Path) -> None:
    """An answer of one kind is wrong for the others, so each use may refuse it."""
    for use in USES:
        with suppress(EdgeMrlError), synced(scratch, "full", Line(data)) as found:
            use(*found)
    with (
        suppress(EdgeMrlError),
        opened(scratch, "new") as index,
        mock.patch.multiple(
            enrollment,
            Transport=lambda *_, **__: Line(data),
            Budget=partial(Budget, attempts=1),
        ),
    ):
        enrollment.enroll(index.store, URL, "invitation")
        assert Credentials.read(index.store) is not None
        Link(index.store, None).follow().close()


def refusal_seeds(scratch: Path) -> list[bytes]:
    prepare(scratch)
    codes = ("superseded", "fenced", "space", "cloned", "restored", "head_unknown", "token")
    more = {"push": 7, "fence": 3, "device": "x", "space": "5" * 64}
    return [
        json.dumps({"error": {"code": code, "message": "no", **more}}).encode() for code in codes
    ]


def read_refusal(data: bytes, scratch: Path) -> None:
    for use in (*USES[:2], lambda parts, _: parts.puller().changes()):
        with synced(scratch, "full", Line(data, status=409)) as found:
            said = ""
            try:
                use(*found)
            except EdgeMrlError as error:
                said = str(error)
            assert len(said) < 3_000
            said.encode()


_reader = partial(Reader, allowed=(EdgeMrlError,), cost=100)
ANSWERS: dict[str, Reader] = {
    "page": _reader(page_seeds, read_page),
    "snapshot": _reader(snapshot_seeds, read_snapshot),
    "answer": _reader(answer_seeds, read_answer),
    "refusal": _reader(refusal_seeds, read_refusal),
}
