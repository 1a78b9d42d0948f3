"""Every series of the picker: names, labels, bounds. docs/picker.md lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from inference_picker.series import CounterFamily, HistogramFamily

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from inference_picker.labels import EndpointLabels
    from inference_picker.pick_log import PickLog
    from inference_picker.pool import Source
    from inference_picker.scraping import Scraper
    from inference_picker.series import Family

PREFIX: Final = "inference_picker"
LLM_D: Final = ("llm_d_epp", "inference_objective")
"""Prefixes of the peer's series, the newer first; dashboards that were built on them go on."""

REQUEST_LABELS: Final = (
    *("version", "endpoint", "model_name", "target_model_name"),
    *("sample", "accounting", "phase", "bucket"),
)
MODEL_LABELS: Final = ("model_name", "target_model_name")

# vLLM's bounds, so that both sides' histograms can be laid over each other.
_FIRST_TOKEN_BOUNDS_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
# vLLM's bounds begin at 10 ms; small models on quick cards are below it.
_PER_TOKEN_BOUNDS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
# vLLM's bounds begin at 0.3 s; short answers need the ones below.
_DURATION_BOUNDS_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5),
    *(5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0),
)
_TOKEN_BOUNDS: Final = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000),
    *(100_000, 200_000, 500_000, 1_000_000),
)


class Metrics:
    """The series that requests write, and a registry for what is read from elsewhere."""

    def __init__(self) -> None:
        """Make every series."""
        self.registry = CollectorRegistry()
        """For collectors of other modules; a request never writes there."""
        self.families: list[Family] = []
        self.requests = self._counter(
            "requests", "Requests that were given an endpoint, followed and are over."
        )
        self.errors = self._counter(
            "request_errors",
            "Those of them that failed. class: 4xx or 5xx by the response's status; reset: the "
            "response broke off; no-response: the stream ended before any response; malformed: a "
            "success by its status whose watched body was no answer of a model server.",
            (*REQUEST_LABELS, "class"),
        )
        self.first_token = self._histogram(
            "time_to_first_token_seconds",
            "Request headers to first byte of a streamed answer, of the watched ones. Failed "
            "requests are left out.",
            _FIRST_TOKEN_BOUNDS_S,
        )
        self.inter_token = self._histogram(
            "inter_token_latency_seconds",
            "From one event of a streamed answer to the next, of the watched ones.",
            _PER_TOKEN_BOUNDS_S,
        )
        self.per_output_token = self._histogram(
            "time_per_output_token_seconds",
            "First to last token by the tokens between them, one value for each watched answer.",
            _PER_TOKEN_BOUNDS_S,
        )
        self.duration = self._histogram(
            "request_duration_seconds",
            "Request headers to the end of the answer. Failed requests are left out.",
            _DURATION_BOUNDS_S,
        )
        self.prompt_tokens = self._histogram(
            "prompt_tokens", "Prompt tokens by the usage of watched answers.", _TOKEN_BOUNDS
        )
        self.output_tokens = self._histogram(
            "output_tokens", "Output tokens by the usage of watched answers.", _TOKEN_BOUNDS
        )
        self.cached_tokens = self._histogram(
            "cached_tokens",
            "Prompt tokens that the server's cache held, by the usage of watched answers.",
            _TOKEN_BOUNDS,
        )
        self.unfollowed = self._counter(
            "unfollowed_requests",
            "Requests that were given an endpoint and not followed any further, because the "
            "gateway's mode makes it too dear. They are in no other series but picks.",
        )
        self.picks = self._counter(
            "picks",
            "Requests given to an endpoint.",
            ("version", "endpoint", "target_model_name"),
        )
        self.refusals = self._counter(
            "refusals", "Requests that the picker answered itself.", ("reason",)
        )
        self.protocol_errors = self._counter(
            "protocol_errors",
            "Streams ended because the gateway sent what the protocol does not allow.",
            (),
        )
        self.protocol_errors.inc((), 0)
        self.failures = self._counter(
            "failures", "Streams ended by an error of the picker itself; each is in the log.", ()
        )
        self.failures.inc((), 0)
        self.gateway_mode = Gauge(
            f"{PREFIX}_gateway_mode",
            "1 for each processing mode in which a gateway has called. override: whether the "
            "gateway honours mode_override, unknown until it was tried.",
            ("request_body", "response_body", "override"),
            registry=self.registry,
        )
        self.peers = _PeerSeries(self)

    def _counter(
        self, name: str, documentation: str, labels: tuple[str, ...] = REQUEST_LABELS
    ) -> CounterFamily:
        family = CounterFamily(f"{PREFIX}_{name}", documentation, labels)
        self.families.append(family)
        return family

    def _histogram(
        self, name: str, documentation: str, bounds: tuple[float, ...]
    ) -> HistogramFamily:
        family = HistogramFamily(f"{PREFIX}_{name}", documentation, REQUEST_LABELS, bounds)
        self.families.append(family)
        return family

    def collect(self) -> Iterator[Metric]:
        """Every family, those of the registry included."""
        for family in self.families:
            yield from family.collect()
        yield from self.registry.collect()

    def forget_endpoints(self, gone: frozenset[str]) -> None:
        """Drop the series of endpoints that left long ago."""
        for family in self.families:
            if "endpoint" in family.labels:
                at = family.labels.index("endpoint")
                family.forget(lambda values, at=at: values[at] in gone)  # type: ignore[misc]


