"""How others judge a canary: per-request Mann-Whitney, a ratio of quantiles, Kayenta's judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

if TYPE_CHECKING:
    from inference_analysis.observations import Histogram, Observations

_Z99 = 2.3263478740408408
"""Kayenta's confidence level of .98, two-sided."""
_TOLERANCE = 0.25


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


def ratio_gate_fails(data: Observations, histogram: Histogram) -> bool:
    """ "p99 ratio > 1.10" over 5-minute ranges, 12 measurements, failureLimit 2."""

    def p99(arm: np.ndarray, begin: int, end: int) -> float:
        per_bucket = histogram.buckets[arm, begin:end].sum(axis=(0, 1)).astype(float)
        below = np.cumsum(per_bucket)
        rank = 0.99 * below[-1]
        bucket = int(np.searchsorted(below, rank))
        if bucket >= len(histogram.le):
            return float(histogram.le[-1])
        low = histogram.le[bucket - 1] if bucket else 0.0
        inside = (rank - (below[bucket - 1] if bucket else 0.0)) / per_bucket[bucket]
        return float(low + (histogram.le[bucket] - low) * inside)

    width = data.start_s.size
    ends = np.linspace(5, width, 12).round().astype(int)
    above = [p99(data.canary, e - 5, e) > 1.1 * p99(~data.canary, e - 5, e) for e in ends]
    return sum(above) > 2


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
