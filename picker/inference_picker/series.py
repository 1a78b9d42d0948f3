"""Counters and histograms that stay small and quick with a thousand endpoints.

prometheus_client keeps an object with a lock for each bucket of each label set: with a label for
the endpoint that is hundreds of megabytes, and a second of encoding in which nothing is picked.
Here a label set is one list of numbers, and the text is written piece by piece.

A process may serve several pools: each has families of its own, without a label for the pool, and
the page puts the pool in front of their labels.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})

LabelValues = tuple[str, ...]


class Family(Protocol):
    """What counters and histograms have in common."""

    name: str
    labels: Sequence[str]

    def head(self) -> str:
        """Help and type in Prometheus' text format."""
        ...

    def lines(self, front: str = "") -> Iterator[str]:
        """The samples, one piece for each label set; ``front`` goes before their labels."""
        ...

    def forget(self, gone: Callable[[LabelValues], bool]) -> None:
        """Drop the label sets for which ``gone`` is true."""
        ...

    def collect(self) -> Iterator[Metric]:
        """The family as prometheus_client knows it."""
        ...


class CounterFamily(Collector):
    """A counter by label values. ``name`` is without ``_total``."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        """Start empty."""
        self.name = name
        self.documentation = documentation
        self.labels = labels
        self.values: dict[LabelValues, float] = {}

    def inc(self, values: LabelValues, amount: float = 1.0) -> None:
        """Count."""
        self.values[values] = self.values.get(values, 0.0) + amount

    def forget(self, gone: Callable[[LabelValues], bool]) -> None:
        """Drop the label sets for which ``gone`` is true."""
        for values in [each for each in self.values if gone(each)]:
            del self.values[values]

    def collect(self) -> Iterator[Metric]:
        """The family as prometheus_client knows it."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self.labels)
        for values, count in self.values.items():
            family.add_metric(values, count)
        yield family

    def head(self) -> str:
        """Help and type in Prometheus' text format."""
        return _head(f"{self.name}_total", self.documentation, "counter")

    def lines(self, front: str = "") -> Iterator[str]:
        """The samples, one piece for each label set; ``front`` goes before their labels."""
        for values, count in list(self.values.items()):
            pairs = _pairs(self.labels, values, front)
            yield f"{self.name}_total{_braced(pairs)} {_number(count)}\n"


class HistogramFamily(Collector):
    """A histogram by label values, with the same bounds for all."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        """``bounds`` are the finite upper bounds, ascending."""
        self.name = name
        self.documentation = documentation
        self.labels = labels
        self.bounds = tuple(bounds)
        self._edges = [_number(bound) for bound in self.bounds] + ["+Inf"]
        # Counts by bucket, the last without upper bound, then the sum of the values.
        self.cells: dict[LabelValues, list[float]] = {}

    def observe(self, values: LabelValues, value: float, times: int = 1) -> None:
        """Count a value."""
        cell = self.cells.get(values)
        if cell is None:
            cell = self.cells[values] = [0] * (len(self.bounds) + 1) + [0.0]
        cell[bisect_left(self.bounds, value)] += times
        cell[-1] += value * times

    def forget(self, gone: Callable[[LabelValues], bool]) -> None:
        """Drop the label sets for which ``gone`` is true."""
        for values in [each for each in self.cells if gone(each)]:
            del self.cells[values]

    def collect(self) -> Iterator[Metric]:
        """The family as prometheus_client knows it."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        for values, cell in self.cells.items():
            total = 0.0
            buckets: list[tuple[str, float]] = []
            for edge, count in zip(self._edges, cell, strict=False):
                total += count
                buckets.append((edge, total))
            family.add_metric(values, buckets=buckets, sum_value=cell[-1])
        yield family

    def head(self) -> str:
        """Help and type in Prometheus' text format."""
        return _head(self.name, self.documentation, "histogram")

    def lines(self, front: str = "") -> Iterator[str]:
        """The samples, one piece for each label set; ``front`` goes before their labels."""
        for values, cell in list(self.cells.items()):
            pairs = _pairs(self.labels, values, front)
            start = f'{self.name}_bucket{{{pairs}{"," if pairs else ""}le="'
            total = 0
            lines = []
            for edge, count in zip(self._edges, cell, strict=False):
                total += int(count)
                lines.append(f'{start}{edge}"}} {total}\n')
            lines.append(f"{self.name}_sum{_braced(pairs)} {_number(cell[-1])}\n")
            lines.append(f"{self.name}_count{_braced(pairs)} {total}\n")
            yield "".join(lines)


def _head(name: str, documentation: str, kind: str) -> str:
    return f"# HELP {name} {documentation.translate(_HELP_ESCAPES)}\n# TYPE {name} {kind}\n"


def _pairs(labels: Sequence[str], values: LabelValues, front: str) -> str:
    pairs = ",".join(
        _pair(label, value) for label, value in zip(labels, values, strict=True) if value
    )
    return f"{front},{pairs}" if front and pairs else front or pairs


def text(family: Family, front: str = "") -> str:
    """A whole family in Prometheus' text format."""
    return "".join((family.head(), *family.lines(front)))


def pool_front(pool: str) -> str:
    """The label of a pool, ``NS/NAME``, as it stands in front of the others; empty for none."""
    return _pair("pool", pool) if pool else ""


def _pair(label: str, value: str) -> str:
    # An empty label is the same as none: callers leave it out.
    return f'{label}="{value.translate(_ESCAPES)}"'


def _braced(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return repr(float(value))