class _PeerSeries:
    """The llm-d router's names for what means the same here, by model only, as there."""

    def __init__(self, metrics: Metrics) -> None:
        self.requests: list[CounterFamily] = []
        self.errors: list[CounterFamily] = []
        self.durations: list[HistogramFamily] = []
        self.prompt_tokens: list[HistogramFamily] = []
        self.output_tokens: list[HistogramFamily] = []
        for prefix in LLM_D:
            twin = f"The same as {PREFIX}"
            tokens = f"{prefix}_request" if prefix == LLM_D[0] else prefix
            self.requests.append(
                CounterFamily(f"{prefix}_request", f"{twin}_requests_total.", MODEL_LABELS)
            )
            self.errors.append(
                CounterFamily(
                    f"{prefix}_request_error",
                    f"{twin}_request_errors_total, class as error_code.",
                    (*MODEL_LABELS, "error_code"),
                )
            )
            self.durations.append(
                HistogramFamily(
                    f"{prefix}_request_duration_seconds",
                    f"{twin}_request_duration_seconds.",
                    MODEL_LABELS,
                    _DURATION_BOUNDS_S,
                )
            )
            self.prompt_tokens.append(
                HistogramFamily(
                    f"{tokens}_input_tokens", f"{twin}_prompt_tokens.", MODEL_LABELS, _TOKEN_BOUNDS
                )
            )
            self.output_tokens.append(
                HistogramFamily(
                    f"{tokens}_output_tokens", f"{twin}_output_tokens.", MODEL_LABELS, _TOKEN_BOUNDS
                )
            )
        first = LLM_D[0]
        streamed = (*MODEL_LABELS, "streaming")
        self.first_token = HistogramFamily(
            f"{first}_request_ttft_seconds",
            f"The same as {PREFIX}_time_to_first_token_seconds.",
            streamed,
            _FIRST_TOKEN_BOUNDS_S,
        )
        self.inter_token = HistogramFamily(
            f"{first}_request_streaming_itl_seconds",
            f"The same as {PREFIX}_inter_token_latency_seconds.",
            MODEL_LABELS,
            _PER_TOKEN_BOUNDS_S,
        )
        self.per_output_token = HistogramFamily(
            f"{first}_request_streaming_tpot_seconds",
            f"The same as {PREFIX}_time_per_output_token_seconds.",
            MODEL_LABELS,
            _PER_TOKEN_BOUNDS_S,
        )
        self.cached_tokens = HistogramFamily(
            f"{first}_request_cached_tokens",
            f"The same as {PREFIX}_cached_tokens.",
            MODEL_LABELS,
            _TOKEN_BOUNDS,
        )
        metrics.families += [*self.requests, *self.errors, *self.durations]
        metrics.families += [*self.prompt_tokens, *self.output_tokens, self.cached_tokens]
        metrics.families += [self.first_token, self.inter_token, self.per_output_token]


