"""Pod effects of a latency histogram: its mean, and its share above one bucket edge.

Both are exact. Quantiles are not: vLLM's buckets read a true +10 % of the 99th percentile as
anything between +2 % and +38 %, so they never decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.pairs import batch_effects
from inference_analysis.standardisation import pod_effects

if TYPE_CHECKING:
    from inference_analysis.observations import BoolArray, FloatArray, Histogram
    from inference_analysis.standardisation import PodEffects

TAIL_SHARE = 0.02
"""The tail gate looks at the edge above which stable has about this share of its requests."""


def mean_effects(
    histogram: Histogram,
    usable: BoolArray,
    canary: BoolArray,
    strata: FloatArray,
    *,
    seconds: float | None = None,
) -> PodEffects:
    """log(observed / expected) of the mean, per pod.

    With the windows' length in ``seconds``, batches of windows are the units instead.
    """
    counts = np.where(usable, histogram.count, 0.0)
    sums = np.where(usable, histogram.sum, 0.0)
    if seconds is not None:
        return batch_effects(sums, counts, canary, strata, seconds=seconds)
    return pod_effects(
        sums,
        counts,
        canary,
        strata,
        variation=(
            squared_variation(histogram, usable & ~canary[:, None]),
            squared_variation(histogram, usable & canary[:, None]),
        ),
    )


def tail_effects(
    histogram: Histogram,
    edge: int,
    usable: BoolArray,
    canary: BoolArray,
    strata: FloatArray,
    *,
    seconds: float | None = None,
) -> PodEffects:
    """log((observed + .5) / (expected + .5)) of the requests above edge number ``edge``."""
    counts = np.where(usable, histogram.count, 0.0)
    above = np.where(usable, histogram.buckets[:, :, edge + 1 :].sum(axis=2), 0.0)
    if seconds is not None:
        return batch_effects(above, counts, canary, strata, seconds=seconds, added=0.5)
    share = float(above[~canary].sum() / max(counts[~canary].sum(), 1.0))
    variation = (1.0 - share) / max(share, 1e-6)
    return pod_effects(above, counts, canary, strata, variation=(variation, variation), added=0.5)


def squared_variation(histogram: Histogram, cells: BoolArray) -> float:
    """Squared coefficient of variation of one request, from bucket midpoints.

    The open bucket counts at 1.5 times the last edge.
    """
    per_bucket = histogram.buckets[cells].sum(axis=0, dtype=np.float64)
    n = per_bucket.sum()
    if not n:
        return 0.0
    lower = np.concatenate(([0.0], histogram.le))
    upper = np.concatenate((histogram.le, [2.0 * histogram.le[-1]]))
    middle = 0.5 * (lower + upper)
    mean = per_bucket @ middle / n
    return float(max(per_bucket @ middle**2 / n / mean**2 - 1.0, 0.0)) if mean > 0 else 0.0


def tail_edge(histogram: Histogram, stable_cells: BoolArray) -> int | None:
    """Number of the edge whose share above is nearest 2 % in stable, or None without any.

    Only stable's data choose it.
    """
    shares = shares_above(histogram, stable_cells)
    open_to = np.flatnonzero((shares > 0) & (shares < 1))
    if not open_to.size:
        return None
    return int(open_to[np.argmin(np.abs(np.log(shares[open_to] / TAIL_SHARE)))])


def shares_above(histogram: Histogram, cells: BoolArray) -> FloatArray:
    """(B,) share of the requests above each edge."""
    per_bucket = histogram.buckets[cells].sum(axis=0, dtype=np.float64)
    n = per_bucket.sum()
    if not n:
        return np.zeros(len(histogram.le))
    result: FloatArray = 1.0 - np.cumsum(per_bucket)[:-1] / n
    return np.maximum(result, 0.0)


def tail_margin(shares: FloatArray, le: FloatArray, edge: int, slowdown: float) -> float:
    """log(p(e / (1 + slowdown)) / p(e)): what a uniform slowdown does to the share above e.

    p between two edges is log-linear in log e; ``shares`` is (B,), stable's own. The bucket below
    the first edge has no lower edge; there the next bucket's slope goes on.
    """
    low = edge - 1 if edge > 0 else 0
    high = low + 1
    if high >= len(le) or shares[low] <= 0 or shares[high] <= 0 or le[low] <= 0:
        return float(np.log1p(slowdown))
    slope = np.log(shares[low] / shares[high]) / np.log(le[high] / le[low])
    target = le[edge] / (1.0 + slowdown)
    if edge > 0 and target < le[low]:
        beyond = tail_margin(shares, le, low, le[low] / target - 1.0)
        return float(slope * np.log(le[edge] / le[low]) + beyond)
    return float(min(slope * np.log1p(slowdown), -np.log(shares[edge])))
