"""Tenants see nothing of each other: every route and every parameter of the description.

A route, a parameter or a key of a frame that is added to the description and not to this file fails here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest

from edge_mrl.bundle import head_id
from edge_mrl.wire import CONTENT_TYPE, decode_message, encode_items, encode_message, format_stamp
from edge_mrl_server.http.openapi import DESCRIPTION
from tests.server.conftest import Place
from tests.support.serving import SPACE, Caller, Reply, item, units

pytestmark = pytest.mark.test

PREFIX = head_id(None, layer_norm=False)
MATRIX = units(8, 4, seed=7).astype(np.float32)
HEAD = head_id(MATRIX, layer_norm=False)
SECRETS = ("id-of-mine", "text-of-mine", "meta-of-mine")

#: A good value of each query parameter and header; what has none is not covered.
QUERY: Mapping[str, str] = {
    "since": "0",
    "limit": "9",
    "vectors": "coarse",
    "fence": "0",
    "epoch": "",
    "push": "0",
    "head": PREFIX,
    "dim": "4",
    "scale": "1",
    "stored": "2bit",
    "step": "4",
    "centre": "AAAAAA",
    "text": "1",
    "sums": "1",
    "groups": "0,255",
    "differs": "0",
}
#: Set by the client for each request, or below.
HEADERS = {
    "Edge-MRL-Protocol",
    "Edge-MRL-Sequence",
    "Content-Digest",
    "Edge-MRL-Space",
    "Range",
    "If-Range",
    "If-Match",
    "If-None-Match",
    "Edge-MRL-Copy",
}
#: A good value of each key of a frame.
FRAME: Mapping[str, Any] = {
    "items": None,
    "cursor": 0,
    "push": 0,
    "epoch": "",
    "receipt": "",
    "lost": None,
    "ids": ["id-of-mine"],
    "k": 9,
    "text": True,
    "layer_norm": False,
}
#: What each route is sent in its body.
BODIES: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], bytes]] = {
    ("/v1/push", "post"): lambda header: encode_items(
        header, [item("id-of-mine", seed=3), item("own", seed=4)], like=units(0)
    ),
    ("/v1/rerank", "post"): lambda header: encode_message(header, units(1, seed=1)),
    ("/v1/search", "post"): lambda header: encode_message(header, units(1, seed=1)),
    ("/v1/heads/{head}", "put"): lambda header: encode_message(header, MATRIX),
    ("/v1/enroll", "post"): lambda header: json.dumps(
        {"code": "x", "name": "y", **header}
    ).encode(),
    ("/v1/token", "post"): lambda header: json.dumps({"nonce": "ab" * 32, **header}).encode(),
}
OPERATIONS = [
    (path, method) for path, methods in DESCRIPTION["paths"].items() for method in methods
]


@dataclass
class World:
    """A tenant with documents, and all that somebody could know of it."""

    device: Caller
    tenant: str
    values: list[str]

    def state(self) -> bytes:
        """Its documents, heads and token as they are."""
        pulled = self.device.call("GET", "/v1/pull?since=0&vectors=full&text=1")
        assert pulled.status == 200
        message = decode_message(pulled.body)
        header = {k: v for k, v in message.header.items() if k not in ("now_ms", "kept")}
        code = f"/v1/pull?since=0&head={HEAD}&dim=4"
        return b"".join(
            (
                json.dumps(header, sort_keys=True).encode(),
                message.vectors.tobytes(),
                str(self.device.call("GET", code).status).encode(),
            )
        )


def world(place: Place) -> World:
    device = place.device(tenant := place.tenant())
    one = item(
        "id-of-mine", seed=1, text="text-of-mine", spans=[(0, 4)], metadata={"a": "meta-of-mine"}
    )
    device.statuses(one)
    device.statuses(item("gone", deleted=True))
    assert (
        device.call(
            "PUT", f"/v1/heads/{HEAD}", encode_message({"layer_norm": False}, MATRIX)
        ).status
        == 201
    )
    snapshot = device.call("GET", f"/v1/snapshot/coarse?head={PREFIX}&dim=4&text=1")
    header = decode_message(device.call("GET", "/v1/pull?since=0&vectors=none").body).header
    values = [
        *SECRETS,
        tenant,
        device.device,
        str(header["epoch"]),
        str(header["cursor"]),
        format_stamp(one.stamp),
        snapshot.headers["etag"],
        HEAD,
        f"{tenant}_{'a' * 40}",
        "' OR tenant <> '",
    ]
    return World(device, tenant, values)


def ask(
    other: Caller,
    path: str,
    method: str,
    *,
    query: Mapping[str, str],
    header: Mapping[str, Any],
    headers: Mapping[str, str | None],
    head: str = HEAD,
) -> Reply:
    """A request of another tenant's device."""
    operation = DESCRIPTION["paths"][path][method]
    named = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]
    where = path.replace("{head}", quote(head, safe=""))
    asked = {name: query.get(name, QUERY[name]) for name in named}
    make = BODIES.get((path, method))
    kind = next(iter(operation.get("requestBody", {"content": {CONTENT_TYPE: 0}})["content"]))
    return other.call(
        method.upper(),
        f"{where}?{urlencode(asked)}",
        make(header) if make else None,
        headers,
        kind=kind,
    )


