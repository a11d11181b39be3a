"""Documents ranked by the cosines of their full vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl_server.errors import WrongDimensionsError
from edge_mrl_server.storage.accounts import present_tenant
from edge_mrl_server.storage.database import Database, Transaction
from edge_mrl_server.storage.records import Tenant
from edge_mrl_server.storage.spaces import require_space

__all__ = ["rerank", "search"]

#: Bytes of texts and metadata in the answer to one search.
MAX_TEXT_BYTES = 4 << 20


def rerank(
    database: Database, tenant_name: str, space_id: str, ids: Sequence[str], query: NDArray[Any]
) -> list[float | None]:
    """The cosine of each document's best passage; None for documents without vectors.

    Args:
        database: Where.
        tenant_name: Whose.
        space_id: The embedding space of the query.
        ids: Ids of documents.
        query: float[full_dim], unit length.

    Raises:
        SpaceMismatchError: The tenant's vectors are of another space.
        WrongDimensionsError: The tenant's vectors have other dimensions.
    """
    with database.read() as transaction:
        tenant = present_tenant(transaction, tenant_name)
        _check_query(tenant, space_id, query)
        names = list(dict.fromkeys(ids))
        found = transaction.scores(tenant_name, names, query.astype(np.float32))
    return [round(found[name], 6) if name in found else None for name in ids]


def search(
    database: Database, tenant_name: str, space_id: str, query: NDArray[Any], k: int, *, text: bool
) -> list[dict[str, Any]]:
    """The nearest documents, best first: ``id``, ``score``, and ``text`` and ``meta`` if asked for.

    Args:
        database: Where.
        tenant_name: Whose.
        space_id: The embedding space of the query.
        query: float[full_dim], unit length.
        k: How many documents at most.
        text: Whether their text and metadata too.

    Raises:
        SpaceMismatchError: The tenant's vectors are of another space.
        WrongDimensionsError: The tenant's vectors have other dimensions.
    """
    with database.read() as transaction:
        tenant = present_tenant(transaction, tenant_name)
        _check_query(tenant, space_id, query)
        if not tenant.passages:
            return []
        found = transaction.search(tenant, query.astype(np.float32), k)
        hits = [{"id": name, "score": round(score, 6)} for name, score in found]
        if text and hits:
            names = _within_budget(transaction, tenant_name, [name for name, _ in found])
            rows = transaction.documents(tenant_name, "id, text, metadata", names)
            texts = {row["id"]: _content(row["text"], row["metadata"]) for row in rows}
            hits = [hit | texts.get(str(hit["id"]), {}) for hit in hits]
    return hits


def _within_budget(transaction: Transaction, tenant: str, names: Sequence[str]) -> list[str]:
    """The first documents whose texts and metadata are sent; the others come without."""
    columns = "id, coalesce(length(text), 0) + coalesce(length(metadata), 0) AS size"
    sizes = {row["id"]: row["size"] for row in transaction.documents(tenant, columns, names)}
    total = 0
    taken: list[str] = []
    for name in names:
        total += sizes.get(name, 0)
        if taken and total > MAX_TEXT_BYTES:
            break
        taken.append(name)
    return taken


def _check_query(tenant: Tenant, space_id: str, query: NDArray[Any]) -> None:
    require_space(tenant, space_id)
    if tenant.full_dim not in (None, len(query)):
        raise WrongDimensionsError(
            f"a query of {len(query)} dimensions, expected {tenant.full_dim}"
        )


def _content(text: bytes | None, metadata: bytes | None) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if text is not None:
        content["text"] = bytes(text).decode()
    if metadata is not None:
        content["meta"] = json.loads(bytes(metadata))
    return content
