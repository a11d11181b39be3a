"""Embedding spaces: vectors of two spaces never meet, in whichever direction they travel.

A tenant is bound to a space by its first vectors, and never to another one afterwards. So one comparison
in the transaction that reads or writes the vectors is enough; a check before it would be a race.
"""

from __future__ import annotations

from edge_mrl_server.errors import SpaceMismatchError
from edge_mrl_server.storage.records import Tenant

__all__ = ["require_space"]


def require_space(tenant: Tenant, space_id: str | None) -> None:
    """Compare the space that a device says its store is of with the tenant's.

    Args:
        tenant: As the transaction sees it that reads or writes the vectors.
        space_id: The device's; None where it does not say (then it compares what the answer names).

    Raises:
        SpaceMismatchError: They differ.
    """
    if space_id is not None and tenant.space_id not in (None, space_id):
        raise SpaceMismatchError(str(tenant.space_id), space_id)
