"""Counters of one scrape target as tables, checked: no NaN, no buckets that make no sense.

A table's rows are scrapes and its columns are counters. Everything of one target is scraped at
once, so that a row is consistent in itself and increments between any two rows add up.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from inference_analysis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from inference_analysis.observations import BoolArray, FloatArray

INF: Final = float("inf")
COUNT: Final = "count"
SUM: Final = "sum"
_SERVER_LABELS: Final = frozenset(
    {
        *("__name__", "le", "engine", "engine_index", "model_name"),
        *("finished_reason", "finish_reason", "handler", "method", "status"),
    }
)
"""Labels that the model server itself sets: series that differ in these are parts of one target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series with its raw samples."""

    name: str
    labels: Mapping[str, str]
    times: FloatArray
    """(T,) seconds since the epoch, ascending."""
    values: FloatArray
    """(T,)."""
    native: bool = False
    """A native histogram, whose samples are not in ``values``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All counters of one target and one metric."""

    times: FloatArray
    """(T,) scrapes, ascending."""
    columns: tuple[Hashable, ...]
    values: FloatArray
    """(T, K)."""

    @property
    def gap_s(self) -> float:
        """Longest pause between two scrapes that is no gap: 2.5 scrape intervals, at least 5 s."""
        if self.times.size < 2:  # noqa: PLR2004 - one scrape has no interval
            return 0.0
        return max(2.5 * self.interval_s, 5.0)

    @property
    def interval_s(self) -> float:
        """Median time between scrapes, or 0 with fewer than two."""
        return float(np.median(np.diff(self.times))) if self.times.size > 1 else 0.0

    @property
    def resets(self) -> BoolArray:
        """(T,) rows in which a counter is lower than in the row before: the server restarted."""
        found = np.zeros(self.times.size, dtype=np.bool_)
        found[1:] = (np.diff(self.values, axis=0) < 0).any(axis=1)
        return found


def series(result: Iterable[Mapping[str, Any]]) -> list[Series]:
    """The ``data.result`` of a matrix.

    Raises InputError for a sample that is no count: NaN, infinite or negative.
    """
    found = []
    for entry in result:
        labels = dict(entry["metric"])
        samples = entry.get("values", [])
        times = np.array([sample[0] for sample in samples], dtype=np.float64)
        values = np.array([sample[1] for sample in samples], dtype=np.float64)
        name = labels.get("__name__", "")
        wrong = np.flatnonzero(~np.isfinite(values) | (values < 0))
        if wrong.size:
            raise InputError(
                f"{_shown(labels)} is {values[wrong[0]]:g} at {times[wrong[0]]:.3f}: expected a "
                "count of at least 0. The exporter is broken, or a recording rule has this name"
            )
        found.append(
            Series(
                name=name,
                labels=labels,
                times=times,
                values=values,
                native="histograms" in entry and not samples,
            )
        )
    return found


def targets(found: Iterable[Series]) -> tuple[list[list[Series]], int]:
    """Series by scrape target, and how many targets were duplicates.

    Replicas of Prometheus, or two jobs that scrape one address, give the same counters twice, with
    the same ``instance``; the copy with most samples is kept. Different instances in one pod are
    different servers (data parallelism) and all are kept. Of one instance, what has the same
    timestamps comes from one scrape and belongs together, whatever labels it has.
    """
    instances: dict[str, dict[tuple[tuple[str, str], ...], list[Series]]] = defaultdict(dict)
    for item in found:
        identity = tuple(sorted((k, v) for k, v in item.labels.items() if k not in _SERVER_LABELS))
        instances[item.labels.get("instance", "")].setdefault(identity, []).append(item)
    kept = []
    duplicates = 0
    for instance in sorted(instances):
        copies: list[tuple[FloatArray, list[Series]]] = []
        for identity in sorted(instances[instance]):
            items = instances[instance][identity]
            times = np.unique(np.concatenate([item.times for item in items]))
            for at, (others, group) in enumerate(copies):
                shared = np.intersect1d(others, times, assume_unique=True).size
                if shared > min(others.size, times.size) / 2:
                    copies[at] = np.union1d(others, times), [*group, *items]
                    break
            else:
                copies.append((times, items))
        kept.append(max(copies, key=lambda copy: copy[0].size)[1])
        duplicates += len(copies) - 1
    return kept, duplicates


def table(found: Sequence[Series], column: Callable[[Series], Hashable | None]) -> Table:
    """Sums of one target's series by column; None leaves a series out.

    A series that begins later (the first error) was 0 before.
    """
    used = [(key, item) for item in found if (key := column(item)) is not None]
    times = np.unique(np.concatenate([item.times for _, item in used] or [np.zeros(0)]))
    columns = tuple(dict.fromkeys(key for key, _ in used))
    values = np.zeros((times.size, len(columns)))
    for key, item in used:
        values[np.searchsorted(times, item.times), columns.index(key)] += item.values
    return Table(times=times, columns=columns, values=values)


def histogram_table(found: Sequence[Series]) -> Table:
    """Columns: the cumulated buckets by ascending edge, the last +Inf, then the sum.

    Raises InputError for buckets that are no histogram.
    """

    def column(item: Series) -> Hashable | None:
        if item.name.endswith("_bucket"):
            try:
                return float(item.labels.get("le", ""))
            except ValueError:
                raise InputError(
                    f"{_shown(item.labels)}: le is no number. Expected a bucket's upper edge"
                ) from None
        if item.name.endswith("_sum"):
            return SUM
        return COUNT if item.name.endswith("_count") else None

    raw = table(found, column)
    label = _shown({k: v for k, v in found[0].labels.items() if k != "le"})
    edges = sorted(key for key in raw.columns if isinstance(key, float))
    missing = [name for name in (SUM, COUNT) if name not in raw.columns]
    if missing or INF not in edges or len(edges) < 2:  # noqa: PLR2004 - +Inf and a finite one
        lacking = [f"_{name}" for name in missing]
        lacking += [] if INF in edges else ['_bucket{le="+Inf"}']
        lacking += [] if any(edge < INF for edge in edges) else ["_bucket with a finite le"]
        raise InputError(
            f"{label} has no {', '.join(lacking)}. Scrape whole histograms: does a "
            "metricRelabeling drop series?"
        )
    buckets = raw.values[:, [raw.columns.index(edge) for edge in edges]]
    falls = np.argwhere(np.diff(buckets, axis=1) < 0)
    if falls.size:
        row, at = falls[0]
        raise InputError(
            f"{label} at {raw.times[row]:.3f}: {buckets[row, at + 1]:g} observations up to "
            f"{edges[at + 1]:g}, but {buckets[row, at]:g} up to {edges[at]:g}. Buckets are "
            "cumulated, so this is no histogram; is a recording rule or a relabeling at work?"
        )
    count = raw.values[:, raw.columns.index(COUNT)]
    differs = np.flatnonzero(count != buckets[:, -1])
    if differs.size:
        row = differs[0]
        raise InputError(
            f"{label} at {raw.times[row]:.3f}: _count is {count[row]:g}, the +Inf bucket "
            f"{buckets[row, -1]:g}. They are equal in a histogram; are series dropped?"
        )
    total = raw.values[:, [raw.columns.index(SUM)]]
    return Table(times=raw.times, columns=(*edges, SUM), values=np.hstack([buckets, total]))


def _shown(labels: Mapping[str, str]) -> str:
    kept = ("pod", "instance", "le")
    inside = ", ".join(f'{key}="{labels[key]}"' for key in kept if key in labels)
    return f"{labels.get('__name__', '(no name)')}{{{inside}}}"
