"""Series about the scheduler itself: who is out, who waits, how full the pool is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from inference_picker.director import Director
    from inference_picker.pool import Source

_PREFIX: Final = "inference_picker"


class SchedulingCollector(Collector):
    """Reads the director and its source when it is asked."""

    def __init__(self, director: Director, source: Source) -> None:
        """Read these two."""
        self._director = director
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Staleness, ejected endpoints, saturation, queue, prefix index."""
        director, pool = self._director, self._source.snapshot()
        yield GaugeMetricFamily(
            f"{_PREFIX}_source_staleness_seconds",
            "Seconds since the API server, or the file of endpoints, could last be read; 0 while "
            "it can.",
            self._source.staleness_s() or 0.0,
        )
        ejected = director.scheduler.ejector.ejected
        versions = Counter({each.version: 0 for each in pool.endpoints})
        versions.update(each.version for each in pool.endpoints if each.address in ejected)
        family = GaugeMetricFamily(
            f"{_PREFIX}_ejected_endpoints",
            "Endpoints that are left out for their errors.",
            labels=("version",),
        )
        for version, count in sorted(versions.items()):
            family.add_metric((version,), count)
        yield family
        yield GaugeMetricFamily(
            f"{_PREFIX}_saturation",
            "How full the pool is by queues and KV caches: from 1 on sheddable requests are "
            "turned away and others wait, where flow control is on.",
            director.admission.saturation,
        )
        yield GaugeMetricFamily(
            f"{_PREFIX}_queued_requests",
            "Requests that wait for room, where flow control is on.",
            director.admission.queued,
        )
        yield GaugeMetricFamily(
            f"{_PREFIX}_prefix_index_blocks",
            "Blocks of prompts that endpoints are believed to have in their caches.",
            len(director.scheduler.index),
        )
