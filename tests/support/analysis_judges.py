"""How others judge a canary: per-request Mann-Whitney, a ratio of quantiles, Kayenta's judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

if TYPE_CHECKING:
    from inference_analysis.observations import BoolArray, Histogram, Observations

_Z99 = 2.3263478740408408
"""Kayenta's confidence level of .98, two-sided."""
_TOLERANCE = 0.25
_LEVEL = 0.05


def mann_whitney_p(data: Observations, histogram: Histogram) -> float:
    """One-sided normal-approximation p on all requests, tied within buckets."""
    x = histogram.buckets[data.canary].sum(axis=(0, 1)).astype(float)
    y = histogram.buckets[~data.canary].sum(axis=(0, 1)).astype(float)
    n, m, both = x.sum(), y.sum(), x + y
    below = np.cumsum(y) - y
    u = float(x @ (below + 0.5 * y))
    ties = float((both**3 - both).sum()) / ((n + m) * (n + m - 1))
    variance = n * m / 12.0 * ((n + m + 1) - ties)
    if not variance > 0.0:  # all in one bucket, or an arm without requests
        return 1.0
    return float(ndtr(-(u - n * m / 2.0) / np.sqrt(variance)))


def bucket_quantile(histogram: Histogram, cells: BoolArray, share: float) -> float:
    """A quantile as Prometheus' histogram_quantile reads it: linear within its bucket."""
    per_bucket = histogram.buckets[cells].sum(axis=0).astype(float)
    below = np.cumsum(per_bucket)
    rank = share * below[-1]
    bucket = int(np.searchsorted(below, rank))
    if bucket >= len(histogram.le):
        return float(histogram.le[-1])
    low = histogram.le[bucket - 1] if bucket else 0.0
    inside = (rank - (below[bucket - 1] if bucket else 0.0)) / per_bucket[bucket]
    return float(low + (histogram.le[bucket] - low) * inside)


def ratio_gate_fails(data: Observations, histogram: Histogram) -> bool:
    """ "p99 ratio > 1.10" over 5-minute ranges, 12 measurements, failureLimit 2."""
    times = np.arange(data.start_s.size)
    above = 0
    for end in np.linspace(5, data.start_s.size, 12).round().astype(int):
        seen = (times >= end - 5) & (times < end)
        canary, stable = (
            bucket_quantile(histogram, arm[:, None] & seen, 0.99)
            for arm in (data.canary, ~data.canary)
        )
        above += canary > 1.1 * stable
    return above > 2


def kayenta_fails(data: Observations, histogram: Histogram) -> bool:
    """Whether Kayenta's NetflixACAJudge calls a metric High (increase is bad, critical metric).

    Mann-Whitney on one value an arm and minute, here the mean: "High" when the lower confidence
    bound of the location shift is above .25 times the estimated shift, and the means' ratio is at
    least 1, the default allowed increase (kayenta-judge MannWhitneyClassifier.scala: tolerance .25,
    confLevel .98). Bound and estimate are those of the Hodges-Lehmann shift.
    """
    canary = data.canary
    counts = np.where(data.usable, histogram.count, 0.0)
    sums = np.where(data.usable, histogram.sum, 0.0)
    series = []
    for arm in (canary, ~canary):
        n = counts[arm].sum(axis=0)
        series.append(sums[arm].sum(axis=0)[n > 0] / n[n > 0])
    x, y = series
    m, n = len(x), len(y)
    if not m or not n:
        return False
    shifts = np.sort((x[:, None] - y[None, :]).ravel())
    spread = _Z99 * np.sqrt(m * n * (m + n + 1) / 12.0)
    lower = shifts[max(int(np.floor(m * n / 2.0 - spread - 0.5)), 0)]
    estimate = float(np.median(shifts))
    return bool(lower > _TOLERANCE * abs(estimate) and x.mean() >= y.mean())


OTHERS = ("Mann-Whitney", "p99 ratio", "Kayenta")


def judged(data: Observations, histogram: Histogram) -> dict[str, bool]:
    """What each of these rules says of one metric of a whole run: True fails the canary."""
    verdicts = (
        mann_whitney_p(data, histogram) <= _LEVEL,
        ratio_gate_fails(data, histogram),
        kayenta_fails(data, histogram),
    )
    return dict(zip(OTHERS, verdicts, strict=True))
