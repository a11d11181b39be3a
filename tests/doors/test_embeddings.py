"""A bundle for clients of OpenAI's API: the official client, and what a client may get wrong."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl import Encoder
from tests.support.bundles import TINY, TINY_COARSE
from tests.support.listening import Listening, listening, request

pytestmark = pytest.mark.test
MODEL = "tiny-bert"
TEXTS = ["the cat and the dog", "a ferry", "ä \ud800 日本"]
NODE = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none" });
const texts = JSON.parse(process.argv[3]);
const model = "tiny-bert";
const vectors = async (body) => (await client.embeddings.create(body)).data.map((d) => d.embedding);
const short = { model, input: texts, dimensions: 8 };
const out = {
  base64: await vectors({ model, input: texts }),
  float: await vectors({ ...short, encoding_format: "float" }),
  models: (await client.models.list()).data.map((m) => m.id),
};
try { await client.embeddings.create({ ...short, dimensions: 24 }); }
catch (error) { out.refused = [error.status, error.param]; }
console.log(JSON.stringify(out));
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Listening]:
    with listening(
        "serve-embeddings", "--bundle", TINY, "--alias", "text-embedding-3-small"
    ) as one:
        yield one


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder.open(TINY) as opened:
        yield opened


def ask(server: Listening, **body: Any) -> Any:
    given = {"model": MODEL, "input": TEXTS, **body}
    return request(server.url, "POST", "/v1/embeddings", given)


def vectors(reply: Any) -> np.ndarray:
    assert reply.status == 200, reply.body
    return np.array([row["embedding"] for row in reply.json["data"]], np.float32)


def test_the_official_client(server: Listening, encoder: Encoder) -> None:
    openai = pytest.importorskip("openai", reason="NOT TRIED: the package openai is missing")
    texts = TEXTS[:2]
    with openai.OpenAI(base_url=server.url, api_key="none") as client:
        whole = client.embeddings.create(model=MODEL, input=texts)  # asks for base64
        expected = encoder.encode_document(texts)
        assert np.array_equal(np.array([d.embedding for d in whole.data], np.float32), expected)
        assert [d.index for d in whole.data] == [0, 1]
        assert whole.usage.prompt_tokens == sum(encoder.count_tokens(texts))
        one = client.embeddings.create(
            model=MODEL, input=texts[0], dimensions=4, encoding_format="float",
            extra_body={"input_type": "query"},
        )  # fmt: skip
        assert np.allclose(one.data[0].embedding, encoder.encode_query(texts[0], dim=4))
        asked = client.embeddings.create(model=f"{MODEL}:query", input=texts)
        expected = encoder.encode_query(texts)
        assert np.array_equal(np.array([d.embedding for d in asked.data], np.float32), expected)
        models = {model.id: model for model in client.models.list()}
        assert list(models) == [
            MODEL,
            f"{MODEL}:query",
            f"{MODEL}:document",
            "text-embedding-3-small",
        ]
        assert client.models.retrieve(f"{MODEL}:query").model_dump()["max_tokens"] == 48
        with pytest.raises(openai.BadRequestError, match="expected at most 16, or 32") as refused:
            client.embeddings.create(model=MODEL, input=texts, dimensions=24)
        assert refused.value.param == "dimensions"
        with pytest.raises(openai.NotFoundError, match="there is no model") as missing:
            client.embeddings.create(model="gpt", input=texts)
        assert missing.value.code == "model_not_found"


@pytest.mark.nightly
def test_the_official_client_of_node(server: Listening, encoder: Encoder, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("NOT TRIED: node and npm are missing")
    (tmp_path / "ask.mjs").write_text(NODE)
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "openai@6"]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TRIED: npm cannot install openai: {done.stderr[-200:]}")
    texts = TEXTS[:2]
    asked = subprocess.run(
        ["node", "ask.mjs", server.url, json.dumps(texts)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    said = json.loads(asked.stdout)
    assert np.array_equal(np.array(said["base64"], np.float32), encoder.encode_document(texts))
    assert np.allclose(said["float"], encoder.encode_document(texts, dim=8))
    assert said["models"][0] == MODEL
    assert said["refused"] == [400, "dimensions"]


@pytest.mark.parametrize("dim", [1, 4, 16, 32, None])
@pytest.mark.parametrize(
    "kind", ["query", "document", "search_query", "search_document", "passage"]
)
def test_vectors_are_those_of_the_encoder(
    server: Listening, encoder: Encoder, dim: int | None, kind: str
) -> None:
    encode = encoder.encode_query if "query" in kind else encoder.encode_document
    expected = encode(TEXTS, dim=dim)
    options = {"input_type": kind, "dimensions": dim}
    assert np.allclose(vectors(ask(server, **options)), expected, atol=1e-6)
    packed = ask(server, encoding_format="base64", **options).json["data"]
    raw = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in packed]
    assert np.array_equal(np.array(raw), expected)
    assert np.linalg.norm(expected, axis=1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"{", None, "no JSON"),
        (b"[" * 100_000, None, "no JSON"),
        (b"[]", None, "expected a JSON object"),
        ({"model": MODEL}, "input", "expected a text"),
        ({"model": MODEL, "input": []}, "input", "not empty"),
        ({"model": MODEL, "input": ""}, "input[0]", "empty text"),
        ({"model": MODEL, "input": ["a", ""]}, "input[1]", "empty text"),
        ({"model": MODEL, "input": ["a", None]}, "input[1]", "expected a text"),
        ({"model": MODEL, "input": [1, 2]}, "input", "numbers of tokens"),
        ({"model": MODEL, "input": [[1, 2]]}, "input", "numbers of tokens"),
        ({"model": MODEL, "input": ["a"] * 2_049}, "input", "at most 2,048"),
        ({"model": MODEL, "input": "a", "dimensions": 17}, "dimensions", "at most 16, or 32"),
        ({"model": MODEL, "input": "a", "dimensions": 0}, "dimensions", "at least 1"),
        ({"model": MODEL, "input": "a", "dimensions": True}, "dimensions", "whole number"),
        ({"model": MODEL, "input": "a", "dimensions": 1.5}, "dimensions", "whole number"),
        ({"model": MODEL, "input": "a", "encoding_format": "hex"}, "encoding_format", "base64"),
        ({"model": MODEL, "input": "a", "encoding_format": []}, "encoding_format", "base64"),
        ({"model": MODEL, "input": "a", "input_type": "x"}, "input_type", "search_query"),
        ({"model": MODEL, "input": "a", "truncate": 1}, "truncate", "true or false"),
        ({"input": "a"}, "model", "a model's name"),
        ({"model": MODEL, "input": "cat " * 100}, "input", "expected at most 48"),
    ],
)
def test_what_is_wrong_is_said_in_the_form_of_the_api(
    server: Listening, body: Any, param: str | None, said: str
) -> None:
    reply = request(server.url, "POST", "/v1/embeddings", body)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert said in reply.error["message"]
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.error["type"] == "invalid_request_error"


def test_long_texts_are_cut_only_where_that_is_asked(server: Listening, encoder: Encoder) -> None:
    long = "cat " * 100
    reply = ask(server, input=["a", long], truncate=True)
    assert np.allclose(vectors(reply), encoder.encode_document(["a", long]), atol=1e-6)
    assert reply.json["usage"]["prompt_tokens"] == 48 + encoder.count_tokens(["a"])[0]
    assert ask(server, input=["a", long]).error["code"] == "context_length_exceeded"


def test_other_paths_and_methods(server: Listening) -> None:
    assert request(server.url, "GET", "/v1/embeddings").status == 405
    missing = request(server.url, "POST", "/v1/chat/completions", {})
    assert (missing.status, "POST /v1/embeddings" in missing.error["message"]) == (404, True)
    assert request(server.url, "GET", "/v1/models/other").error["code"] == "model_not_found"
    assert request(server.url, "GET", "/health").json == {"status": "ok", "model": MODEL}
    assert ask(server, model="text-embedding-3-small").json["model"] == "text-embedding-3-small"


def test_pages_of_other_machines_and_large_requests_are_refused(server: Listening) -> None:
    page = request(server.url, "GET", "/v1/models", Origin="https://evil.example")
    assert (page.status, page.error["code"]) == (403, "wrong_origin")
    assert request(server.url, "GET", "/v1/models", Host="evil.example").status == 421
    assert request(server.url, "GET", "/v1/models", Origin="http://localhost:3000").status == 200
    large = request(server.url, "POST", "/v1/embeddings", b" " * ((8 << 20) + 1))
    assert (large.status, large.error["code"]) == (413, "too_large")


def test_many_at_once(server: Listening, encoder: Encoder) -> None:
    expected, right = encoder.encode_document(TEXTS), list[bool]()

    def one() -> None:
        right.extend(np.allclose(vectors(ask(server)), expected, atol=1e-6) for _ in range(5))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 40


def test_a_token_and_an_end_in_order(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-this-test\n")
    options = ("serve-embeddings", "--bundle", TINY_COARSE, "--truncate")
    with listening(*options, "--token-file", tmp_path / "token") as server:
        assert server.said["token"] is None
        assert request(server.url, "GET", "/v1/models").status == 401
        assert request(server.url, "GET", "/health").status == 200
        right = {"Authorization": "Bearer a-token-of-this-test"}
        assert request(server.url, "GET", "/v1/models", **right).status == 200
        (model,) = request(server.url, "GET", "/v1/models", **right).json["data"][:1]
        long = {"model": model["id"], "input": "cat " * 300}
        replies: list[Any] = []

        def late() -> None:
            body = {**long, "input": ["the cat and the dog " * 8] * 2_000}
            replies.append(request(server.url, "POST", "/v1/embeddings", body, **right))

        thread = threading.Thread(target=late)
        assert request(server.url, "POST", "/v1/embeddings", long, **right).status == 200
        thread.start()
        while not replies and request(server.url, "GET", "/health").status != 200:
            pass
        thread.join()
        assert server.stop(signal.SIGTERM) == 0
    assert replies[0].status == 200
