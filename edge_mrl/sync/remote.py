"""The requests of FORMAT.md, "Wire", as methods; every response is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import numpy as np

from edge_mrl.errors import NetworkError, WireError
from edge_mrl.sync.answers.restamps import read_restamp
from edge_mrl.sync.targets.target import PushBatch, PushResult
from edge_mrl.sync.transport import Response, Timeouts, Transport
from edge_mrl.wire import (
    CONTENT_TYPE,
    STATUSES,
    Item,
    UnreadableItem,
    decode_message,
    decode_readable_items,
    encode_message,
    now_ms,
    parse_stamp,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.bundle import Manifest
    from edge_mrl.store import replica
    from edge_mrl.sync.credentials import Credentials

__all__ = [
    "ChangePage",
    "CodeKey",
    "PageForm",
    "Remote",
    "UnreadablePageError",
    "request_enrollment",
]

#: Documents in a page of a pull.
PAGE_ITEMS = 512
#: Bytes of a snapshot in one request: cheap to repeat, and large beside the time of a round trip.
SNAPSHOT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class CodeKey:
    """Which codes a server makes for a device.

    Attributes:
        head: The id of the projection head.
        dim: Dimensions of a code.
        scale: The scale of int8 values.
    """

    head: str
    dim: int
    scale: float

    @classmethod
    def of(cls, manifest: Manifest) -> CodeKey:
        """The key of a bundle's codes."""
        return cls(manifest.head.id, manifest.dim, manifest.code.scale)

    @property
    def query(self) -> dict[str, Any]:
        """The key as parameters of a request."""
        return {"head": self.head, "dim": self.dim, "scale": repr(float(self.scale))}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a server gives a new device.

    Attributes:
        tenant: The tenant whose documents the device syncs.
        device: The device's id.
        token: The secret that the device sends with each request.
        expires_ms: When the token expires, in milliseconds since 1970; None if it does not.
        offset_ms: The server's clock minus this machine's.
    """

    tenant: str
    device: str
    token: str
    expires_ms: int | None
    offset_ms: int


@dataclass(frozen=True, slots=True)
class PageForm:
    """What a page of changes contains.

    Attributes:
        vectors: "coarse", "full" or "none".
        code: Which codes the server makes, if ``vectors`` is "coarse".
        text: Whether texts and metadata come too.
        limit: Documents at most.
    """

    vectors: str
    code: CodeKey | None = None
    text: bool = True
    limit: int = PAGE_ITEMS

    @property
    def query(self) -> dict[str, Any]:
        """The form as parameters of a request."""
        query: dict[str, Any] = {"limit": self.limit, "vectors": self.vectors}
        if self.text:
            query["text"] = 1
        if self.code is not None and self.vectors == "coarse":
            query |= self.code.query
        return query


@dataclass(frozen=True, slots=True, eq=False)
class ChangePage:
    """Some changes of a tenant's documents.

    Attributes:
        items: The documents, oldest change first.
        unreadable: Documents among them that cannot be read, by version and reason.
        cursor: The last change on this page.
        more: Whether more changes follow.
        fence: The last change among the deletions that the server has forgotten; 0 if it has all.
        epoch: The epoch in which the server counts its changes; a restored server begins a new one.
        kept: The last push of this device that the server had when the epoch began.
        offset_ms: The server's clock minus this machine's.
        restamp: How stamps were brought back that were ahead of the server's clock; None if none were.
    """

    items: Sequence[Item]
    cursor: int
    more: bool
    fence: int
    epoch: str
    kept: int
    offset_ms: int
    unreadable: Sequence[UnreadableItem] = ()
    restamp: replica.Restamp | None = None


class UnreadablePageError(NetworkError):
    """A page that is what the server sent, and still cannot be read."""


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """A range of a snapshot.

    Attributes:
        data: The bytes of the range.
        size_bytes: Bytes of the whole snapshot.
        etag: The snapshot's ETag.
        digest: The digest of the whole snapshot, as in Repr-Digest; None if the server sent none.
    """

    data: bytes
    size_bytes: int
    etag: str
    digest: str | None


class Remote:
    """A server, as one device uses it: a ``PushTarget`` to pull from, too. For one thread at a time.

    Args:
        credentials: The server's address, and the device's token.
        space_id: The embedding space of the store's full vectors.
        timeouts: How long to wait.
    """

    numbered = True

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

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of bodies sent and received so far."""
        return self.transport.bytes_sent, self.transport.bytes_received

    def push(self, batch: PushBatch) -> PushResult:
        """Send documents.

        Raises:
            ServerError: The server refused the push; nothing was stored.
            NetworkError: It is unknown whether anything was stored: send the batch again.
        """
        started = now_ms()
        answer = self._ask("POST", "/v1/push", batch.frame).json()
        offset_ms = _offset(answer.get("now_ms"), started)
        rows, count = answer.get("results"), len(batch.items)
        if not isinstance(rows, list) or len(rows) != count:
            raise NetworkError(f"{self.transport.server}: results: expected a list of {count}")
        return PushResult([_result(row) for row in rows], offset_ms, _refused(answer))

    def pull(
        self,
        since: int,
        *,
        form: PageForm,
        fence: int | None = None,
        epoch: str | None = None,
        push: int = 0,
    ) -> ChangePage:
        """Ask for the changes after ``since``, with the text if the server has it.

        Args:
            since: A cursor; 0 for everything.
            form: What of them, and how many.
            fence: The fence on the first page, when everything is pulled.
            epoch: The epoch of ``since``; None if any epoch will do.
            push: The last push that is known to have arrived or not.

        Raises:
            ServerError: "fenced": the server has forgotten deletions after ``since``. "restored": the
                server was restored from an older copy. "head_unknown": it cannot make these codes yet.
            UnreadablePageError: The response is the server's, and its list of documents cannot be read.
            NetworkError: No valid response came.
        """
        query: dict[str, Any] = {"since": since, **form.query}
        if fence is not None:
            query["fence"] = fence
        if epoch is not None:
            query |= {"epoch": epoch, "push": push}
        started = now_ms()
        response = self._ask("GET", f"/v1/pull?{urlencode(query)}")
        try:
            message = decode_message(response.body)
            items, unreadable = decode_readable_items(message, most=2 * PAGE_ITEMS)
        except WireError as error:
            raise UnreadablePageError(
                f"{self.transport.server}: a page of changes: {error}"
            ) from error
        page = self._page(message.header, since, _offset(message.header.get("now_ms"), started))
        return self._advancing(replace(page, items=items, unreadable=unreadable), since)

    def _page(self, header: Mapping[str, Any], since: int, offset_ms: int) -> ChangePage:
        """A page without its documents."""
        server = self.transport.server
        cursor, more = header.get("cursor"), header.get("more")
        if header.get("since") != since:
            # Without TLS, nothing else would show that a bit of the request's first line was changed.
            raise NetworkError(f"{server}: the page does not begin after change {since}")
        if not isinstance(cursor, int) or cursor < since or not isinstance(more, bool):
            raise NetworkError(f"{server}: the page has no valid cursor")
        stood, named, kept = header.get("fence", 0), header.get("epoch", ""), header.get("kept", 0)
        if not (isinstance(stood, int) and isinstance(named, str) and isinstance(kept, int)):
            raise NetworkError(f"{server}: expected fence and kept as numbers, epoch as text")
        restamp = read_restamp(header.get("restamped"))
        return ChangePage((), cursor, more, stood, named, kept, offset_ms, restamp=restamp)

    def _advancing(self, page: ChangePage, since: int) -> ChangePage:
        some = bool(page.items or page.unreadable)
        if (page.more and not some) or (some and page.cursor <= since):
            raise NetworkError(f"{self.transport.server}: the page's cursor does not advance")
        return page

    def snapshot(self, code: CodeKey, *, start: int, etag: str | None) -> SnapshotPart:
        """Ask for a range of a snapshot, which has the codes of all documents that are not deleted.

        Args:
            code: Which codes the server makes.
            start: The first byte.
            etag: The ETag of the snapshot that earlier ranges were of; None for a new snapshot.

        Raises:
            ServerError: The server makes no snapshot, or has another one now.
            NetworkError: No valid response came.
        """
        headers = {"Range": f"bytes={start}-{start + SNAPSHOT_BYTES - 1}"}
        if etag is not None:
            headers["If-Match"] = etag
            headers["If-Range"] = etag
        path = f"/v1/snapshot/coarse?{urlencode(code.query | {'text': 1})}"
        response = self._ask("GET", path, headers=headers)
        name, body = response.headers.get("etag", ""), response.body
        if not name or (etag is not None and name != etag):
            raise NetworkError("the snapshot changed while it was read")
        digest = response.headers.get("repr-digest")
        if response.status != 206:
            return SnapshotPart(body[start:], len(body), name, digest)
        first, size = _content_range(response.headers.get("content-range", ""))
        if first != start or start + len(body) > size or not body:
            raise NetworkError("the server sent another range of the snapshot than requested")
        return SnapshotPart(body, size, name, digest)

    def put_head(self, name: str, matrix: NDArray[np.float32], *, layer_norm: bool) -> None:
        """Register a projection head, float32[dim, full_dim], so that the server can make its codes."""
        frame = encode_message({"layer_norm": layer_norm}, np.asarray(matrix, np.float32))
        self._ask("PUT", f"/v1/heads/{name}", frame)

    def rerank(
        self, ids: Sequence[str], query: NDArray[np.float32], *, total_s: float
    ) -> dict[str, float]:
        """Ask for the cosine of a query and the best passage of each document.

        Args:
            ids: At most 1,000 documents.
            query: The query's full vector, float32[full_dim].
            total_s: Seconds for request and response.

        Returns:
            Cosines by id, in [-1, 1], for the documents that the server has.
        """
        frame = encode_message({"ids": list(ids)}, np.asarray(query, np.float16)[None])
        answer = self._ask("POST", "/v1/rerank", frame, total_s=total_s).json()
        scores = answer.get("scores")
        if not isinstance(scores, list) or len(scores) != len(ids):
            raise NetworkError(f"{self.transport.server}: scores: expected a list of {len(ids)}")
        pairs = zip(ids, scores, strict=True)
        return {name: float(score) for name, score in pairs if _is_number(score)}

    def new_token(self) -> tuple[str, int | None]:
        """Ask for a new token, and when it expires. The old one is valid until the new one is used."""
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

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        total_s: float | None = None,
        repeatable: bool = True,
    ) -> Response:
        all_headers = {
            "Authorization": f"Bearer {self.token}",
            "Edge-MRL-Space": self._space_id,
            **(headers or {}),
        }
        if body:
            all_headers["Content-Type"] = CONTENT_TYPE
        return self.transport.request(
            method, path, body=body, headers=all_headers, repeatable=repeatable, total_s=total_s
        )


