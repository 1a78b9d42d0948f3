"""The picker's own series. What the analysis compares versions by is read from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from inference_picker.pool import Source

_PREFIX: Final = "inference_picker"
_LABELS: Final = ("version", "model_name", "target_model_name")
# vLLM's bounds, so that both sides' histograms can be laid over each other.
_FIRST_TOKEN_BOUNDS_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
# vLLM's bounds begin at 0.3 s; short answers need the ones below.
_DURATION_BOUNDS_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5),
    *(5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0),
)


class Metrics:
    """The series that requests write, in a registry of their own."""

    def __init__(self) -> None:
        """Register every series."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            f"{_PREFIX}_requests",
            "Requests that were given an endpoint and are over.",
            _LABELS,
            registry=self.registry,
        )
        self.errors = Counter(
            f"{_PREFIX}_request_errors",
            "Those of them that failed. class: 4xx or 5xx by the response's status; reset: the "
            "response broke off; no-response: the stream ended before any response.",
            (*_LABELS, "class"),
            registry=self.registry,
        )
        self.first_token = Histogram(
            f"{_PREFIX}_time_to_first_token_seconds",
            "Request headers to first byte of a streamed answer, for the share of them whose "
            "body was watched. Failed requests are left out.",
            _LABELS,
            buckets=_FIRST_TOKEN_BOUNDS_S,
            registry=self.registry,
        )
        self.duration = Histogram(
            f"{_PREFIX}_request_duration_seconds",
            "Request headers to the end of the answer. Failed requests are left out.",
            _LABELS,
            buckets=_DURATION_BOUNDS_S,
            registry=self.registry,
        )
        self.picks = Counter(
            f"{_PREFIX}_picks",
            "Requests given to an endpoint.",
            ("version", "endpoint", "target_model_name"),
            registry=self.registry,
        )
        self.refusals = Counter(
            f"{_PREFIX}_refusals",
            "Requests that the picker answered itself.",
            ("reason",),
            registry=self.registry,
        )
        self.protocol_errors = Counter(
            f"{_PREFIX}_protocol_errors",
            "Streams ended because the gateway sent what the protocol does not allow.",
            registry=self.registry,
        )


class PoolCollector(Collector):
    """The series that are read from pool and counts when they are asked for.

    So the gauge can't drift from the count that the scheduler uses, and endpoints that are gone
    leave no series behind.
    """

    def __init__(self, *, source: Source, in_flight: Mapping[str, int]) -> None:
        """Read these two."""
        self._source = source
        self._in_flight = in_flight
        self._versions: dict[str, str] = {}

    def collect(self) -> Iterator[Metric]:
        """Endpoints by version, requests in flight by endpoint."""
        pool = self._source.snapshot()
        flights = GaugeMetricFamily(
            f"{_PREFIX}_in_flight",
            "Requests given to an endpoint and not over yet.",
            labels=("version", "endpoint"),
        )
        versions = {each.address: each.version for each in pool.endpoints}
        # An endpoint that left the pool keeps its version until its last request is over.
        leaving = {each: self._versions.get(each, "") for each in self._in_flight}
        self._versions = leaving | versions
        for address, version in self._versions.items():
            flights.add_metric((version, address), self._in_flight.get(address, 0))
        yield flights
        endpoints = GaugeMetricFamily(
            f"{_PREFIX}_endpoints", "Endpoints that may be picked.", labels=("version",)
        )
        for version in sorted(set(versions.values())):
            endpoints.add_metric((version,), list(versions.values()).count(version))
        yield endpoints
