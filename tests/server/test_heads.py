"""Heads: registered in either database, looked up once, refused where they do not fit."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes, head_id
from edge_mrl.codes.packing import INT8, Packing
from edge_mrl_server.errors import InvalidHeadError, LimitReachedError
from edge_mrl_server.http.heads import CodeKey, HeadCache, read_packing
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.storage import heads
from tests.server.conftest import Place
from tests.support.serving import units
from tests.support.stores import PACKINGS, packing


def matrix(seed: int = 0, shape: tuple[int, int] = (8, 4)) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return values


def register(place: Place, tenant: str, seed: int = 0, *, layer_norm: bool = False) -> str:
    name = head_id(matrix(seed), layer_norm=layer_norm)
    assert heads.register(place.database, tenant, name, matrix(seed), layer_norm=layer_norm)
    return name


@pytest.mark.parametrize("layer_norm", [False, True])
def test_registered_head_comes_back_as_it_was(place: Place, *, layer_norm: bool) -> None:
    tenant, other = place.tenant(), place.tenant()
    name = register(place, tenant, layer_norm=layer_norm)
    assert not heads.register(place.database, tenant, name, matrix(), layer_norm=layer_norm)
    found = heads.find(place.database, tenant, name)
    assert found is not None
    assert found.layer_norm is layer_norm
    assert found.matrix is not None
    assert np.array_equal(found.matrix, matrix())
    assert heads.find(place.database, other, name) is None


def test_head_that_is_not_what_its_id_says_is_rejected(place: Place) -> None:
    tenant, bad = place.tenant(), matrix()
    bad[0, 0] = np.inf
    empty = np.zeros((0, 4), np.float32)
    for wrong in (bad, empty):
        with pytest.raises(InvalidHeadError, match="finite"):
            heads.register(place.database, tenant, "0" * 64, wrong, layer_norm=False)
    name = head_id(matrix(), layer_norm=False)
    for given, norm in ((matrix(1), False), (matrix(), True)):
        with pytest.raises(InvalidHeadError, match="not the head of that id"):
            heads.register(place.database, tenant, name, given, layer_norm=norm)
    assert heads.find(place.database, tenant, name) is None


def test_tenant_may_have_as_many_heads_as_the_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "MAX_HEADS", 2)
    tenant = place.tenant()
    for seed in (1, 2):
        register(place, tenant, seed)
    with pytest.raises(LimitReachedError, match="has 2 heads"):
        register(place, tenant, 3)
    # One that is there already is no other one.
    name = head_id(matrix(1), layer_norm=False)
    assert not heads.register(place.database, tenant, name, matrix(1), layer_norm=False)


def test_heads_of_a_tenant_take_so_many_bytes_at_most(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "MAX_HEADS_BYTES", 2 * 4 * 8 * 4)
    tenant = place.tenant()
    for seed in (1, 2):
        register(place, tenant, seed)
    with pytest.raises(LimitReachedError, match="MiB"):
        register(place, tenant, 3)


def test_cache_of_heads_is_bounded_by_bytes(place: Place) -> None:
    tenant, cache = place.tenant(), HeadCache(max_bytes=2 * 4 * 8 * 4)
    codes = [CodeKey(register(place, tenant, seed), 3, 1.0) for seed in range(4)]
    first = [cache.get(place.database, tenant, code, 8) for code in codes]
    assert cache._bytes == 2 * 4 * 8 * 4
    again = [cache.get(place.database, tenant, code, 8) for code in reversed(codes)]
    assert [a is b for a, b in zip(again, reversed(first), strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def test_codes_are_those_that_a_device_derives(place: Place) -> None:
    tenant = place.tenant()
    code = CodeKey(register(place, tenant, layer_norm=True), 3, 0.5)
    head = HeadCache().get(place.database, tenant, code, 8)
    full = units(5, seed=4)
    expected = derive_codes(full.astype(np.float32), matrix(), dim=3, layer_norm=True, scale=0.5)
    assert np.array_equal(code.derive(head, full), expected)
    assert code.derive(head, units(0)).shape == (0, 3)


@pytest.mark.parametrize("name", PACKINGS)
def test_codes_are_packed_as_a_device_asks(place: Place, name: str) -> None:
    tenant, kept = place.tenant(), packing(name, 3)
    code = CodeKey(register(place, tenant), 3, 0.5, kept)
    head = HeadCache().get(place.database, tenant, code, 8)
    full = units(5, seed=4)
    plain = CodeKey(code.head, 3, 0.5).derive(head, full)
    assert code.derive(head, full).tobytes() == kept.pack(plain.view(np.int8)).tobytes()
    assert code.none.shape == (0, kept.bytes(3))
    assert (
        code.none.dtype == code.derive(head, full).dtype == (np.int8 if kept == INT8 else np.uint8)
    )


def asked(query: dict[str, str]) -> Packing:
    kind = query.get("stored", "int8")
    return read_packing(kind, query.get("step"), query.get("centre"), 3)


def test_packings_are_read_from_a_request_or_refused() -> None:
    assert asked({}) == INT8
    assert asked({"stored": "int4", "step": "2.5"}) == Packing("int4", 2.5)
    centre = base64.urlsafe_b64encode(np.array([-1, 0, 5], np.int8).tobytes()).decode().rstrip("=")
    wanted = Packing("2bit", 4.0, (-1, 0, 5))
    assert asked({"stored": "2bit", "step": "4.0", "centre": centre}) == wanted
    for query in (
        {"stored": "int2"},
        {"stored": "int4"},
        {"stored": "int4", "step": "nan"},
        {"stored": "int4", "step": "x"},
        {"stored": "2bit", "step": "2.5"},
        {"stored": "2bit", "step": "4", "centre": centre + "AAAA"},
        {"stored": "2bit", "step": "4", "centre": "\u00e4"},
        {"stored": "1bit", "centre": centre},
        {"step": "4"},
    ):
        with pytest.raises(Refusal) as raised:
            asked(query)
        assert (raised.value.status, raised.value.code) == (400, "malformed")


def test_code_that_does_not_fit_is_refused(place: Place) -> None:
    tenant, cache = place.tenant(), HeadCache()
    name = register(place, tenant)
    prefix = head_id(None, layer_norm=False)
    for code, full_dim, status, word in (
        (CodeKey("0" * 64, 3, 1.0), 8, 404, "head_unknown"),
        (CodeKey(name, 5, 1.0), 8, 400, "malformed"),
        (CodeKey(name, 3, 1.0), 16, 400, "malformed"),
        (CodeKey(prefix, 9, 1.0), 8, 400, "malformed"),
    ):
        with pytest.raises(Refusal) as raised:
            cache.get(place.database, tenant, code, full_dim)
        assert (raised.value.status, raised.value.code) == (status, word)
    assert cache.get(place.database, tenant, CodeKey(prefix, 9, 1.0), None).matrix is None
    with pytest.raises(Refusal, match="not registered"):
        cache.get(place.database, place.tenant(), CodeKey(name, 3, 1.0), 8)


def test_head_is_read_from_the_database_once(place: Place) -> None:
    tenant, cache = place.tenant(), HeadCache()
    code = CodeKey(register(place, tenant), 3, 1.0)
    first = cache.get(place.database, tenant, code, 8)
    with place.database.write() as transaction:
        transaction.run("DELETE FROM heads WHERE tenant = ?", tenant)
    assert cache.get(place.database, tenant, code, 8) is first
