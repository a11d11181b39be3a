"""What a request for embeddings asks for, checked as OpenAI's API checks it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edge_mrl.documents import shorten

__all__ = ["Asked", "RefusedError", "parse_request"]

#: Texts in one request, as in OpenAI's API.
MOST_INPUTS = 2_048
#: What texts may be called, by OpenAI's imitators, Cohere and Voyage.
KINDS = {
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "query": "query",
    "search_query": "query",
}
FORMATS = ("float", "base64")


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: The HTTP status.
        message: What is wrong, for people.
        param: The argument that is wrong; None if it is none.
        code: A word for programs; None without one.
    """

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The answer, in OpenAI's form."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for embeddings.

    Attributes:
        texts: The texts.
        model: The model that is named.
        kind: "document" or "query"; None if the request does not say.
        dimensions: How many dimensions; None for all.
        base64: Whether vectors are base64 of little-endian float32, instead of numbers.
        truncate: Whether texts that are too long are cut; None if the request does not say.
    """

    texts: list[str]
    model: str
    kind: str | None
    dimensions: int | None
    base64: bool
    truncate: bool | None


def parse_request(body: bytes) -> Asked:
    """Read a request's JSON.

    Raises:
        RefusedError: It is not what the API takes.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the request is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise RefusedError(f"the request is {shorten(data)}, expected a JSON object")
    form = _one_of(data, "encoding_format", FORMATS) or "float"
    kind = _one_of(data, "input_type", tuple(KINDS))
    dimensions = data.get("dimensions")
    if dimensions is not None and (isinstance(dimensions, bool) or not isinstance(dimensions, int)):
        raise _wrong("dimensions", dimensions, "a whole number")
    truncate = data.get("truncate")
    if not isinstance(truncate, bool | None):
        raise _wrong("truncate", truncate, "true or false")
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise _wrong("model", model, "a model's name: GET /v1/models lists them")
    return Asked(
        _texts(data.get("input")),
        model,
        None if kind is None else KINDS[kind],
        dimensions,
        form == "base64",
        truncate,
    )


def _texts(given: object) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise _wrong("input", given, "a text, or a list of texts that is not empty")
    if len(texts) > MOST_INPUTS:
        raise RefusedError(
            f"input has {len(texts):,} texts, expected at most {MOST_INPUTS:,}", param="input"
        )
    for number, text in enumerate(texts):
        if isinstance(text, int | list):
            raise RefusedError(
                "input has numbers of tokens: they mean other words to this model; send texts",
                param="input",
            )
        if not isinstance(text, str):
            raise _wrong(f"input[{number}]", text, "a text")
        if not text:
            raise RefusedError(
                f"input[{number}] is an empty text: leave it out", param=f"input[{number}]"
            )
    return texts


def _one_of(data: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    value = data.get(name)
    if value is not None and value not in allowed:
        raise _wrong(name, value, f"one of {', '.join(allowed)}")
    return None if value is None else str(value)


def _wrong(name: str, value: object, expected: str) -> RefusedError:
    return RefusedError(f"{name} is {shorten(value)}, expected {expected}", param=name)
