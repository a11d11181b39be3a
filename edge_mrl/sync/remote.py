"""The requests of FORMAT.md, "Wire", as calls: what goes out is right, what comes in is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import numpy as np

from edge_mrl.errors import NetworkError, WireError
from edge_mrl.sync.transport import Answer, Timeouts, Transport
from edge_mrl.wire import (
    CONTENT_TYPE,
    STATUSES,
    Item,
    Message,
    decode_items,
    decode_message,
    encode_message,
    now_ms,
    parse_stamp,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.bundle import Manifest
    from edge_mrl.sync.credentials import Credentials

__all__ = ["Code", "Grant", "Page", "Part", "Pushed", "Remote", "enroll"]

#: Documents in a page of a pull.
PAGE_ITEMS = 512
#: Bytes of a snapshot in one request: small enough to lose, large enough not to wait for answers.
SNAPSHOT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Code:
    """How a server is to make coarse codes for a device: head, dimensions and scale."""

    head: str
    dim: int
    scale: float

    @classmethod
    def of(cls, manifest: Manifest) -> Code:
        """The code of a bundle."""
        return cls(manifest.head.id, manifest.dim, manifest.code.scale)

    @property
    def query(self) -> dict[str, Any]:
        """The code as parameters of a request."""
        return {"head": self.head, "dim": self.dim, "scale": repr(float(self.scale))}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a server gives a new device, and its clock less ours."""

    tenant: str
    device: str
    token: str
    expires_ms: int | None
    offset_ms: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a server said of a push.

    Attributes:
        results: Of each item, in order: status and, where that is newer, its stamp.
        offset_ms: The server's clock less ours.
        refused: Where the push had no items: ids that it refused of the one before that had this number;
            None where that did not arrive, and will not any more.
    """

    results: Sequence[tuple[str, int]]
    offset_ms: int
    refused: Sequence[str] | None


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Changes of a tenant's documents.

    Attributes:
        items: The documents, oldest change first.
        cursor: The change that these lead to.
        more: Whether there are others behind them.
        fence: The last change among the deletions that the server has forgotten; 0 for none.
        epoch: In which the server counts its changes; another one after it was restored.
        kept: The last push of ours that it had when the epoch began.
        offset_ms: The server's clock less ours.
    """

    items: Sequence[Item]
    cursor: int
    more: bool
    fence: int
    epoch: str
    kept: int
    offset_ms: int


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a snapshot: its bytes, the size and the name of the whole, and the whole's digest."""

    data: bytes
    size_bytes: int
    etag: str
    digest: str | None


