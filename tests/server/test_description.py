"""The description of the routes is exact: compared with the code, and with what the server answers.

Schemathesis makes requests from it. It reports an answer that the description does not have: a status, a
header, a word, a value of another type, and any 500.
"""

from __future__ import annotations

import ast
import json
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

import edge_mrl_server.http
from edge_mrl.bundle import head_id
from edge_mrl.wire import CONTENT_TYPE, digest, encode_items, encode_message
from edge_mrl_server.http import handlers
from edge_mrl_server.http.app import ROUTES
from edge_mrl_server.http.openapi import CODES, DESCRIPTION
from edge_mrl_server.http.refusals import _ANSWERS
from tests.server.conftest import Place
from tests.support.serving import SPACE, Caller, enroll, item, serving, units

#: Urllib3 leaves it to the garbage collector to close connections that the server has ended.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
#: Requests of each route before a merge; some of them are good ones.
EXAMPLES, NIGHTLY = 15, 400
#: An invitation cannot be guessed.
NEVER_GOOD = ("/v1/enroll",)
#: A head of eight rows, and of the prefix.
MATRIX = units(8, 4).astype(np.float32)
HEADS = (head_id(MATRIX, layer_norm=False), head_id(None, layer_norm=False))
OPERATIONS = [
    (path, method) for path, methods in DESCRIPTION["paths"].items() for method in methods
]


# --- against the code


def test_routes_are_those_of_the_application() -> None:
    assert sorted(OPERATIONS) == sorted((path, method.lower()) for path, method, _ in ROUTES)


def raised() -> dict[str, set[str]]:
    """The words of each status that any module of the room refuses with."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for status, code in _ANSWERS.values():
        found[str(status)].add(code)
    assert edge_mrl_server.http.__file__ is not None
    for path in Path(edge_mrl_server.http.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                values = [a.value if isinstance(a, ast.Constant) else None for a in node.args[:2]]
                if None not in values:
                    found[str(values[0])].add(str(values[1]))
    return found


def test_words_of_each_status_are_those_that_the_code_refuses_with() -> None:
    assert {status: set(codes) for status, codes in CODES.items()} == raised()


def _read(*names: str) -> set[str]:
    """The constants with which handlers look into what is called by one of these names."""
    source = (Path(handlers.__file__)).read_text("utf-8")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place, key = node.func.value, node.args[:1]
            if node.func.attr != "get":
                continue
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            place, key = node.value, [node.slice]
        else:
            continue
        if getattr(place, "attr", getattr(place, "id", "")) in names:
            found |= {k.value for k in key if isinstance(k, ast.Constant)}
    return found


def test_what_handlers_read_is_described() -> None:
    operations = [DESCRIPTION["paths"][path][method] for path, method in OPERATIONS]
    parameters = {
        p["name"] for o in operations for p in o.get("parameters", []) if p["in"] == "query"
    }
    bodies = [
        o["requestBody"]["content"].get(CONTENT_TYPE, {}) for o in operations if "requestBody" in o
    ]
    frames = {key for body in bodies for key in body.get("x-frame", {})}
    assert _read("query", "query_params") == parameters
    assert _read("header") | {"items"} == frames


def test_specification_has_all_words() -> None:
    text = (Path(__file__).parents[2] / "FORMAT.md").read_text("utf-8")
    missing = [code for codes in CODES.values() for code in codes if f"`{code}`" not in text]
    assert missing == ["method", "internal"]  # no device ever asks for these


# --- against the server


def frames() -> st.SearchStrategy[bytes]:
    """Bodies: good frames, frames with other values, and anything."""
    ids = st.sampled_from(["a", "b", "", "\0", "x" * 600])
    query = encode_message({"ids": ["a"], "k": 3, "text": True}, units(1))
    push = encode_items({"cursor": 0}, [item("a", seed=1), item("b", deleted=True)], like=units(0))
    head = encode_message({"layer_norm": False}, MATRIX)
    values = st.one_of(st.none(), st.booleans(), st.integers(), st.lists(ids, max_size=3), ids)
    names = st.sampled_from(["ids", "k", "text", "items", "cursor", "push", "epoch", "layer_norm"])
    header = st.dictionaries(names, values, max_size=5)
    dtype = st.sampled_from(["float16", "float32", "int8", "x"])
    odd = st.builds(_frame, header, dtype, st.sampled_from([0, 4, 8]), st.binary(max_size=40))
    return st.one_of(st.sampled_from([query, push, head]), odd, st.binary(max_size=40))


def _frame(header: dict[str, object], dtype: str, dim: int, data: bytes) -> bytes:
    text = json.dumps({**header, "dtype": dtype, "dim": dim}).encode()
    return struct.pack("<I", len(text)) + text + data


schemathesis.openapi.media_type(CONTENT_TYPE, frames())
load_all_checks()
SCHEMA = schemathesis.openapi.from_dict(DESCRIPTION)
SCHEMA.config.generation.update(modes=list(schemathesis.GenerationMode))


def send(case: schemathesis.Case, device: Caller, url: str, session: requests.Session) -> int:
    """Send a request, mostly with its digest and the device's token, and check the answer."""
    case.headers = {**(case.headers or {})}
    if "head" in (case.query or {}) and len(repr(case)) % 3:
        case.query |= {"head": HEADS[1], "dim": 4, "scale": 1.0}
        for name in ("stored", "step", "centre", "groups"):  # few drawn values fit together
            case.query.pop(name, None)
    if "head" in (case.path_parameters or {}) and len(repr(case)) % 3:
        case.path_parameters["head"] = HEADS[0]
        case.body = encode_message({"layer_norm": False}, MATRIX)
    if case.operation.path == "/v1/pull" and len(repr(case)) % 3:
        case.query = {"since": 0, "vectors": "none"}
    if case.operation.path == "/v1/push" and len(repr(case)) % 3:
        vectors = units(1, seed=1)
        case.body = encode_items({"cursor": 0}, [item("a", seed=1)], like=vectors)
    if len(repr(case)) % 7:  # some have no token, or a digest that is made up
        case.headers["Authorization"] = f"Bearer {device.token}"
        case.headers["Edge-MRL-Space"] = SPACE
        if len(repr(case)) % 3:
            case.headers.pop("Edge-MRL-Copy", None)
    request = session.prepare_request(requests.Request(**case.as_transport_kwargs(base_url=url)))
    if len(repr(case)) % 7 and request.body is not None:
        body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
        request.headers["Content-Digest"] = digest(body)
    try:
        answer = session.send(request, timeout=60)
    except (ValueError, requests.exceptions.InvalidHeader):
        return 0  # what this client cannot send
    case.validate_response(answer, checks=CHECKS)
    return answer.status_code


