"""Documents in order: the cosines of full vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl_server.errors import Refusal
from edge_mrl_server.storage.accounts import require_tenant
from edge_mrl_server.storage.database import Database
from edge_mrl_server.storage.pushes import wrong_space
from edge_mrl_server.storage.records import Tenant

__all__ = ["rerank", "search"]


def rerank(
    database: Database, tenant_name: str, space_id: str, ids: Sequence[str], query: NDArray[Any]
) -> list[float | None]:
    """The cosine of each document's best passage; None where there is none.

    Args:
        database: Where.
        tenant_name: Whose.
        space_id: The space of the query.
        ids: Names of documents.
        query: float[full_dim], unit length.
    """
    with database.read() as session:
        tenant = require_tenant(session, tenant_name)
        _check_query(tenant, space_id, query)
        names = list(dict.fromkeys(ids))
        found = session.scores(tenant_name, names, query.astype(np.float32))
    return [round(found[name], 6) if name in found else None for name in ids]


def search(
    database: Database, tenant_name: str, space_id: str, query: NDArray[Any], k: int, *, text: bool
) -> list[dict[str, Any]]:
    """The nearest documents, best first: ``id``, ``score``, and ``text`` and ``meta`` if asked for."""
    with database.read() as session:
        tenant = require_tenant(session, tenant_name)
        _check_query(tenant, space_id, query)
        if not tenant.passages:
            return []
        found = session.search(tenant, query.astype(np.float32), k)
        hits = [{"id": name, "score": round(score, 6)} for name, score in found]
        if text and hits:
            sql = (
                f"SELECT id, text, metadata FROM documents WHERE tenant = ? AND id {session.among}"  # noqa: S608
            )
            rows = session.rows(sql, tenant_name, session.pack([name for name, _ in found]))
            texts = {row[0]: _content(row[1], row[2]) for row in rows}
            hits = [hit | texts.get(str(hit["id"]), {}) for hit in hits]
    return hits


def _check_query(tenant: Tenant, space_id: str, query: NDArray[Any]) -> None:
    if tenant.space_id is not None and tenant.space_id != space_id:
        raise wrong_space(tenant.space_id, space_id)
    if tenant.full_dim not in (None, len(query)):
        raise Refusal(
            400, "malformed", f"a query of {len(query)} dimensions, expected {tenant.full_dim}"
        )


def _content(text: bytes | None, metadata: bytes | None) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if text is not None:
        content["text"] = bytes(text).decode()
    if metadata is not None:
        content["meta"] = json.loads(bytes(metadata))
    return content
