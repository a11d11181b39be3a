"""What the specification's section "Wire" promises, on both databases, over real connections."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest

from edge_mrl.bundle.head import derive_codes, head_id
from edge_mrl.wire.clock import COUNTER_BITS, format_stamp, now_ms
from edge_mrl.wire.frames import (
    Item,
    Message,
    decode_items,
    decode_message,
    digest,
    encode_items,
    encode_message,
)
from edge_mrl_server.storage import accounts
from edge_mrl_server.storage.removal import purge
from tests.server.conftest import Place
from tests.support.serving import SPACE, Caller, Reply, enroll, item, units

PREFIX = head_id(None, layer_norm=False)
DAY_MS = 86_400_000


def pull(caller: Caller, since: int = 0, **query: Any) -> Reply:
    query = {"vectors": "full", **query}
    words = "".join(f"&{name}={value}" for name, value in query.items())
    return caller.call("GET", f"/v1/pull?since={since}{words}")


def pulled(caller: Caller, since: int = 0, **query: Any) -> tuple[list[Item], Message]:
    reply = pull(caller, since, **query)
    assert reply.status == 200, reply.body
    message = decode_message(reply.body)
    return decode_items(message), message


# --- push


def test_pushed_documents_come_back_as_they_were(place: Place) -> None:
    device = place.device()
    text = "zero \0 and é and 𝄞"
    sent = item(
        "a", n=2, seed=1, text=text, metadata={"k": [1, {"x": "𝄞"}]}, spans=[(0, 4), (2, 9)]
    )
    assert device.statuses(sent, item("b", n=0), item("c", deleted=True)) == ["applied"] * 3
    items, message = pulled(device, text=1)
    a, b, c = items
    assert (a.id, a.stamp, a.device, a.deleted) == ("a", sent.stamp, device.device, False)
    assert (a.text, a.metadata, list(a.spans)) == (text, sent.metadata, [(0, 4), (2, 9)])
    assert np.array_equal(a.vectors, sent.vectors)
    assert (len(b.vectors), b.text, c.deleted) == (0, None, True)
    assert (message.header["cursor"], message.header["more"]) == (3, False)
    assert pulled(device)[0][0].text is None


def test_metadata_beyond_the_limits_is_invalid_with_a_reason_and_the_rest_goes_in(
    place: Place,
) -> None:
    device = place.device()
    bad: list[dict[str, Any]] = [
        {"n": 10**309},
        {"K" * 100_000: {str(i): 0 for i in range(4_000)}},
        {"x": "\0"},
        {"a": [0] * 5_000},
    ]
    wrong = [item(f"bad{number}", metadata=metadata) for number, metadata in enumerate(bad)]
    results = device.push(*wrong, item("good", metadata={"n": 2**63 - 1})).json["results"]
    assert [result["status"] for result in results] == ["invalid"] * 4 + ["applied"]
    words = ("64 bits", "512 bytes", "NUL", "2,048 values")
    for result, said in zip(results, words, strict=False):
        assert said in result["reason"]
    assert [one.id for one in pulled(device, text=1)[0]] == ["good"]


def test_newer_version_wins_whatever_the_order(place: Place) -> None:
    device = place.device()
    old, new = item("a", seed=1), item("a", after=1, seed=2)
    assert device.statuses(new) == ["applied"]
    reply = device.push(old)
    assert reply.json["results"] == [{"status": "stale", "v": format_stamp(new.stamp)}]
    assert np.array_equal(pulled(device)[0][0].vectors, new.vectors)


def test_same_version_again_is_applied_without_a_change(place: Place) -> None:
    device = place.device()
    one = item("a")
    assert device.statuses(one) == ["applied"]
    assert device.statuses(one) == ["applied"]
    assert pulled(device)[1].header["cursor"] == 1


def test_equal_stamps_are_decided_by_the_device_by_code_point(place: Place) -> None:
    tenant = place.tenant()
    low, high = sorted((place.device(tenant), place.device(tenant)), key=lambda c: c.device)
    one = item("a", seed=1)
    assert high.statuses(one) == ["applied"]
    other = Item("a", one.stamp, units(1, seed=2))
    assert low.statuses(other) == ["stale"]
    (kept,) = pulled(low)[0]
    assert kept.device == high.device
    newer = item("b", seed=1)
    assert low.statuses(newer) == ["applied"]
    assert high.statuses(Item("b", newer.stamp, units(1, seed=2))) == ["applied"]


def test_deletion_is_a_version(place: Place) -> None:
    device = place.device()
    one, gone = item("a"), item("a", after=1, deleted=True)
    assert device.statuses(one, gone) == ["stale", "applied"]
    assert device.statuses(one) == ["stale"]
    assert pulled(device)[0][0].deleted
    assert device.statuses(item("a", after=2, seed=3)) == ["applied"]
    assert not pulled(device)[0][0].deleted
    assert device.query("/v1/rerank", {"ids": ["a"]}, units(1)[0]).json["missing"] == []


def test_versions_of_one_document_in_one_push_leave_the_newest(place: Place) -> None:
    device = place.device()
    versions = [item("a", after=n, seed=n) for n in (2, 5, 3)]
    reply = device.push(*versions, versions[1])
    statuses = [(r["status"], r.get("v")) for r in reply.json["results"]]
    top = format_stamp(versions[1].stamp)
    assert statuses == [("stale", top), ("applied", None), ("stale", top), ("applied", None)]
    items, message = pulled(device)
    assert (len(items), message.header["cursor"]) == (1, 1)
    assert np.array_equal(items[0].vectors, versions[1].vectors)


def test_items_are_judged_one_by_one(place: Place) -> None:
    device = place.device()
    bad = [
        Item("nan", item("x").stamp, np.full((1, 8), np.nan, np.float16)),
        Item("inf", item("x").stamp, np.full((1, 8), np.inf, np.float16)),
        Item("zero", item("x").stamp, np.zeros((1, 8), np.float16)),
        Item("long", item("x").stamp, units(1) * np.float16(1.02)),
        Item("big", item("x").stamp, np.full((1, 8), 65504, np.float16)),
    ]
    ahead = item("ahead", after=6 * 60_000)
    behind = item("behind", after=-400 * DAY_MS)
    near = item("near", after=4 * 60_000)
    expected = ["invalid"] * 5 + ["clock_ahead", "applied", "applied"]
    assert device.statuses(*bad, ahead, behind, near) == expected
    assert {i.id for i in pulled(device)[0]} == {"behind", "near"}


def test_dimensions_are_bound_by_the_first_vectors(place: Place) -> None:
    device = place.device()
    assert device.statuses(item("gone", deleted=True), dim=4) == ["applied"]
    assert device.statuses(item("a", dim=8)) == ["applied"]
    both = item("b", dim=4), item("c", deleted=True)
    assert device.statuses(*both, dim=4) == ["invalid", "applied"]


def test_another_space_is_refused_with_both_ids_and_nothing_stored(place: Place) -> None:
    device = place.device()
    device.statuses(item("a"))
    device.space = "6" * 64
    kinds = ("full", "none", f"coarse&head={head_id(None, layer_norm=False)}&dim=4")
    for reply in (
        device.push(item("b")),
        device.push(),
        device.query("/v1/rerank", {"ids": ["a"]}, units(1)[0]),
        device.query("/v1/search", {"k": 1}, units(1)[0]),
        *(pull(device, vectors=kind) for kind in kinds),
        device.call("GET", f"/v1/snapshot/coarse?{kinds[2].partition('&')[2]}"),
    ):
        assert (reply.status, reply.code) == (409, "space")
        assert reply.json["error"]["space"] == SPACE
        assert SPACE in reply.json["error"]["message"]
        assert "6" * 64 in reply.json["error"]["message"]
    malformed = device.call("GET", "/v1/pull?since=0", headers={"Edge-MRL-Space": "6"})
    assert (malformed.status, malformed.code) == (400, "malformed")
    # A client of before spaces were compared by the answer need not send it, and is told.
    reply = device.call("GET", "/v1/pull?since=0&vectors=full", headers={"Edge-MRL-Space": None})
    message = decode_message(reply.body)
    assert (message.header["space"], message.header["code"]) == (SPACE, None)
    assert [i.id for i in decode_items(message)] == ["a"]


def test_answers_name_the_space_and_the_code_of_what_they_bring(place: Place) -> None:
    device = place.device()
    head = head_id(None, layer_norm=False)
    code = f"head={head}&dim=4&scale=0.5"
    empty = device.call("GET", f"/v1/pull?since=0&{code}")
    assert "space" not in decode_message(empty.body).header
    assert device.push(item("a")).status == 200
    expected = {"head": head, "dim": 4, "scale": 0.5}
    header = decode_message(device.call("GET", f"/v1/pull?since=0&{code}").body).header
    assert (header["space"], header["code"]) == (SPACE, expected)
    snapshot = device.call("GET", f"/v1/snapshot/coarse?{code}").body
    header = decode_message(snapshot[4 : 4 + int.from_bytes(snapshot[:4], "little")]).header
    assert (header["space"], header["code"]) == (SPACE, expected)


def test_tenant_may_have_as_many_documents_as_its_limit(place: Place) -> None:
    device = place.device(tenant := place.tenant())
    with place.database.write() as transaction:
        accounts.set_limits(transaction, tenant, {"documents": 2})
    assert device.statuses(item("a"), item("b"), item("c")) == ["applied", "applied", "forbidden"]
    assert device.statuses(item("a", after=1, deleted=True), item("c")) == ["applied", "forbidden"]
    assert device.statuses(item("c")) == ["applied"]


# --- pull


def test_pull_goes_on_from_its_cursor_in_order(place: Place) -> None:
    device = place.device()
    device.statuses(*(item(f"d{n}", seed=n) for n in range(25)))
    device.statuses(item("d3", after=1, seed=99))
    seen, since, more = [], 0, True
    while more:
        items, message = pulled(device, since, limit=10)
        seen += [i.id for i in items]
        since, more = message.header["cursor"], message.header["more"]
    assert seen == [f"d{n}" for n in range(25) if n != 3] + ["d3"]
    assert since == 26
    assert pulled(device, since)[0] == []


def test_pull_of_large_documents_is_cut_at_about_a_megabyte(place: Place) -> None:
    device = place.device()
    for n in range(4):
        device.statuses(item(f"d{n}", n=400, dim=512), dim=512)
    items, message = pulled(device)
    assert (len(items), message.header["more"]) == (2, True)
    assert len(pulled(device, message.header["cursor"])[0]) == 2
    assert [len(i.vectors) for i in pulled(device, vectors="none")[0]] == [0] * 4


def test_coarse_codes_are_those_of_the_head(place: Place) -> None:
    device = place.device()
    matrix = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    sent = item("a", n=3, seed=5)
    device.statuses(sent)
    name = head_id(matrix, layer_norm=True)
    query = {"vectors": "coarse", "head": name, "dim": 3, "scale": 0.5}
    reply = pull(device, **query)
    assert (reply.status, reply.code) == (404, "head_unknown")
    body = encode_message({"layer_norm": True}, matrix)
    assert device.call("PUT", f"/v1/heads/{name}", body).status == 201
    assert device.call("PUT", f"/v1/heads/{name}", body).status == 200
    (got,), _ = pulled(device, **query)
    full = sent.vectors.astype(np.float32)
    expected = derive_codes(full, matrix, dim=3, layer_norm=True, scale=0.5)
    assert np.array_equal(got.vectors, expected)
    (got,), _ = pulled(device, vectors="coarse", head=PREFIX, dim=8)
    assert np.array_equal(got.vectors, derive_codes(full, None, dim=8))
    assert pull(device, vectors="coarse", head=PREFIX, dim=9).code == "malformed"
    other = place.device()
    assert pull(other, **query).code == "head_unknown"


@pytest.mark.parametrize("wrong", ["id", "nan", "layer_norm", "type"])
def test_head_that_is_not_what_it_says_is_refused(sqlite_place: Place, wrong: str) -> None:
    device = sqlite_place.device()
    matrix = np.eye(4, dtype=np.float32)
    name = "0" * 64 if wrong == "id" else head_id(matrix, layer_norm=False)
    if wrong == "nan":
        matrix[0, 0] = np.nan
        name = head_id(matrix, layer_norm=False)
    header = {"layer_norm": "no" if wrong == "layer_norm" else False}
    body = encode_message(header, matrix.astype(np.float16) if wrong == "type" else matrix)
    reply = device.call("PUT", f"/v1/heads/{name}", body)
    assert (reply.status, reply.code) == (400, "malformed")


# --- fence


def test_forgotten_deletions_fence_off_whoever_has_not_seen_them(place: Place) -> None:
    device = place.device(tenant := place.tenant())
    device.statuses(*(item(f"d{n}", after=-10_000) for n in range(30)))
    device.statuses(*(item(f"d{n}", after=-5_000, deleted=True) for n in range(20)))
    forgotten = purge(place.database, tenant, before_ms=now_ms() - 4_000)
    assert forgotten == (20, 50)
    reply = pull(device, 40)
    assert (reply.status, reply.code, reply.json["error"]["fence"]) == (409, "fenced", 50)
    # What may have been deleted does not come back by an old copy; what is newer than all of it does.
    for cursor, status in ((0, 409), (40, 409), (50, 200)):
        assert device.push(item("d1", after=-10_000), cursor=cursor).status == status
    assert device.push(item("d2", after=-10_000), cursor=0).code == "fenced"
    assert device.statuses(item("d2"), cursor=0) == ["applied"]
    # Of a document that the server knows, versions decide.
    assert device.statuses(item("d25", after=-60_000), cursor=0) == ["stale"]
    # From 0 page by page: the first answer's fence opens the way.
    _, message = pulled(device, 0, limit=5)
    assert message.header["fence"] == 50
    assert message.header["cursor"] < 50
    assert pull(device, message.header["cursor"], limit=5).code == "fenced"
    assert pulled(device, message.header["cursor"], limit=5, fence=50)[0]
    assert purge(place.database, tenant, before_ms=now_ms()) == (0, 50)


# --- numbered pushes, epochs


def numbered(caller: Caller, number: Any, *items: Item, **more: Any) -> Reply:
    header = {"cursor": 0, "push": number, **more}
    return caller.call("POST", "/v1/push", encode_items(header, items, like=units(0)))


def test_push_is_asked_for_by_its_number_and_comes_no_more(place: Place) -> None:
    device = place.device(tenant := place.tenant())
    ahead = item("ahead", after=6 * 60_000)
    first = item("a"), ahead
    assert "refused" not in numbered(device, 1, *first).json
    for _ in range(2):  # the answer may be lost again
        assert numbered(device, 1).json["refused"] == ["ahead"]
    # The next one has not come: from now on, it does not.
    for _ in range(2):
        assert numbered(device, 2).json["refused"] is None
    for number in (1, 2):
        late = numbered(device, number, item("late"))
        assert (late.status, late.code, late.json["error"]["push"]) == (409, "superseded", 2)
    assert numbered(device, 1).code == "superseded"
    # A push that comes twice is one; one without a number changes nothing of this.
    for _ in range(2):
        assert numbered(device, 3, item("b")).status == 200
    assert device.statuses(item("c")) == ["applied"]
    assert numbered(device, 3).json["refused"] == []
    assert {i.id for i in pulled(device)[0]} == {"a", "b", "c"}
    # Numbers are a device's own.
    other = place.device(tenant)
    assert numbered(other, 1, item("d")).status == 200


def test_device_that_has_seen_more_begins_an_epoch(place: Place) -> None:
    tenant = place.tenant()
    device, other = place.device(tenant), place.device(tenant)
    assert numbered(device, 1, item("a")).status == 200
    header = pulled(device)[1].header
    epoch = header["epoch"]
    assert (len(epoch), header["kept"]) == (16, 0)
    assert pulled(other, 1, epoch=epoch)[1].header["epoch"] == epoch
    assert numbered(other, 1, item("b"), epoch=epoch).status == 200
    # A pull alone begins none: only what has a digest is believed.
    for query in ({"push": 2}, {"since": 9}, {"epoch": "0" * 16}):
        reply = pull(device, **{"since": 0, "epoch": epoch, **query})
        assert (reply.status, reply.code) == (409, "restored")
    assert pulled(device, 9)[1].header["cursor"] == 2  # a device that knows of no epochs
    assert pulled(device, 0)[1].header["epoch"] == epoch
    # This device knows of a second push of its own that had an answer.
    reply = numbered(device, 3, item("c"), epoch=epoch)
    assert (reply.status, reply.code) == (409, "restored")
    header = pulled(device)[1].header
    assert header["epoch"] != epoch
    assert header["kept"] == 1
    assert header["cursor"] > 2 + 1_000_000  # none that was given out is given out again
    for reply in (pull(other, 2, epoch=epoch), numbered(other, 2, item("d"), epoch=epoch)):
        assert (reply.status, reply.code) == (409, "restored")
    assert {i.id for i in pulled(device)[0]} == {"a", "b"}
    # Asking what became of a push is always answered. It tells the server nothing that it knows already.
    assert numbered(device, 3, epoch=epoch).json["refused"] is None
    assert numbered(other, 9, epoch=epoch, cursor=7).json["refused"] is None
    assert numbered(device, 4, item("c"), epoch=header["epoch"]).status == 200
    assert pulled(other)[1].header["epoch"] == header["epoch"]
    # A cursor that was never given out tells it too.
    assert numbered(other, 10, item("d"), cursor=2**60).status == 200
    assert pulled(device)[1].header["epoch"] not in (epoch, header["epoch"])


@pytest.mark.parametrize("wrong", [{"push": -1}, {"push": "1"}, {"push": 2**63}, {"epoch": 1}])
def test_numbers_and_epochs_that_are_none_are_refused(
    sqlite_place: Place, wrong: dict[str, Any]
) -> None:
    device = sqlite_place.device()
    number = wrong.pop("push", 1)
    reply = numbered(device, number, item("a"), **wrong)
    assert (reply.status, reply.code) == (400, "malformed")


# --- rerank and search


def test_rerank_is_the_cosine_of_the_best_passage(place: Place) -> None:
    device = place.device()
    docs = [item(f"d{n}", n=1 + n % 3, seed=n) for n in range(40)]
    device.statuses(*docs)
    query = units(1, seed=77)[0].astype(np.float32)
    ids = [*(doc.id for doc in docs), "none", "d3", "' OR 1=1 --"]
    reply = device.query("/v1/rerank", {"ids": ids}, query)
    best = {d.id: float((d.vectors.astype(np.float32) @ query).max()) for d in docs}
    for name, score in zip(ids, reply.json["scores"], strict=True):
        assert score == (pytest.approx(best[name], abs=2e-3) if name in best else None)
    assert reply.json["missing"] == ["none", "' OR 1=1 --"]


def test_search_finds_what_comparing_all_finds(place: Place) -> None:
    device = place.device()
    docs = [
        item(
            f"d{n:03}",
            n=1 + n % 2,
            seed=n,
            dim=64,
            text=f"t{n}",
            spans=[(0, 1)] * (1 + n % 2),
            metadata={"n": n},
        )
        for n in range(300)
    ]
    device.statuses(*docs, dim=64)
    device.statuses(item("d007", after=1, deleted=True))
    query = docs[42].vectors[0]
    reply = device.query("/v1/search", {"k": 5, "text": True}, query)
    truth = {
        d.id: float((d.vectors.astype(np.float32) @ query.astype(np.float32)).max())
        for d in docs
        if d.id != "d007"
    }
    expected = sorted(truth, key=lambda name: -truth[name])[:5]
    hits = reply.json["hits"]
    assert [hit["id"] for hit in hits] == expected
    assert hits[0]["score"] == pytest.approx(1, abs=2e-3)
    assert (hits[0]["text"], hits[0]["meta"]) == ("t42", {"n": 42})
    assert "text" not in device.query("/v1/search", {"k": 1}, query).json["hits"][0]
    changed = item("d042", after=1, seed=1000, dim=64)
    device.statuses(changed, dim=64)
    assert device.query("/v1/search", {"k": 1}, query).json["hits"][0]["id"] == expected[1]


def test_ranking_of_a_tenant_without_documents_is_empty(place: Place) -> None:
    device = place.device()
    assert device.query("/v1/search", {"k": 3}, units(1)[0]).json == {"hits": []}
    reply = device.query("/v1/rerank", {"ids": ["a"]}, units(1)[0])
    assert reply.json == {"scores": [None], "missing": ["a"]}


# --- snapshot


def frames(body: bytes) -> tuple[dict[str, Any], list[Item]]:
    header: dict[str, Any] = {}
    items: list[Item] = []
    while body:
        (size,) = struct.unpack_from("<I", body)
        message = decode_message(body[4 : 4 + size])
        header = header or dict(message.header)
        items += decode_items(message)
        body = body[4 + size :]
    return header, items


def test_snapshot_holds_what_is_live_and_may_come_in_parts(place: Place) -> None:
    device = place.device()
    docs = [item(f"d{n}", seed=n, text="x", spans=[(0, 1)]) for n in range(600)]
    device.statuses(*docs[:300])
    device.statuses(*docs[300:])
    device.statuses(item("d5", after=1, deleted=True))
    path = f"/v1/snapshot/coarse?head={PREFIX}&dim=4"
    whole = device.call("GET", path)
    header, items = frames(whole.body)
    assert (header["cursor"], header["documents"], len(items)) == (601, 599, 599)
    by_id = {i.id: i for i in items}
    assert np.array_equal(
        by_id["d9"].vectors, derive_codes(docs[9].vectors.astype(np.float32), None, dim=4)
    )
    assert by_id["d9"].text is None
    tag = whole.headers["etag"]
    assert whole.headers["repr-digest"] == digest(whole.body)
    parts = b""
    while len(parts) < len(whole.body):
        asked = {"Range": f"bytes={len(parts)}-{len(parts) + 9_999}", "If-Range": tag}
        part = device.call("GET", path, None, asked)
        assert (part.status, part.headers["etag"]) == (206, tag)
        assert part.headers["content-range"].endswith(f"/{len(whole.body)}")
        parts += part.body
    assert parts == whole.body
    assert device.call("GET", path, None, {"Range": "bytes=-7"}).body == whole.body[-7:]
    assert device.call("GET", path, None, {"If-None-Match": tag}).status == 304
    assert device.call("GET", path, None, {"If-Match": '"x"'}).status == 412
    assert device.call("GET", path, None, {"Range": f"bytes={len(parts)}-"}).status == 416
    other = device.call("GET", path, None, {"Range": "bytes=5-9", "If-Range": '"x"'})
    assert (other.status, other.body) == (200, whole.body)
    assert frames(device.call("GET", path + "&text=1").body)[1][0].text == "x"
    # What changes while a device fetches the rest does not mix with it.
    device.statuses(item("new"))
    asked = {"Range": "bytes=0-", "If-Range": tag}
    assert device.call("GET", path, None, asked).body == whole.body


def test_snapshot_of_an_empty_tenant_is_one_empty_frame(place: Place) -> None:
    device = place.device()
    reply = device.call("GET", f"/v1/snapshot/coarse?head={PREFIX}&dim=4")
    header, items = frames(reply.body)
    assert (header["cursor"], header["documents"], items) == (0, 0, [])


# --- devices and tokens


def test_invitation_enrolls_one_device(place: Place) -> None:
    invitation = place.invitation(tenant := place.tenant())
    lost = enroll(place.server.url, invitation, name="küche \U0001f4f1")
    # The answer did not arrive: the same invitation gives the same device, and the lost token ends.
    first = enroll(place.server.url, invitation)
    assert first.device == lost.device
    assert pull(first).status == 200
    assert pull(lost).status == 401
    body = json.dumps({"code": invitation, "name": "x"}).encode()
    reply = first.call("POST", "/v1/enroll", body, kind="application/json")
    assert (reply.status, reply.code) == (403, "forbidden")
    assert pull(first).status == 200
    with place.database.read() as transaction:
        assert len(accounts.list_devices(transaction, tenant)) == 1
    first.close()
    lost.close()


def test_revoked_device_does_not_come_back_by_its_invitation(place: Place) -> None:
    invitation = place.invitation(tenant := place.tenant())
    device = enroll(place.server.url, invitation)
    with place.database.write() as transaction:
        assert accounts.revoke(transaction, tenant, device.device)
    body = json.dumps({"code": invitation, "name": "x"}).encode()
    assert device.call("POST", "/v1/enroll", body, kind="application/json").status == 403
    device.close()


def test_tenant_may_have_as_many_devices_as_its_limit(place: Place) -> None:
    place.device(tenant := place.tenant())
    with place.database.write() as transaction:
        accounts.set_limits(transaction, tenant, {"devices": 1})
    caller = Caller(place.server.url)
    body = json.dumps({"code": place.invitation(tenant), "name": "x"}).encode()
    reply = caller.call("POST", "/v1/enroll", body, kind="application/json")
    assert (reply.status, reply.code) == (403, "forbidden")
    assert "may have 1 devices" in reply.json["error"]["message"]
    caller.close()


def test_rotated_token_ends_the_old_one_when_it_is_first_used(place: Place) -> None:
    device = place.device()
    old = device.token
    lost = device.call("POST", "/v1/token").json["token"]
    reply = device.call("POST", "/v1/token")
    assert reply.json["expires_ms"] > now_ms() + 80 * DAY_MS
    assert pull(device).status == 200
    device.token = reply.json["token"]
    assert pull(device).status == 200
    for ended in (old, lost):
        device.token = ended
        assert (pull(device).status, pull(device).code) == (401, "token")
    device.token = reply.json["token"]
    assert pull(device).status == 200


def test_secrets_are_not_in_the_database(sqlite_place: Place) -> None:
    from pathlib import Path

    invitation = sqlite_place.invitation(sqlite_place.tenant())
    device = sqlite_place.device()
    assert device.token is not None
    content = b"".join(
        path.read_bytes() for path in Path(sqlite_place.url).parent.iterdir() if path.is_file()
    )
    assert device.device.encode() in content
    for secret in (invitation.partition("_")[2], device.token.split("_", 2)[2], device.token):
        assert secret.encode() not in content
    assert hashlib.sha256(device.token.encode()).digest() in content
    assert device.token not in sqlite_place.server.log()


def test_stamps_are_kept_to_the_last_bit(place: Place) -> None:
    device = place.device()
    stamp = (now_ms() << COUNTER_BITS) | 0xFFFF
    device.statuses(Item("a", stamp, units(1)))
    assert pulled(device)[0][0].stamp == stamp
