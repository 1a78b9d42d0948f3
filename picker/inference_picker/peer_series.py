"""llm-d-router's names for what a pool's state means here as well, so that dashboards go on.

Names and labels: llm-d-router, pkg/epp/metrics; the older ones are those of the Gateway API
Inference Extension, which it still writes beside them. Its series of requests are in `metrics`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from inference_picker.director import Director
    from inference_picker.labels import EndpointLabels
    from inference_picker.ranking import Floats
    from inference_picker.series import CounterFamily

_NEW = "llm_d_epp"
_POOL = "inference_pool"
_EXTENSION = "inference_extension"


class PeerCollector(Collector):
    """Reads the director when it is asked."""

    def __init__(
        self,
        director: Director,
        *,
        labels: EndpointLabels,
        picks: CounterFamily,
        name: str,
        namespace: str,
    ) -> None:
        """``picks`` counts by version, endpoint and target; name and namespace are the pool's."""
        self._director = director
        self._labels = labels
        self._picks = picks
        self._name = name
        self._namespace = namespace

    def collect(self) -> Iterator[Metric]:
        """Means over the pages that were read, queues, attempts, saturation, prefix index."""
        pods = self._director.read_pods()
        for name, what, values in (
            ("average_kv_cache_utilization", "KV cache usage, 0 to 1", pods.kv_usage),
            ("average_queue_size", "queue length", pods.waiting),
            ("average_running_requests", "running requests", pods.running),
        ):
            for prefix in (_NEW, _POOL):
                yield self._mean(f"{prefix}_{name}", what, values)
        queues = self._queues()
        for name, label in (
            (f"{_NEW}_per_endpoint_queue_size", "model_server_endpoint"),
            (f"{_POOL}_per_pod_queue_size", "model_server_pod"),
        ):
            family = GaugeMetricFamily(
                name, "Queue length by the endpoint's metrics page.", labels=("name", label)
            )
            for endpoint, waiting in queues.items():
                family.add_metric((self._name, endpoint), waiting)
            yield family
        yield from self._attempts()
        admission = self._director.admission
        for prefix in (_NEW, _EXTENSION):
            for name, what, value in (
                ("flow_control_pool_saturation", "saturation", admission.saturation),
                ("flow_control_queue_size", "queued_requests", admission.queued),
            ):
                family = GaugeMetricFamily(
                    f"{prefix}_{name}",
                    f"The same as inference_picker_{what}.",
                    labels=("inference_pool",),
                )
                family.add_metric((self._name,), value)
                yield family
            yield GaugeMetricFamily(
                f"{prefix}_prefix_indexer_size",
                "The same as inference_picker_prefix_index_blocks.",
                len(self._director.scheduler.index),
            )

    def _mean(self, name: str, what: str, values: Floats) -> Metric:
        family = GaugeMetricFamily(
            name,
            f"Mean {what} of the endpoints whose metrics page was read.",
            labels=("name",),
        )
        if len(values):
            family.add_metric((self._name,), float(values.mean()))
        return family

    def _queues(self) -> Counter[str]:
        pool, pods = self._director.pool, self._director.read_pods()
        queues: Counter[str] = Counter()
        for endpoint, waiting in zip(pods.endpoints, pods.waiting.tolist(), strict=True):
            label, _ = self._labels.of(endpoint.address, pool) or (endpoint.address, "")
            queues[label] += waiting
        return queues

    def _attempts(self) -> Iterator[Metric]:
        picks: Counter[tuple[str, str]] = Counter()
        for (_version, endpoint, target), count in self._picks.values.items():
            picks[target, endpoint] += int(count)
        for prefix, label in ((_NEW, "endpoint_name"), (_EXTENSION, "pod_name")):
            family = CounterMetricFamily(
                f"{prefix}_scheduler_attempts",
                "The same as inference_picker_picks_total, of all versions.",
                labels=("status", "target_model_name", label, "namespace", "port"),
            )
            for (target, endpoint), count in picks.items():
                pod, _, port = endpoint.rpartition(":") if ":" in endpoint else (endpoint, "", "")
                family.add_metric(("success", target, pod, self._namespace, port), count)
            yield family
