from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_mrl.store import Store, check
from tests.android.probe import KotlinError, Probe

pytestmark = pytest.mark.test


def _documents(count: int, **changed: str) -> list[dict[str, Any]]:
    texts = {f"d{n}": f"text {'abcdefghij'[n % 10] * (n + 1)}" for n in range(count)} | changed
    return [
        {"id": name, "text": text, "metadata": {"n": n}}
        for n, (name, text) in enumerate(texts.items())
    ]


def test_documents_are_embedded_once_and_found(tmp_path: Path, kotlin: Probe) -> None:
    path = tmp_path / "s.db"
    kotlin("index.open", path=str(path))
    done = kotlin("index.put", documents=_documents(300))
    assert (done["added"], done["updated"], done["unchanged"], done["passages"]) == (300, 0, 0, 300)
    assert done["commits"] == [256, 300]
    again = kotlin(
        "index.put", documents=_documents(300, d7="another zzz", d9="quite bad", d11="bad")
    )
    assert (again["added"], again["updated"], again["unchanged"]) == (0, 1, 297)
    assert again["refused"] == ["d9", "d11"]
    assert again["embedded"] == done["embedded"] + 1
    assert kotlin("index.search", query="zzz")[0] == "d7"
    assert kotlin("index.select", filter={"n": {"$gte": 298}}) == ["d298", "d299"]
    with pytest.raises(KotlinError, match=r"RefusedDocuments.*1 of 1 .*'x' \(it has bad letters\)"):
        kotlin(
            "index.put", documents=[{"id": "x", "text": "bad", "metadata": {}}], **{"raise": True}
        )
    kotlin("index.close")
    with Store.open(path) as store:
        assert check(store).sound
        assert store.count().documents == 300


def test_what_comes_before_a_document_that_cannot_be_stored_is_stored(
    tmp_path: Path, kotlin: Probe
) -> None:
    kotlin("index.open", path=str(tmp_path / "s.db"))
    documents = _documents(5)
    documents[3]["metadata"] = {"a": 2**63}
    with pytest.raises(
        KotlinError, match=r"UsageException: document 'd3': metadata 'a' is an integer"
    ):
        kotlin("index.put", documents=documents)
    assert kotlin("index.select", filter={}) == ["d0", "d1", "d2"]
    kotlin("index.close")