def test_every_route_parameter_and_key_is_covered() -> None:
    """What is new has to be added above: then it is tried as well."""
    for path, method in OPERATIONS:
        operation = DESCRIPTION["paths"][path][method]
        for parameter in operation.get("parameters", []):
            known = {"query": QUERY, "header": HEADERS, "path": {"head"}}[parameter["in"]]
            assert parameter["name"] in known, (path, parameter["name"])
        assert ("requestBody" in operation) == ((path, method) in BODIES), path
        content = operation.get("requestBody", {}).get("content", {}).get(CONTENT_TYPE, {})
        assert set(content.get("x-frame", {})) <= set(FRAME), path


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_nothing_of_another_tenant_comes_out(place: Place, path: str, method: str) -> None:
    mine, other = world(place), place.device()
    other.statuses(item("own", seed=2))
    before = mine.state()
    operation = DESCRIPTION["paths"][path][method]
    content = operation.get("requestBody", {}).get("content", {}).get(CONTENT_TYPE, {})
    good = {k: FRAME[k] for k in content.get("x-frame", {}) if FRAME[k] is not None}
    places = [("path", "head")] * ("{head}" in path)
    places += [(p["in"], p["name"]) for p in operation.get("parameters", []) if p["in"] != "path"]
    places += [("frame", key) for key in good]
    if path == "/v1/enroll":
        places += [("frame", "code"), ("frame", "name")]
    for kind, name in [("", ""), *places]:
        if name in ("Edge-MRL-Protocol", "Content-Digest"):
            continue  # they name nothing
        for value in mine.values if kind else [""]:
            query, headers, header, head = {}, {}, dict(good), HEAD
            if kind == "query":
                query = {name: value}
            elif kind == "header":
                headers = {name: value.replace("\r", "")}
            elif kind == "frame":
                header[name] = [value] if name == "ids" else value
            elif kind == "path":
                head = value
            reply = ask(other, path, method, query=query, header=header, headers=headers, head=head)
            assert reply.status < 500, (kind, name, value)
            assert reply.status != 206 or name != "Range" or b"of-mine" not in reply.body
            _check(reply, (kind, name, value), mine)
    assert mine.state() == before


def _check(reply: Reply, sent: tuple[str, str, str], mine: World) -> None:
    """An answer has nothing of the other tenant, but what was sent."""
    text = reply.body.replace(sent[2].encode(), b"")
    hidden = [mine.device.device, *SECRETS[1:], str(mine.device.token)]
    found = [secret for secret in hidden if secret.encode() in text]
    assert found == [], (sent, found)
    etag = mine.values[8]
    assert sent[2] == etag or reply.headers.get("etag") != etag


def test_the_test_above_finds_a_leak() -> None:
    device = Caller("http://127.0.0.1:1", "emrl_t1_secret")
    device.device = "0123456789abcdef"
    mine = World(device, "t1", [""] * 12)
    for leak in (b"text-of-mine", b"emrl_t1_secret", b"0123456789abcdef"):
        reply = Reply(200, {}, b'{"hits":["' + leak + b'"]}')
        with pytest.raises(AssertionError):
            _check(reply, ("", "", ""), mine)
    _check(Reply(200, {}, b"text-of-mine"), ("query", "head", "text-of-mine"), mine)


def test_space_of_another_tenant_says_nothing(place: Place) -> None:
    """A space is no secret within a tenant; of another tenant's, nothing is said."""
    mine, other = world(place), place.device()
    other.space = "6" * 64
    other.statuses(item("own"))
    reply = other.push(item("more"), Edge_MRL_Space=SPACE)
    assert reply.json["error"]["space"] == "6" * 64
    assert mine.device.call("GET", "/v1/pull?since=0&vectors=none").status == 200
