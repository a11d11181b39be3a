"""Pushing to a collection of your own Qdrant server.

The store's queue is sent through Qdrant's REST interface. Nothing is received: Qdrant has no feed of
changes and keeps no deletions, so several devices do not converge (see docs/sync.md).
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
from edge_mrl.store import Enrollment, Key, Store, find_bundle, replica
from edge_mrl.sync.targets.target import PushBatch, PushResult
from edge_mrl.sync.transport import Transport
from edge_mrl.wire import COUNTER_BITS, Item

__all__ = ["QdrantTarget", "open_target", "point_id"]

#: The UUID namespace of points: a point's id follows from tenant, document and position.
NAMESPACE = uuid.UUID("6f0d7a52-6a0e-5f0c-9d0b-2c6a4d1f7e11")
#: Documents in one request: the request's filter has a clause for each.
BATCH_DOCUMENTS = 64
_COUNTER = (1 << COUNTER_BITS) - 1


class QdrantTarget:
    """A Qdrant collection as a ``PushTarget``.

    A point is a passage. Its payload has ``tenant``, ``document``, ``position``, the version
    (``version_ms``, ``version_n``) and ``space``, and ``text`` and ``metadata`` if they are sent.

    Args:
        transport: A plain connection to the server, which is closed with this.
        collection: The collection; it is created if it does not exist.
        space_id: The embedding space of the vectors.
        dim: Dimensions of the vectors.
        tenant: Keeps equal document ids of several stores apart.
        api_key: Qdrant's API key; None if it needs none.
    """

    numbered = False

    def __init__(
        self,
        transport: Transport,
        collection: str,
        *,
        space_id: str,
        dim: int,
        tenant: str,
        api_key: str | None = None,
    ) -> None:
        self._transport = transport
        self._path = f"/collections/{quote(collection, safe='')}"
        self._collection = collection
        self.space_id = space_id
        self._dim = dim
        self._tenant = tenant
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["api-key"] = api_key
        self._ready = False

    @property
    def address(self) -> str:
        """Server and collection as one text, as a store remembers them."""
        return f"qdrant+{self._transport.server}#{self._collection}"

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received so far."""
        return self._transport.bytes_sent, self._transport.bytes_received

    def push(self, batch: PushBatch) -> PushResult:
        """Write documents; older versions are overwritten, newer ones stay.

        Raises:
            UsageError: The collection holds vectors of another space or of other dimensions.
            ServerError: The server refused the request.
            NetworkError: It is unknown whether anything was stored: send the batch again.
        """
        self._prepare()
        items = batch.items
        for first in range(0, len(items), BATCH_DOCUMENTS):
            self._push(items[first : first + BATCH_DOCUMENTS])
        return PushResult([("applied", 0)] * len(items))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _push(self, items: Sequence[Item]) -> None:
        points = [point for item in items for point in self._points(item)]
        if points:
            older = {"should": [self._older(item) for item in items if len(item.vectors)]}
            # Needs Qdrant 1.16; earlier releases ignore the condition, and the last write wins.
            self._ask("PUT", "/points?wait=true", {"points": points, "update_filter": older})
        # Passages that only an older version has: those beyond this version's, or all of them.
        rest = [self._older(item, beyond=len(item.vectors)) for item in items]
        self._ask("POST", "/points/delete?wait=true", {"filter": {"should": rest}})

    def _points(self, item: Item) -> list[dict[str, Any]]:
        payload: dict[str, Any] = {
            "tenant": self._tenant,
            "document": item.id,
            "version_ms": item.stamp >> COUNTER_BITS,
            "version_n": item.stamp & _COUNTER,
            "space": self.space_id,
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
        """A filter for points of a document's older versions, from a position on.

        Qdrant compares numbers as doubles, which cannot hold a stamp: it is stored as two numbers.
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
        """Create the collection, or check that it holds vectors of this kind."""
        if self._ready:
            return
        try:
            facts = self._ask("GET", "")
        except ServerError as error:
            if error.status != 404:
                raise
            size = {"vectors": {"size": self._dim, "distance": "Cosine"}}
            self._ask("PUT", "", size)
            for name in ("document", "tenant", "space"):
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
                f"{self._dim}: choose another --collection"
            )
        # One point of another space, or of none, anywhere in the collection.
        other = {"must_not": [{"key": "space", "match": {"value": self.space_id}}]}
        some = {"limit": 1, "with_payload": ["space"], "with_vector": False, "filter": other}
        points = self._ask("POST", "/points/scroll", some).get("points", [])
        if points:
            space = points[0].get("payload", {}).get("space")
            raise UsageError(
                f"collection {self._collection} holds vectors of space {space}, not "
                f"{self.space_id}: choose another --collection"
            )

    def _ask(self, method: str, path: str, value: Any = None) -> dict[str, Any]:
        body = None if value is None else json.dumps(value, ensure_ascii=False).encode()
        response = self._transport.request(
            method, self._path + path, body=body, headers=self._headers
        )
        result = response.json().get("result")
        if isinstance(result, bool):
            return {}
        if not isinstance(result, dict):
            raise NetworkError(f"{self._transport.server}: the response is not from Qdrant")
        return result


def point_id(tenant: str, document: str, position: int) -> str:
    """The id of a passage's point: always the same for the same passage (UUIDv5)."""
    return str(uuid.uuid5(NAMESPACE, json.dumps([tenant, document, position])))


def open_target(
    path: str | os.PathLike[str],
    url: str,
    collection: str,
    *,
    ca: str | None = None,
    key: Key | None = None,
) -> QdrantTarget:
    """Open the collection that a store is pushed to.

    The first time, the store is bound to the collection and all its documents are queued. The API key is
    read from the environment variable QDRANT_API_KEY.

    Args:
        path: The store's file.
        url: The address of the Qdrant server.
        collection: The collection.
        ca: A file of certificates to trust instead of the system's.
        key: Gives the key of an encrypted store.

    Raises:
        UsageError: The store is synced with another server or collection.
    """
    with Store.open(path, key=key) as store:
        full_dim = read_manifest(find_bundle(store)).full_dim
        target = QdrantTarget(
            Transport(url, ca=ca, plain=True),
            collection,
            space_id=store.binding.space_id,
            dim=full_dim or 1,
            tenant=collection,
            api_key=os.environ.get("QDRANT_API_KEY"),
        )
        found = replica.enrollment_of(store)
        if found is None:
            wanted = Enrollment(target.address, collection, secrets.token_hex(8))
            replica.enroll(store, wanted, full_dim=full_dim)
        elif found.server != target.address:
            raise UsageError(
                f"{Path(path)} is already synced with {found.server}, and a store has one queue only: "
                "make another store for this collection"
            )
    return target
