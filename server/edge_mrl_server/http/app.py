"""The application: the routes of the protocol (FORMAT.md, "Wire"), and what every answer goes through."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from edge_mrl_server.http import handlers
from edge_mrl_server.http.envelope import Envelope, Handler, endpoint, http_error
from edge_mrl_server.http.service import Service

__all__ = ["ROUTES", "create_app"]

#: Path, method and handler of everything that is served.
ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("/v1/push", "POST", handlers.push),
    ("/v1/pull", "GET", handlers.pull),
    ("/v1/snapshot/coarse", "GET", handlers.snapshot),
    ("/v1/rerank", "POST", handlers.rerank),
    ("/v1/search", "POST", handlers.search),
    ("/v1/heads/{head}", "PUT", handlers.register_head),
    ("/v1/enroll", "POST", handlers.enroll),
    ("/v1/token", "POST", handlers.rotate),
    ("/healthz", "GET", handlers.healthz),
    ("/readyz", "GET", handlers.readyz),
    ("/openapi.json", "GET", handlers.openapi),
)


def create_app(service: Service) -> Envelope:
    """The ASGI application of a process."""
    routes = [
        Route(path, endpoint(service, handler), methods=[method])
        for path, method, handler in ROUTES
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error})
    app.router.redirect_slashes = False
    return Envelope(app, service)
