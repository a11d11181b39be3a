"""A store as a server of the Model Context Protocol (https://modelcontextprotocol.io), on its own SDK."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from edge_mrl._version import __version__
from edge_mrl.doors.tools import (
    DEFAULT_CHARS,
    LEAST_CHARS,
    MOST_CHARS,
    MOST_HITS,
    Answers,
    Deleted,
    Kept,
    Part,
    Status,
    StoreTools,
)
from edge_mrl.errors import EdgeMrlError

if TYPE_CHECKING:
    from edge_mrl.doors.guard import Guard
    from edge_mrl.doors.serving import Bound

__all__ = ["serve_agents"]

F = TypeVar("F", bound=Callable[..., Any])

_FILTER = (
    '`filter` compares metadata: {"folder": "work"}, {"year": {"$gte": 2020}}, {"$or": [...]}; leave it '
    "out to search everything."
)
_SEARCH = (
    "Search the user's documents by meaning and by words. Returns passages from the best, each with its "
    f"document's id. `k`: how many documents at most, 1 to {MOST_HITS}. `mode`: hybrid (the default), "
    "vector (by meaning alone) or keyword (by words alone). `max_chars`: most characters of the whole "
    f"answer, {LEAST_CHARS} to {MOST_CHARS}. {_FILTER}"
)
_GET = (
    "Read a document by its id, or a part of it: characters `start` to `end`. At most `max_chars` (up to "
    f"{MOST_CHARS}) are returned; `next_start` says where to go on."
)
_FETCH = "Read a document from its beginning by its id; the same as `get` with an id alone."
_STATUS = "What the store holds: documents, names of metadata for filters, model, size."
_PUT = (
    "Store a text under an id; it replaces the document with that id. `metadata`: names and values."
)
_DELETE = "Delete documents by their ids, for good."


def serve_agents(tools: StoreTools, *, at: Bound | None = None, guard: Guard | None = None) -> None:
    """Serve a store to agents until their end of the pipe is closed, or a signal.

    Args:
        tools: The store.
        at: A listening socket for streamable HTTP; None for standard input and output.
        guard: Who may ask over HTTP.

    Raises:
        ModuleNotFoundError: The package ``mcp`` is not installed.
    """
    warming = threading.Thread(target=_warm, args=(tools,), daemon=True)
    warming.start()  # while the SDK is imported, which takes longer
    try:
        if at is None:
            _server(tools).run("stdio")
        else:
            from edge_mrl.doors.guard import Guarded
            from edge_mrl.doors.serving import run_app

            app = _app(tools)
            run_app(app if guard is None else Guarded(app, guard), at, lifespan=True)
    finally:
        warming.join()  # the index is closed next


def _warm(tools: StoreTools) -> None:
    """Open the bundle before the first search needs it; whoever searches is told what is wrong."""
    with suppress(EdgeMrlError, OSError):
        tools.index.encoder  # noqa: B018 - a property that opens on its first use


def _app(tools: StoreTools) -> Any:
    """The protocol over streamable HTTP at ``/mcp``, without sessions, as an ASGI application."""
    from mcp.server.transport_security import TransportSecuritySettings

    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # the guard checks
    return _server(tools).streamable_http_app(
        stateless_http=True, json_response=True, transport_security=unchecked
    )


def _server(tools: StoreTools) -> Any:
    from mcp.server.mcpserver import MCPServer
    from mcp_types import ToolAnnotations

    server = MCPServer(
        "edge-mrl",
        title="edge-mrl",
        version=__version__,
        instructions=tools.instructions(),
        log_level="WARNING",
    )
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False, idempotent_hint=True)
    writing = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, open_world_hint=False, idempotent_hint=True
    )
    offered = [(call, reading) for call in _reading(tools)]
    if tools.write:
        offered += [(call, writing) for call in _writing(tools)]
    for call, hints in offered:
        server.add_tool(_telling(call), description=call.__doc__, annotations=hints)
    _add_resource(server, tools)
    return server


def _add_resource(server: Any, tools: StoreTools) -> None:
    from mcp.server.mcpserver.exceptions import ResourceNotFoundError
    from mcp.server.mcpserver.resources import ResourceSecurity

    def document(id: str) -> str:  # noqa: A002 - the template's name for it
        try:
            return tools.get(id, end=None, max_chars=MOST_CHARS).text
        except EdgeMrlError as error:
            raise ResourceNotFoundError(str(error)) from error

    # Ids are names in the store and no paths of files: slashes and dots in them lead nowhere else.
    server.resource(
        "edge-mrl://document/{id}",
        name="document",
        title="A document",
        description=f"A document's text by its id, percent-encoded; its first {MOST_CHARS} characters.",
        mime_type="text/plain",
        security=ResourceSecurity(exempt_params={"id"}),
    )(document)


def _reading(tools: StoreTools) -> list[Callable[..., Any]]:
    def search(
        query: str,
        k: int = 5,
        mode: Literal["hybrid", "vector", "keyword"] = "hybrid",
        filter: dict[str, Any] | None = None,  # noqa: A002 - the tool's argument
        max_chars: int = DEFAULT_CHARS,
    ) -> Answers:
        return tools.search(query, k, mode=mode, filter=filter, max_chars=max_chars)

    def get(
        id: str,  # noqa: A002 - the tool's argument
        start: int = 0,
        end: int | None = None,
        max_chars: int = DEFAULT_CHARS,
    ) -> Part:
        return tools.get(id, start=start, end=end, max_chars=max_chars)

    def fetch(id: str) -> Part:  # noqa: A002 - the tool's argument
        return tools.get(id, end=None, max_chars=MOST_CHARS)

    def status() -> Status:
        return tools.status()

    search.__doc__, get.__doc__, fetch.__doc__, status.__doc__ = _SEARCH, _GET, _FETCH, _STATUS
    return [search, get, fetch, status]


def _writing(tools: StoreTools) -> list[Callable[..., Any]]:
    def put(
        id: str,  # noqa: A002 - the tool's argument
        text: str,
        metadata: dict[str, Any] | None = None,
    ) -> Kept:
        return tools.put(id, text, metadata)

    def delete(ids: list[str]) -> Deleted:
        return tools.delete(ids)

    put.__doc__, delete.__doc__ = _PUT, _DELETE
    return [put, delete]


def _telling(call: F) -> F:
    """The same tool, whose errors are told to the agent."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(call)
    def telling(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except EdgeMrlError as error:
            raise ToolError(str(error)) from error

    telling.__signature__ = inspect.signature(call, eval_str=True)  # type: ignore[attr-defined]
    return telling  # type: ignore[return-value]
