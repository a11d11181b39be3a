"""A bundle for clients of OpenAI's API: ``POST /v1/embeddings`` and ``GET /v1/models``.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_mrl.doors.asked import Asked, RefusedError, parse_request
from edge_mrl.errors import EdgeMrlError, OutOfMemoryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.encode import Encoder

__all__ = ["embeddings_app"]

#: Requests that are encoded at once: a short one beside a long one. Each uses all of the encoder's
#: threads.
AT_ONCE = 2


def embeddings_app(
    encoder: Encoder, *, aliases: Sequence[str] = (), truncate: bool = False
) -> Starlette:
    """The API as an ASGI application.

    Args:
        encoder: The opened bundle; threads share it.
        aliases: Other names that the model answers to, for clients that name OpenAI's.
        truncate: Whether texts of more tokens than the model reads are cut if a request does not say;
            else such a request is refused.
    """
    return _Embeddings(encoder, aliases, truncate=truncate).app


class _Embeddings:
    def __init__(self, encoder: Encoder, aliases: Sequence[str], *, truncate: bool) -> None:
        self._encoder, self._truncate = encoder, truncate
        name = encoder.manifest.name
        self._kinds: dict[str, str | None] = {
            name: None,
            f"{name}:query": "query",
            f"{name}:document": "document",
            **dict.fromkeys(aliases),
        }
        self._limit: anyio.CapacityLimiter | None = None  # made on the event loop
        self.app = Starlette(
            routes=[
                Route("/v1/embeddings", self._embed, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
                Route("/health", self._health),
            ],
            exception_handlers={
                RefusedError: _refused,
                HTTPException: _not_found,
                Exception: _failed,
            },
        )

    async def _embed(self, request: Request) -> Response:
        asked = parse_request(await request.body())
        if asked.model not in self._kinds:
            raise _unknown(asked.model, self._kinds)
        if self._limit is None:
            self._limit = anyio.CapacityLimiter(AT_ONCE)
        answer = await anyio.to_thread.run_sync(self._answer, asked, limiter=self._limit)
        return JSONResponse(answer)

    def _answer(self, asked: Asked) -> dict[str, Any]:
        kind = self._kinds[asked.model] or asked.kind or "document"
        try:
            tokens = self._count_tokens(asked, kind)
            encode = (
                self._encoder.encode_query if kind == "query" else self._encoder.encode_document
            )
            vectors = encode(asked.texts, dim=asked.dimensions)
        except OutOfMemoryError as error:
            raise RefusedError(str(error), status=503) from error
        except EdgeMrlError as error:
            param = "input" if asked.dimensions is None else "dimensions"
            raise RefusedError(str(error), param=param) from error
        rows = [
            {"object": "embedding", "index": i, "embedding": _shown(vector, asked)}
            for i, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": rows, "model": asked.model, "usage": usage}

    def _count_tokens(self, asked: Asked, kind: str) -> int:
        """Tokens of all texts; those that are cut off are not counted."""
        most = self._encoder.manifest.max_tokens
        lengths = self._encoder.count_tokens(asked.texts, kind=kind)
        cut = self._truncate if asked.truncate is None else asked.truncate
        for number, length in enumerate(lengths):
            if length > most and not cut:
                raise RefusedError(
                    f"input[{number}] has {length:,} tokens, expected at most {most:,}: split it, or "
                    'send "truncate": true',
                    param="input",
                    code="context_length_exceeded",
                )
        return sum(min(length, most) for length in lengths)

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._facts(name) for name in self._kinds]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._kinds:
            raise _unknown(name, self._kinds)
        return JSONResponse(self._facts(name))

    def _facts(self, name: str) -> dict[str, Any]:
        about = self._encoder.manifest
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "edge-mrl",
            "dimensions": self._encoder.full_dim or self._encoder.dim,
            "shortened_dimensions": {"from": 1, "to": self._encoder.dim},
            "input_type": self._kinds[name],
            "max_tokens": about.max_tokens,
            "source": about.source.model,
        }

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "model": self._encoder.manifest.name})


def _shown(vector: NDArray[np.float32], asked: Asked) -> str | list[float]:
    if asked.base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = vector.tolist()
    return numbers


def _unknown(name: str, known: Sequence[str] | dict[str, str | None]) -> RefusedError:
    message = f"there is no model {name!r}, only {', '.join(known)}"
    return RefusedError(message, param="model", status=404, code="model_not_found")


async def _refused(_: Request, error: Any) -> Response:
    return JSONResponse(error.body, error.status)


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    message = (
        f"{request.method} {request.url.path}: this server has POST /v1/embeddings, GET /v1/models"
    )
    return JSONResponse(RefusedError(message, status=status).body, status)


async def _failed(_: Request, error: Exception) -> Response:  # noqa: ARG001 - it is logged
    return JSONResponse(RefusedError("the server failed; its log says why", status=500).body, 500)