class Remote:
    """A server, as one device sees it. For one thread at a time.

    Args:
        credentials: Who we are, and where.
        space_id: The space of our full vectors.
        timeouts: How long to wait.
    """

    def __init__(
        self, credentials: Credentials, space_id: str, *, timeouts: Timeouts | None = None
    ) -> None:
        self.transport = Transport(
            credentials.server,
            ca=credentials.ca,
            insecure=credentials.insecure,
            timeouts=timeouts,
        )
        self.token = credentials.token
        self._space_id = space_id

    def push(self, frame: bytes, items: int, *, whole_s: float | None = None) -> Pushed:
        """Send documents.

        Args:
            frame: At most 512 documents and 1 MiB.
            items: How many documents.
            whole_s: How long it may take.

        Raises:
            ServerError: Nothing was stored.
            NetworkError: Nobody knows whether something was stored: send it again.
        """
        answer, offset_ms = self._timed("POST", "/v1/push", frame, whole_s=whole_s)
        rows = answer.get("results")
        if not isinstance(rows, list) or len(rows) != items:
            raise NetworkError(f"{self.transport.server}: results: expected {items} of them")
        return Pushed([_result(row) for row in rows], offset_ms, _refused(answer))

    def pull(
        self,
        since: int,
        *,
        code: Code | None,
        vectors: str,
        fence: int | None = None,
        epoch: str | None = None,
        push: int = 0,
    ) -> Page:
        """Ask for what changed after ``since``, with text where the server has it.

        Args:
            since: A cursor; 0 for everything.
            code: How codes are made, where ``vectors`` is "coarse".
            vectors: "coarse", "full" or "none".
            fence: The fence that stood at the first page, where everything is pulled.
            epoch: The epoch that ``since`` is of; None where that does not matter.
            push: The last push of which is known whether it arrived.

        Raises:
            ServerError: "fenced", where deletions after ``since`` are forgotten; "restored", where the
                server is an older copy of what it was; "head_unknown".
            NetworkError: No answer came, or one to another question.
        """
        query: dict[str, Any] = {"since": since, "limit": PAGE_ITEMS, "vectors": vectors, "text": 1}
        if code is not None and vectors == "coarse":
            query |= code.query
        if fence is not None:
            query["fence"] = fence
        if epoch is not None:
            query |= {"epoch": epoch, "push": push}
        started = now_ms()
        answer = self._ask("GET", f"/v1/pull?{urlencode(query)}")
        message = _frame(answer)
        header = message.header
        cursor, more, clock = header.get("cursor"), header.get("more"), header.get("now_ms")
        if header.get("since") != since:
            # Without TLS, nothing else would tell that a bit of the request's first line was changed.
            raise NetworkError(f"{self.transport.server}: a page after another change than {since}")
        if not isinstance(cursor, int) or cursor < since or not isinstance(more, bool):
            raise NetworkError(f"{self.transport.server}: a page without cursor")
        items = _items(message)
        if (more and not items) or (items and cursor <= since):
            raise NetworkError(f"{self.transport.server}: a page that leads nowhere")
        stood, named, kept = header.get("fence", 0), header.get("epoch", ""), header.get("kept", 0)
        if not (isinstance(stood, int) and isinstance(named, str) and isinstance(kept, int)):
            raise NetworkError(
                f"{self.transport.server}: fence, epoch, kept: expected two numbers, text"
            )
        return Page(items, cursor, more, stood, named, kept, _offset(clock, started))

    def snapshot(self, code: Code, *, start: int, etag: str | None) -> Part:
        """Ask for a range of all live documents' codes.

        Args:
            code: How codes are made.
            start: The first byte.
            etag: The snapshot that a range was had of before; None for a new one.
        """
        headers = {"Range": f"bytes={start}-{start + SNAPSHOT_BYTES - 1}"}
        if etag is not None:
            headers["If-Match"] = etag
            headers["If-Range"] = etag
        path = f"/v1/snapshot/coarse?{urlencode(code.query | {'text': 1})}"
        answer = self._ask("GET", path, headers=headers)
        name = answer.headers.get("etag", "")
        if not name or (etag is not None and name != etag):
            raise NetworkError("the snapshot has changed while it was read")
        whole = answer.headers.get("repr-digest")
        if answer.status != 206:
            return Part(answer.body[start:], len(answer.body), name, whole)
        first, size = _content_range(answer.headers.get("content-range", ""))
        if first != start or start + len(answer.body) > size or not answer.body:
            raise NetworkError("the snapshot's range is not the one that was asked for")
        return Part(answer.body, size, name, whole)

    def put_head(self, name: str, matrix: NDArray[np.float32], *, layer_norm: bool) -> None:
        """Register a head, so that the server can make its codes."""
        frame = encode_message({"layer_norm": layer_norm}, np.asarray(matrix, np.float32))
        self._ask("PUT", f"/v1/heads/{name}", frame)

    def rerank(
        self, ids: Sequence[str], query: NDArray[np.float32], *, whole_s: float
    ) -> dict[str, float]:
        """Cosines of a query and the best passages of documents, for those that the server has.

        Args:
            ids: At most 1,000 documents.
            query: float32[D].
            whole_s: How long it may take.
        """
        frame = encode_message({"ids": list(ids)}, np.asarray(query, np.float16)[None])
        answer = self._ask("POST", "/v1/rerank", frame, whole_s=whole_s).json()
        scores = answer.get("scores")
        if not isinstance(scores, list) or len(scores) != len(ids):
            raise NetworkError(f"{self.transport.server}: scores: expected {len(ids)} of them")
        pairs = zip(ids, scores, strict=True)
        return {name: float(score) for name, score in pairs if _is_number(score)}

    def new_token(self) -> tuple[str, int | None]:
        """Ask for a new token; the old one ends when the new one is first used."""
        answer = self._ask("POST", "/v1/token", b"", repeatable=False).json()
        token, expires = answer.get("token"), answer.get("expires_ms")
        if not isinstance(token, str) or not token:
            raise NetworkError(f"{self.transport.server}: token: expected text")
        return token, expires if isinstance(expires, int) else None

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _timed(
        self, method: str, path: str, body: bytes, *, whole_s: float | None
    ) -> tuple[dict[str, Any], int]:
        started = now_ms()
        answer = self._ask(method, path, body, whole_s=whole_s).json()
        return answer, _offset(answer.get("now_ms"), started)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        whole_s: float | None = None,
        repeatable: bool = True,
    ) -> Answer:
        whole = {
            "Authorization": f"Bearer {self.token}",
            "Edge-MRL-Space": self._space_id,
            **(headers or {}),
        }
        if body:
            whole["Content-Type"] = CONTENT_TYPE
        return self.transport.request(
            method, path, body=body, headers=whole, repeatable=repeatable, whole_s=whole_s
        )


