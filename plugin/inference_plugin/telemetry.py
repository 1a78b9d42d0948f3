"""Prometheus metrics of the plugin server. The registry is given, so that tests have their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_PREFIX = "inference_rollouts_plugin"


class Metrics:
    """Every metric of the server, by attribute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them."""
        self.calls = Counter(
            f"{_PREFIX}_calls_total",
            "Calls of the controller, by method and outcome (ok, error, retry, not_verified).",
            ["method", "outcome"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            f"{_PREFIX}_call_duration_seconds",
            "Time to answer a call of the controller, waiting included.",
            ["method"],
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 8),
            registry=registry,
        )
        self.writes = Counter(
            f"{_PREFIX}_writes_total",
            "Writes to the API server, by resource and outcome (ok, conflict, error).",
            ["resource", "outcome"],
            registry=registry,
        )
        self.writes_avoided = Counter(
            f"{_PREFIX}_writes_avoided_total",
            "SetWeight calls that found everything as it should be.",
            registry=registry,
        )
        self.live_reads = Counter(
            f"{_PREFIX}_live_reads_total",
            "Reads of the API server beside the watches, by resource and cause.",
            ["resource", "cause"],
            registry=registry,
        )
        self.waits = Counter(
            f"{_PREFIX}_waits_total",
            "Answers that had to say: not yet, by reason.",
            ["reason"],
            registry=registry,
        )
        self.drift = Counter(
            f"{_PREFIX}_drift_total",
            "Managed weights found changed by somebody else, by what was done.",
            ["action"],
            registry=registry,
        )
        self.own_moves = Counter(
            f"{_PREFIX}_moves_to_stable_total",
            "Times the server moved traffic to stable without waiting for the controller.",
            registry=registry,
        )
        self.events = Counter(
            f"{_PREFIX}_events_total",
            "Kubernetes Events, by outcome (created, repeated, suppressed, failed).",
            ["outcome"],
            registry=registry,
        )
        self.rollouts = Gauge(
            f"{_PREFIX}_rollouts",
            "Rollouts whose traffic this server routes.",
            registry=registry,
        )
        self.failures = Counter(
            f"{_PREFIX}_internal_errors_total",
            "Exceptions that are bugs, by where they were caught.",
            ["where"],
            registry=registry,
        )
