"""Comparisons where canary and reference share their pods: two adapters of one model server.

What a pod does to one adapter it does to the other, so each pod is its own control: the effect of a
pod is the log ratio of its canary adapter to its control adapter, and a one-sample t test over pods
holds however much pods differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.comparisons import PRIOR_DF_CAP, PRIOR_INFLATION, TComparison
from inference_analysis.standardisation import (
    LEAST_POD_REQUESTS,
    PodEffects,
    expectations,
    merged_windows,
)

if TYPE_CHECKING:
    from inference_analysis.observations import BoolArray, FloatArray
    from inference_analysis.policies import Prior

LEAST_PAIRS = 4
BATCHES = 5
LEAST_WINDOWS = 60
"""Twelve windows a batch: shorter batches depend on each other (.080 for .05 at rho = .8)."""
MOST_CORRELATED = 0.6
WIDE_WINDOW_S = 120.0


def compare_pairs(
    effects: PodEffects,
    *,
    prior: Prior | None = None,
    added_variance: float = 0.0,
    least: int = LEAST_PAIRS,
    unit: str = "pod x adapter",
) -> TComparison | None:
    """One-sample t test of the pairs' log ratios; None with fewer than ``least`` of them.

    ``scipy.stats.ttest_1samp`` on the effects of the canary entries, on n - 1 degrees of freedom.
    ``prior`` moderates the variance as for pods, with twice the sampling variance of one entry,
    because the control has as many requests; that is more than pairs differ by, never less.
    """
    found = effects.effect[effects.canary]
    n = len(found)
    df = float(n - 1)
    if n < least or (df < 1.0 and prior is None):
        return None
    sampling = float(effects.sampling_variance[effects.canary].mean())
    variance = float(found.var(ddof=1)) if n > 1 else 0.0
    method = f"paired t over {unit}"
    if prior is not None:
        nu0 = float(min(max(prior.pods - 1, 1), PRIOR_DF_CAP))
        expected = (PRIOR_INFLATION * prior.sd) ** 2 + 2.0 * sampling
        variance = (nu0 * expected + df * variance) / (nu0 + df)
        df += nu0
        method += ", moderated"
    return TComparison(
        estimate=float(found.mean()),
        se=max(float(np.sqrt(variance / n + added_variance)), 1e-12),
        df=df,
        n_canary=n,
        n_stable=n,
        unit=unit,
        method=method,
        between_variance=max(0.0, variance - 2.0 * sampling),
        sampling_variance=sampling,
        stable_sampling_variance=sampling,
    )


def batch_effects(
    outcome: FloatArray,
    requests: FloatArray,
    canary: BoolArray,
    strata: FloatArray,
    *,
    seconds: float,
    added: float = 0.0,
) -> PodEffects:
    """Five batches of windows as units, for a single source or very few pods.

    Each batch's effect is log(observed / expected) of the canary over all its windows, expected
    from the control in the same windows of the same pod. None of them where there are fewer than
    sixty windows, or where neighbouring windows are so alike (lag-1 correlation above .6 in windows
    shorter than two minutes) that batches of twelve would be too.
    """
    matrix = merged_windows(requests[canary].sum(axis=0), requests[~canary].sum(axis=0))
    windows = matrix.shape[1]
    if windows < LEAST_WINDOWS:
        return _units(np.zeros(0), np.zeros(0))
    merged, counts = outcome @ matrix, requests @ matrix
    observed, expected, compared = (np.zeros(windows) for _ in range(3))
    for w in range(windows):
        o, e, n = expectations(merged[:, [w]], counts[:, [w]], canary, strata)
        observed[w], expected[w], compared[w] = (part[canary].sum() for part in (o, e, n))
    held = (observed > 0) & (expected > 0)
    single = np.log(observed[held] / expected[held])
    if seconds < WIDE_WINDOW_S and _correlation(single) > MOST_CORRELATED:
        return _units(np.zeros(0), np.zeros(0))
    parts = np.array_split(np.arange(windows), BATCHES)
    sums = [np.array([values[part].sum() for part in parts]) for values in (observed, expected)]
    effect = np.log((sums[0] + added) / np.maximum(sums[1] + added, 1e-300))
    enough = np.array([compared[part].sum() for part in parts]) >= LEAST_POD_REQUESTS
    enough &= (sums[0] + added > 0) & (sums[1] + added > 0)
    return _units(effect[enough], np.array([compared[part].sum() for part in parts])[enough])


def _correlation(values: FloatArray) -> float:
    centred = values - values.mean()
    squares = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / squares if squares > 0 else 0.0


def _units(effect: FloatArray, requests: FloatArray) -> PodEffects:
    size = len(effect)
    return PodEffects(
        index=np.zeros(size),
        effect=effect,
        sampling_variance=np.zeros(size),
        live=np.ones(size),
        canary=np.ones(size, dtype=np.bool_),
        stratum=np.zeros(size),
        requests=requests,
    )
