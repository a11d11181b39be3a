"""The requests of FORMAT.md, "Wire", as methods; every response is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import numpy as np

from edge_mrl.errors import NetworkError, ServerError, WireError
from edge_mrl.sync.answers.fields import (
    content_range,
    is_count,
    is_number,
    is_word,
    offset_of,
    refused_of,
    result_of,
    span_of,
)
from edge_mrl.sync.answers.restamps import read_restamp
from edge_mrl.sync.pulls.forms import PAGE_ITEMS, CodeKey, PageForm
from edge_mrl.sync.pulls.page import ChangePage, UnreadablePageError, read_number, read_sums
from edge_mrl.sync.targets.target import PushBatch, PushResult
from edge_mrl.sync.transport import Response, Timeouts, Transport
from edge_mrl.wire import (
    CONTENT_TYPE,
    decode_message,
    decode_readable_items,
    encode_message,
    now_ms,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.sync.credentials import Credentials
    from edge_mrl.sync.identity.marks import Marks

__all__ = ["Remote"]

#: Bytes of a snapshot in one request: cheap to repeat, and large beside the time of a round trip.
SNAPSHOT_BYTES = 4 << 20
#: A server asks for another mark once; more often only where two copies of a store sync at one time.
MARKS_IN_A_ROW = 3
JSON = "application/json"


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

    Attributes:
        token: The token that is sent.
        spare: Another one, tried where that is refused; None if there is none.
        space_id: As it was given.
        offset_ms: The server's clock less this machine's, as the last answer with documents had it; None
            if there was none.
        marks: Those of the store's copy, sent with each request; None to send none.
        names_space: Whether the server has named its tenant's space, which was this one then.
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
        self.spare = credentials.previous
        self.space_id = space_id
        self.offset_ms: int | None = None
        self.marks: Marks | None = None
        self.names_space = False

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of bodies sent and received so far."""
        return self.transport.bytes_sent, self.transport.bytes_received

    def forget_clock(self) -> None:
        """Forget ``offset_ms``: either clock may have been set since."""
        self.offset_ms = None

    def push(self, batch: PushBatch) -> PushResult:
        """Send documents.

        Raises:
            ServerError: The server refused the push; nothing was stored.
            NetworkError: It is unknown whether anything was stored: send the batch again.
        """
        started = now_ms()
        answer = self._ask("POST", "/v1/push", batch.frame).json()
        offset_ms = self.offset_ms = offset_of(answer.get("now_ms"), started)
        self._require_space(answer)
        rows, count = answer.get("results"), len(batch.items)
        if not isinstance(rows, list) or len(rows) != count:
            raise NetworkError(f"{self.transport.server}: results: expected a list of {count}")
        results = [result_of(row) for row in rows]
        return PushResult(results, offset_ms, refused_of(answer), span_of(answer))

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
        self.require_answer(message.header, form.code if form.vectors == "coarse" else None)
        self.offset_ms = offset_of(message.header.get("now_ms"), started)
        page = self._page(message.header, since, self.offset_ms)
        return self._advancing(replace(page, items=items, unreadable=unreadable), since)

    def _page(self, header: Mapping[str, Any], since: int, offset_ms: int) -> ChangePage:
        """A page without its documents."""
        server = self.transport.server
        cursor, more = header.get("cursor"), header.get("more")
        if header.get("since") != since:
            # Without TLS, nothing else would show that a bit of the request's first line was changed.
            raise NetworkError(f"{server}: the page does not begin after change {since}")
        if not is_count(cursor) or cursor < since or not isinstance(more, bool):
            raise NetworkError(f"{server}: the page has no valid cursor")
        stood, named, kept = header.get("fence", 0), header.get("epoch", ""), header.get("kept", 0)
        if not (is_count(stood) and is_count(kept) and (named == "" or is_word(named))):
            raise NetworkError(f"{server}: expected fence and kept as numbers, epoch as text")
        page = ChangePage((), cursor, more, stood, named, kept, offset_ms)
        return replace(
            page,
            restamp=read_restamp(header.get("restamped")),
            offers=read_number(header.get("offers")),
            sum=read_number(header.get("sum")),
            sums=read_sums(header.get("sums")),
        )

    def _advancing(self, page: ChangePage, since: int) -> ChangePage:
        if (page.more or page.items or page.unreadable) and page.cursor <= since:
            raise NetworkError(f"{self.transport.server}: the page's cursor does not advance")
        return page

    def snapshot(
        self, code: CodeKey, *, start: int, etag: str | None, most: int | None = None
    ) -> SnapshotPart:
        """Ask for a range of a snapshot, which has the codes of all documents that are not deleted.

        Args:
            code: Which codes the server makes.
            start: The first byte.
            etag: The ETag of the snapshot that earlier ranges were of; None for a new snapshot.
            most: Bytes of the range, if they are fewer than usual.

        Raises:
            ServerError: The server makes no snapshot, or has another one now.
            NetworkError: No valid response came.
        """
        length = SNAPSHOT_BYTES if most is None else min(most, SNAPSHOT_BYTES)
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
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
        first, size = content_range(response.headers.get("content-range", ""))
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
        return {name: float(score) for name, score in pairs if is_number(score)}

    def require_answer(self, header: Mapping[str, Any], code: CodeKey | None) -> None:
        """Compare what an answer says that its vectors are with what was asked for.

        Without TLS, nothing else would show that a bit of the request's first line was changed; and a
        server of another space must be noticed before anything is stored. A receipt is kept.

        Args:
            header: The answer's.
            code: The codes that were asked for; None if there are none.

        Raises:
            ServerError: "space": the tenant's vectors are of another space.
            NetworkError: They are other codes.
        """
        self._require_space(header)
        said = header.get("code")
        if code is not None and said is not None and not code.is_named(said):
            raise NetworkError(
                f"{self.transport.server}: the answer has other codes than were asked for"
            )

    def ask_space(self, full_dim: int) -> None:
        """Have a server compare spaces that does not do so when it is pulled from (of before that).

        It does so when it reranks. So it is asked to rerank nothing.

        Args:
            full_dim: Dimensions of full vectors.

        Raises:
            ServerError: "space": the tenant's vectors are of another space.
        """
        unit = np.zeros((1, full_dim), np.float16)
        unit[0, 0] = 1
        self._ask("POST", "/v1/rerank", encode_message({"ids": []}, unit))
        self.names_space = True

    def _require_space(self, answer: Mapping[str, Any]) -> None:
        space = answer.get("space")
        receipt = answer.get("receipt")
        if "space" in answer and space not in (None, self.space_id):
            raise ServerError(
                f"{self.transport.server} has vectors of embedding space {str(space)[:64]}, this store "
                f"of {self.space_id}: use a bundle of that space, or another tenant. Nothing was stored "
                "(space)",
                status=409,
                code="space",
                details={"space": space},
            )
        self.names_space = self.names_space or "space" in answer
        if self.marks is not None and is_word(receipt):
            self.marks.receipt = receipt

    def new_token(self, nonce: str | None = None) -> tuple[str, int | None]:
        """Ask for a new token, and when it expires. The old one is valid until the new one is used.

        Args:
            nonce: Drawn for this request, and kept: with it, the same request again gives the same token.
        """
        body = b"" if nonce is None else json.dumps({"nonce": nonce}).encode()
        answer = self._ask("POST", "/v1/token", body, repeatable=False, kind=JSON).json()
        token, expires = answer.get("token"), answer.get("expires_ms")
        if not is_word(token):
            raise NetworkError(f"{self.transport.server}: token: expected text")
        return token, expires if is_count(expires) else None

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
        kind: str = CONTENT_TYPE,
    ) -> Response:
        def ask() -> Response:
            all_headers = {
                "Authorization": f"Bearer {self.token}",
                "Edge-MRL-Space": self.space_id,
                **(headers or {}),
            }
            if self.marks is not None:
                all_headers["Edge-MRL-Copy"] = self.marks.header
            if body:
                all_headers["Content-Type"] = kind
            return self.transport.request(
                method, path, body=body, headers=all_headers, repeatable=repeatable, total_s=total_s
            )

        return self._as_itself(ask)

    def _as_itself(self, ask: Callable[[], Response]) -> Response:
        """Send a request; once more with the other token, or with another mark, where it takes that."""
        for _ in range(MARKS_IN_A_ROW):
            try:
                response = ask()
            except ServerError as error:
                if error.code == "token" and self.spare is not None:
                    return self._with_spare(ask, error)
                if error.code != "copy_unsure" or self.marks is None:
                    raise
                self.marks.step()
            else:
                if self.marks is not None:
                    self.marks.answered()
                return response
        return ask()

    def _with_spare(self, ask: Callable[[], Response], refused: ServerError) -> Response:
        """Send a request with the other token, which is the token from then on if it is accepted."""
        assert self.spare is not None
        self.token, self.spare = self.spare, self.token
        try:
            return ask()
        except ServerError as error:
            if error.code != "token":
                raise
            self.token, self.spare = self.spare, self.token
            raise refused from None