def request_enrollment(transport: Transport, invitation: str, name: str) -> Grant:
    """Ask a server to enroll a device with a tenant.

    Args:
        transport: The connection to the server.
        invitation: The one-time secret from the server's administrator.
        name: A name of the device for people.

    Raises:
        ServerError: The invitation is wrong, used or expired.
    """
    import json

    body = json.dumps({"code": invitation, "name": name}, ensure_ascii=False).encode("utf-8")
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


def _result(row: object) -> tuple[str, int, str]:
    if not isinstance(row, dict) or row.get("status") not in STATUSES:
        raise NetworkError(f"a push result has an unknown status: {row!r:.80}")
    status, said = str(row["status"]), row.get("reason", "")
    message = said if isinstance(said, str) else ""
    if "v" not in row:
        return status, 0, message
    try:
        return status, parse_stamp(row["v"]), message
    except WireError as error:
        raise NetworkError(f"a push result: {error}") from error


def _refused(answer: Mapping[str, Any]) -> list[str] | None:
    names = answer.get("refused")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NetworkError("refused: expected a list of ids")
    return names


def _offset(clock: object, started: int) -> int:
    """The server's clock minus ours: it was read between the request and the response."""
    if not isinstance(clock, int) or isinstance(clock, bool) or clock < 0:
        raise NetworkError("now_ms: expected the server's clock in milliseconds")
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