class PoolCollector(Collector):
    """The series that are read from pool and counts when they are asked for.

    So the gauge can't drift from the count that the scheduler uses, and endpoints that are gone
    leave no series behind.
    """

    def __init__(
        self,
        *,
        source: Source,
        in_flight: Mapping[str, int],
        labels: EndpointLabels,
        name: str = "",
    ) -> None:
        """``name`` is the pool's, for the peer's series."""
        self._source = source
        self._in_flight = in_flight
        self._labels = labels
        self._name = name

    def collect(self) -> Iterator[Metric]:
        """Endpoints by version, requests in flight by endpoint."""
        pool = self._source.snapshot()
        counts: dict[tuple[str, str], int] = {}
        present = {each.address for each in pool.endpoints}
        # An endpoint that left the pool stays until its last request is over.
        for address in (*present, *(self._in_flight.keys() - present)):
            label, version = self._labels.of(address, pool) or (address, "")
            counts[version, label] = counts.get((version, label), 0) + self._in_flight.get(
                address, 0
            )
        flights = GaugeMetricFamily(
            f"{PREFIX}_in_flight",
            "Requests given to an endpoint and not over yet.",
            labels=("version", "endpoint"),
        )
        for key, count in counts.items():
            flights.add_metric(key, count)
        yield flights
        versions: dict[str, int] = {}
        for each in pool.endpoints:
            versions[each.version] = versions.get(each.version, 0) + 1
        endpoints = GaugeMetricFamily(
            f"{PREFIX}_endpoints", "Endpoints that may be picked.", labels=("version",)
        )
        for version, count in sorted(versions.items()):
            endpoints.add_metric((version,), count)
        yield endpoints
        for name, documentation in (
            ("llm_d_epp_ready_endpoints", f"The same as {PREFIX}_endpoints, of all versions."),
            ("inference_pool_ready_pods", f"The same as {PREFIX}_endpoints, of all versions."),
        ):
            ready = GaugeMetricFamily(name, documentation, labels=("name",))
            ready.add_metric((self._name,), len(pool.endpoints))
            yield ready


class ScrapeCollector(Collector):
    """What became of the endpoints' metrics pages."""

    def __init__(self, scraper: Scraper) -> None:
        """Read this scraper's counts."""
        self._scraper = scraper

    def collect(self) -> Iterator[Metric]:
        """Pages, failures, endpoints of unknown load."""
        counts = self._scraper.counts
        yield CounterMetricFamily(
            f"{PREFIX}_pages_read", "Metrics pages of endpoints that were read.", counts.pages
        )
        yield CounterMetricFamily(
            f"{PREFIX}_page_failures",
            "Metrics pages that were missing, late, too large or of no engine that is known.",
            counts.failures,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}_endpoints_unread",
            "Endpoints whose load is not known, because three of their pages in a row were of no "
            "use.",
            self._scraper.unread,
        )


class PickLogCollector(Collector):
    """What became of the pick log's lines."""

    def __init__(self, log: PickLog | None, pool: str = "") -> None:
        """Read this log's count of the pool's lines; None where there is no log."""
        self._log = log
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """Lines dropped."""
        yield CounterMetricFamily(
            f"{PREFIX}_pick_log_dropped",
            "Lines of the pick log that were not written: the disk was slower than the requests, "
            "or refused them.",
            0 if self._log is None else self._log.dropped[self._pool],
        )
