"""Counters for Prometheus and the operator's page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["Metrics"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """What a process counts. Tenants and devices are no labels: there are too many of them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.requests = Counter(
            "edge_mrl_requests",
            "Requests by route, status and the error's code.",
            ["route", "status", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "edge_mrl_request_seconds",
            "Time from the request's head to the answer's last byte.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.items = Counter(
            "edge_mrl_items", "Pushed documents by status.", ["status"], registry=self.registry
        )
        self.vectors = Counter(
            "edge_mrl_vectors", "Pushed vectors, whatever became of them.", registry=self.registry
        )
        self.claims = Counter(
            "edge_mrl_restore_claims",
            "Devices that said that the database was restored: proved, unproved, refused.",
            ["claim"],
            registry=self.registry,
        )
        self.received = Counter(
            "edge_mrl_received_bytes", "Bytes of requests' bodies.", registry=self.registry
        )
        self.sent = Counter(
            "edge_mrl_sent_bytes", "Bytes of answers' bodies.", registry=self.registry
        )
        self.in_flight = Gauge(
            "edge_mrl_in_flight_requests",
            "Requests being answered.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )

    def count_claim(self, claim: str | None) -> None:
        """Count what a device said of a restore; None if it said nothing."""
        if claim is not None:
            self.claims.labels(claim).inc()
