"""Series about the shares of versions: what is wanted, what found no room, and an alarm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from inference_picker.holding import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from inference_picker.pool import Source

_PREFIX: Final = "inference_picker"


class SharesCollector(Collector):
    """Read from the pool when they are asked for. The served shares are in the picks' counter."""

    def __init__(self, *, source: Source, unmet: Mapping[tuple[str, str], int]) -> None:
        """``unmet`` counts requests by the version that could not take them, and by why."""
        self._source = source
        self._unmet = unmet

    def collect(self) -> Iterator[Metric]:
        """Wanted share by version, requests without room, and the state of the annotation."""
        held = self._source.snapshot().held
        wanted = GaugeMetricFamily(
            f"{_PREFIX}_wanted_share",
            "Part of the requests that a version is to get, 0 to 1. No series: not divided.",
            labels=("version",),
        )
        for version in sorted(held.shares.weights) if held.shares is not None else ():
            wanted.add_metric((version,), held.shares.share(version) if held.shares else 0.0)
        yield wanted
        unmet = CounterMetricFamily(
            f"{_PREFIX}_share_unmet",
            "Requests that stable got because the version drawn for them had no room (reason full) "
            "or only endpoints that are left out for their errors (ejected).",
            labels=("version", "reason"),
        )
        for labels, count in sorted(self._unmet.items()):
            unmet.add_metric(labels, count)
        yield unmet
        state = GaugeMetricFamily(
            f"{_PREFIX}_shares_state",
            "1 for what becomes of the pool's shares annotation. kept and refused want a look.",
            labels=("state",),
        )
        for each in State:
            state.add_metric((each.value,), 1.0 if held.state is each else 0.0)
        yield state