def enroll(transport: Transport, code: str, name: str) -> Grant:
    """Become a device of a tenant.

    Args:
        transport: The server.
        code: The one-time code that its administrator gave.
        name: What the device is called there, for people.

    Raises:
        ServerError: The code is wrong, used or expired.
    """
    import json

    body = json.dumps({"code": code, "name": name}, ensure_ascii=False).encode("utf-8")
    headers = {"Content-Type": "application/json"}
    started = now_ms()
    answer = transport.request(
        "POST", "/v1/enroll", body=body, headers=headers, repeatable=False
    ).json()
    texts = [answer.get(key) for key in ("tenant", "device", "token")]
    if not all(isinstance(text, str) and text for text in texts):
        raise NetworkError(f"{transport.server}: expected tenant, device and token")
    tenant, device, token = map(str, texts)
    expires = answer.get("expires_ms")
    return Grant(
        tenant,
        device,
        token,
        expires if isinstance(expires, int) else None,
        _offset(answer.get("now_ms"), started),
    )


def _frame(answer: Answer) -> Message:
    try:
        return decode_message(answer.body)
    except WireError as error:
        raise NetworkError(f"the server's answer is no frame: {error}") from error


def _items(message: Message) -> list[Item]:
    try:
        return decode_items(message, most=2 * PAGE_ITEMS)
    except WireError as error:
        raise NetworkError(f"the server's answer: {error}") from error


def _result(row: object) -> tuple[str, int]:
    if not isinstance(row, dict) or row.get("status") not in STATUSES:
        raise NetworkError(f"a result {row!r:.80}: expected a status that we know")
    status = str(row["status"])
    if "v" not in row:
        return status, 0
    try:
        return status, parse_stamp(row["v"])
    except WireError as error:
        raise NetworkError(f"a result: {error}") from error


def _refused(answer: Mapping[str, Any]) -> list[str] | None:
    names = answer.get("refused")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NetworkError("refused: expected a list of ids")
    return names


def _offset(clock: object, started: int) -> int:
    """A server's clock less ours: it looked at it between the question and the answer."""
    if not isinstance(clock, int) or isinstance(clock, bool) or clock < 0:
        raise NetworkError("now_ms: expected the server's clock")
    return clock - (started + now_ms()) // 2


def _content_range(text: str) -> tuple[int, int]:
    kind, _, rest = text.partition(" ")
    place, _, size = rest.partition("/")
    first, _, _ = place.partition("-")
    if kind != "bytes" or not (first.isdecimal() and size.isdecimal()):
        raise NetworkError(f"Content-Range {text!r:.60}: expected bytes FIRST-LAST/SIZE")
    return int(first), int(size)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
