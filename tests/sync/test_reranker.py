"""Asking a real server for scores, in time or not at all."""

from __future__ import annotations

import random
import socket
from dataclasses import replace

import pytest

import edge_mrl.rerank
from edge_mrl.documents import Document
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials
from tests.sync.conftest import NewDevice
from tests.sync.parts import enrollment_of
from tests.sync.test_sync import text


@pytest.mark.test
def test_server_orders_and_a_silent_one_does_not_hold_a_search(new_device: NewDevice) -> None:
    device = new_device("one")
    rng = random.Random(3)
    device.index.put([Document(str(n), text(rng)) for n in range(40)])
    device.client.sync_once()
    device.index.put([Document("fresh", "the cat and a dog")])  # the server lacks it
    local = device.index.search("the cat and a dog", k=5)
    assert local.ranked_by == "local"
    found = device.index.search("the cat and a dog", k=5, rerank=device.client, deadline_ms=20_000)
    assert (found.ranked_by, found.reason) == ("server", None)
    query = device.index.encoder.encode(["the cat and a dog"], kind="query").full
    assert query is not None
    by_id = {hit.id: hit.score for hit in found}
    texts = {name: document.text for name, document in device.index.get(by_id).items()}
    full = device.index.encoder.encode(list(texts.values()), kind="document").full
    assert full is not None
    exact = dict(zip(texts, (full @ query[0]).tolist(), strict=True))
    assert by_id == pytest.approx({name: exact[name] for name in by_id}, abs=2e-3)
    assert [hit.score for hit in found] == sorted(by_id.values(), reverse=True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        credentials = Credentials.read(device.index.path)
        assert credentials is not None
        where = f"http://127.0.0.1:{silent.getsockname()[1]}"
        replace(credentials, server=where).write(device.index.path)
        with SyncClient.open(device.index) as client:
            for word in ("did not answer within", "busy with an earlier"):
                answer = device.index.search("a dog", rerank=client, deadline_ms=50)
                assert word in str(answer.reason)
                assert list(answer) == list(device.index.search("a dog"))
    assert device.index.search("a dog", rerank="auto").ranked_by == "local"


def test_margin_that_is_kept_decides_whether_the_server_is_asked(new_device: NewDevice) -> None:
    device = new_device("one")
    rng = random.Random(3)
    device.index.put([Document(str(n), text(rng)) for n in range(40)])
    assert device.client.sync_once().done
    ordered = []
    for margin in (1e9, 0.0):
        device.client.set_margin(margin)
        answer = device.index.search("the cat and a dog", rerank="auto", deadline_ms=20_000)
        ordered.append((answer.ranked_by, answer.reason))
    assert ordered == [("local", "the local order is not in doubt"), ("server", None)]
    with pytest.warns(DeprecationWarning, match="set_margin"):
        found = edge_mrl.rerank.calibrate_margin(
            [[0.9, 0.1], [0.9, 0.89]], [1.0, 0.2], [1.0, 1.0], keep=0.9, store=device.index.store
        )
    assert enrollment_of(device.index.store).margin == found.margin > 0
