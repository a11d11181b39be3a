"""Pushing to a collection of one's own Qdrant instead of a server of ours.

The store's queue is emptied into it through its REST interface. Nothing comes back: Qdrant has no feed of
changes and keeps no deletions, so that several devices do not converge (docs/sync.md says what is
promised).
"""

from __future__ import annotations

import json
import os
import secrets
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge_mrl.bundle import read_manifest
from edge_mrl.errors import NetworkError, ServerError, UsageError
from edge_mrl.store import Enrollment, Store, find_bundle, replica
from edge_mrl.sync.transport import Answer, Timeouts, Transport
from edge_mrl.wire import COUNTER_BITS, Item

__all__ = ["QdrantTarget", "open_target", "point_id"]

#: Names the points of all our collections: a point's id follows from tenant, document and position.
NAMESPACE = uuid.UUID("6f0d7a52-6a0e-5f0c-9d0b-2c6a4d1f7e11")
#: Documents in one request: each takes a clause of its condition.
BATCH_DOCUMENTS = 64
_COUNTER = (1 << COUNTER_BITS) - 1


class QdrantTarget:
    """A collection.

    A point is a passage; its payload has ``document``, ``position``, the version (``version_ms``,
    ``version_n``) and ``space``, with ``text`` and ``metadata`` where they are sent.

    Args:
        url: The server's address.
        collection: The collection; made if it is not there.
        space_id: The space of the vectors.
        dim: Their dimensions.
        tenant: What tells equal document ids of several stores apart.
        api_key: Qdrant's key; None if it has none.
        ca: A file of certificates to trust instead of the system's.
        insecure: Allow http:// to other machines.
        timeouts: How long to wait.

    Raises:
        UsageError: The address is none.
    """

    def __init__(  # noqa: PLR0913 - each is a fact about the collection
        self,
        url: str,
        collection: str,
        *,
        space_id: str,
        dim: int,
        tenant: str,
        api_key: str | None = None,
        ca: str | None = None,
        insecure: bool = False,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._transport = Transport(url, ca=ca, insecure=insecure, timeouts=timeouts, plain=True)
        self._path = f"/collections/{quote(collection, safe='')}"
        self._collection = collection
        self._space_id = space_id
        self._dim = dim
        self._tenant = tenant
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["api-key"] = api_key
        self._ready = False

    @property
    def address(self) -> str:
        """Server and collection in one, as a store remembers them."""
        return f"qdrant+{self._transport.server}#{self._collection}"

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received so far."""
        return self._transport.bytes_sent, self._transport.bytes_received

    def push(self, items: Sequence[Item]) -> Sequence[tuple[str, int]]:
        """Write documents; older versions of them are overwritten, newer ones left.

        Raises:
            ServerError: The server said no; 409 for a collection of another space.
            NetworkError: Nobody knows what was stored: send it again.
        """
        self._prepare()
        for first in range(0, len(items), BATCH_DOCUMENTS):
            self._push(items[first : first + BATCH_DOCUMENTS])
        return [("applied", 0)] * len(items)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _push(self, items: Sequence[Item]) -> None:
        points = [point for item in items for point in self._points(item)]
        if points:
            older = {"should": [self._older(item) for item in items if len(item.vectors)]}
            # Needs Qdrant 1.16; earlier ones ignore the condition, and the last to write wins.
            self._ask("PUT", "/points?wait=true", {"points": points, "update_filter": older})
        # What an earlier version had more passages of, or all of them.
        rest = [self._older(item, beyond=len(item.vectors)) for item in items]
        self._ask("POST", "/points/delete?wait=true", {"filter": {"should": rest}})

    def _points(self, item: Item) -> list[dict[str, Any]]:
        payload: dict[str, Any] = {
            "tenant": self._tenant,
            "document": item.id,
            "version_ms": item.stamp >> COUNTER_BITS,
            "version_n": item.stamp & _COUNTER,
            "space": self._space_id,
        }
        if item.metadata is not None:
            payload["metadata"] = dict(item.metadata)
        points = []
        for position, vector in enumerate(item.vectors):
            more: dict[str, Any] = {"position": position}
            if item.text is not None:
                start, end = item.spans[position]
                more |= {"text": item.text[start:end], "start": start, "end": end}
            name = point_id(self._tenant, item.id, position)
            points.append(
                {"id": name, "vector": vector.astype("<f4").tolist(), "payload": payload | more}
            )
        return points

    def _older(self, item: Item, *, beyond: int = 0) -> dict[str, Any]:
        """The condition for points of a document's older versions, from a position on.

        Numbers are compared as doubles, which do not hold a whole stamp: it comes in two.
        """
        time_ms, count = item.stamp >> COUNTER_BITS, item.stamp & _COUNTER
        earlier = {"key": "version_ms", "range": {"lt": time_ms}}
        same = {"key": "version_ms", "range": {"gte": time_ms, "lte": time_ms}}
        fewer = {"key": "version_n", "range": {"lt": count}}
        conditions: list[dict[str, Any]] = [
            {"key": "tenant", "match": {"value": self._tenant}},
            {"key": "document", "match": {"value": item.id}},
            {"should": [earlier, {"must": [same, fewer]}]},
        ]
        if beyond:
            conditions.append({"key": "position", "range": {"gte": beyond}})
        return {"must": conditions}

    def _prepare(self) -> None:
        """Make the collection, or see that it is one for these vectors."""
        if self._ready:
            return
        try:
            facts = self._ask("GET", "")
        except ServerError as error:
            if error.status != 404:
                raise
            size = {"vectors": {"size": self._dim, "distance": "Cosine"}}
            self._ask("PUT", "", size)
            for name in ("document", "tenant"):
                field = {"field_name": name, "field_schema": "keyword"}
                self._ask("PUT", "/index?wait=true", field)
        else:
            self._check(facts)
        self._ready = True

    def _check(self, facts: dict[str, Any]) -> None:
        try:
            there = facts["config"]["params"]["vectors"]["size"]
        except (KeyError, TypeError):
            there = None
        if there != self._dim:
            raise UsageError(
                f"collection {self._collection} has vectors of {there} dimensions, expected "
                f"{self._dim}: name another --collection"
            )
        some = {"limit": 1, "with_payload": ["space"], "with_vector": False}
        points = self._ask("POST", "/points/scroll", some).get("points", [])
        space = points[0].get("payload", {}).get("space") if points else self._space_id
        if space != self._space_id:
            raise UsageError(
                f"collection {self._collection} holds vectors of space {space}, not "
                f"{self._space_id}: name another --collection"
            )

    def _ask(self, method: str, path: str, value: Any = None) -> dict[str, Any]:
        body = None if value is None else json.dumps(value, ensure_ascii=False).encode()
        answer: Answer = self._transport.request(
            method, self._path + path, body=body, headers=self._headers
        )
        result = answer.json().get("result")
        if isinstance(result, bool):
            return {}
        if not isinstance(result, dict):
            raise NetworkError(f"{self._transport.server}: no answer of Qdrant's")
        return result


def point_id(tenant: str, document: str, position: int) -> str:
    """The id of a passage's point: the same for whoever writes it, whenever (UUIDv5)."""
    return str(uuid.uuid5(NAMESPACE, json.dumps([tenant, document, position])))


def open_target(
    path: str | os.PathLike[str], url: str, collection: str, *, ca: str | None = None
) -> QdrantTarget:
    """A store's collection; the store is bound to it, and everything queued, the first time.

    The key is read from the environment, QDRANT_API_KEY.

    Raises:
        UsageError: The store is synced with something else.
    """
    with Store.open(path) as store:
        full_dim = read_manifest(find_bundle(store)).full_dim
        target = QdrantTarget(
            url,
            collection,
            space_id=store.binding.space_id,
            dim=full_dim or 1,
            tenant=collection,
            api_key=os.environ.get("QDRANT_API_KEY"),
            ca=ca,
        )
        found = replica.enrollment_of(store)
        if found is None:
            wanted = Enrollment(target.address, collection, secrets.token_hex(8))
            replica.enroll(store, wanted, full_dim=full_dim)
        elif found.server != target.address:
            raise UsageError(
                f"{Path(path)} is synced with {found.server} already: one store has one queue; "
                "make another store for the collection"
            )
    return target
