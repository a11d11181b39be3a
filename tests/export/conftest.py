"""What all tests of the exporter share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_mrl_export.codes import head

#: Of the passages that come with the exporter, so many are enough for a head in tests.
POOL = 80


@pytest.fixture(autouse=True, scope="session")
def short_pool() -> Iterator[None]:
    """Fit heads of exports without text on fewer passages: most tests are about something else."""
    passages = head.shipped_passages()[:POOL]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "shipped_passages", lambda: passages)
        yield