def attack(path: str, method: str, device: Caller, url: str, examples: int) -> Counter[int]:
    """Requests to one route; returns how often each status came."""
    seen: Counter[int] = Counter()
    operation = SCHEMA[path][method.upper()]

    with requests.Session() as session:

        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(case=operation.as_strategy())
        def run(case: schemathesis.Case) -> None:
            seen[send(case, device, url, session)] += 1

        run()
    return seen


@pytest.fixture(scope="module")
def device(sqlite_place: Place) -> Iterator[Caller]:
    caller = sqlite_place.device()
    caller.statuses(item("a", text="tea", spans=[(0, 3)]))
    yield caller
    caller.close()


@pytest.mark.test
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_are_those_of_the_description(
    sqlite_place: Place, device: Caller, path: str, method: str
) -> None:
    seen = attack(path, method, device, sqlite_place.server.url, EXAMPLES)
    assert seen[200] + seen[201] or path in NEVER_GOOD, seen


@pytest.mark.nightly
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_answers_are_those_of_the_description_for_long(
    place: Place, path: str, method: str
) -> None:
    caller = place.device()
    attack(path, method, caller, place.server.url, NIGHTLY)


BROKEN = {
    "fails": ("raise KeyError('x')", "Server error"),
    "another status": ("return service_module.Reply(b'{}', status=202)", "Undocumented status"),
    "another value": ("return service_module.json_reply({'status': 7})", "violates schema"),
}


@pytest.mark.test
@pytest.mark.parametrize("name", BROKEN)
def test_handler_that_answers_otherwise_is_found(tmp_path: Path, name: str) -> None:
    program = (
        "from edge_mrl_server.http import app, service as service_module\n"
        "async def broken(service, request):\n"
        f"    {BROKEN[name][0]}\n"
        "app.ROUTES = tuple((p, m, broken if p == '/healthz' else h) for p, m, h in app.ROUTES)"
    )
    with serving(tmp_path / "s.db", program=program) as server:
        caller = enroll(server.url, str(server.invitation))
        with pytest.raises(FailureGroup) as found:
            attack("/healthz", "get", caller, server.url, 2)
        assert BROKEN[name][1] in str(found.value.exceptions)
        caller.close()
