"""The HTTP interface: requests in, answers and status codes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_server.http.app import create_app
    from edge_mrl_server.http.load.addresses import Proxies, network
    from edge_mrl_server.http.making import MAKERS
    from edge_mrl_server.http.metrics import Metrics
    from edge_mrl_server.http.operator_page import create_operator_app
    from edge_mrl_server.http.refusals import malformed_request
    from edge_mrl_server.http.service import Service

__all__ = [
    "MAKERS",
    "Metrics",
    "Proxies",
    "Service",
    "create_app",
    "create_operator_app",
    "malformed_request",
    "network",
]

__getattr__ = lazily(
    __name__,
    {
        "app": ("create_app",),
        "load.addresses": ("Proxies", "network"),
        "making": ("MAKERS",),
        "metrics": ("Metrics",),
        "operator_page": ("create_operator_app",),
        "refusals": ("malformed_request",),
        "service": ("Service",),
    },
)
