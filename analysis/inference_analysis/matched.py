"""A matched control: the canary against its control, with the spread of all other stable pods.

Inside one pool the reference is a control sample that a few stable pods serve, as many as the
canary has. That makes the arms alike (a small part of a pool evens out less than the rest of it),
but one or two control pods say nothing about how much pods differ. The rest of stable does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.comparisons import (
    LEAST_STABLE_PODS,
    PRIOR_DF_CAP,
    PRIOR_INFLATION,
    TComparison,
)
from inference_analysis.standardisation import LEAST_POD_REQUESTS, expectations

if TYPE_CHECKING:
    from inference_analysis.observations import FloatArray
    from inference_analysis.policies import Prior
    from inference_analysis.standardisation import PodEffects


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What pods of stable differ by, from its background requests."""

    variance: float
    df: float
    sampling: float
    """Mean sampling variance of these pods."""
    control_pods: int
    control_sampling: float
    """Sampling variance of a control pod."""


def spread_of(
    outcome: FloatArray,
    requests: FloatArray,
    control: FloatArray,
    *,
    variation: float,
    added: float = 0.0,
) -> Spread | None:
    """The spread between pods; None with fewer than three of them, or without a control pod.

    ``outcome`` and ``requests`` are (P, W) of the background, ``control`` is the number of control
    requests of each of its pods, ``variation`` the squared coefficient of variation of a request.
    """
    nobody = np.zeros(len(requests), dtype=np.bool_)
    strata = np.zeros(len(requests))
    observed, expected, compared = expectations(outcome, requests, nobody, strata)
    held = (compared >= LEAST_POD_REQUESTS) & (observed + added > 0) & (expected + added > 0)
    m = int(held.sum())
    served = control[control >= LEAST_POD_REQUESTS]
    if m < LEAST_STABLE_PODS or not served.size:
        return None
    effect = np.log((observed[held] + added) / (expected[held] + added)) * (m - 1) / m
    return Spread(
        variance=float(effect.var(ddof=1)),
        df=float(m - 1),
        sampling=float((variation / compared[held]).mean()),
        control_pods=int(served.size),
        control_sampling=float((variation / served).mean()),
    )


def compare_matched(
    effects: PodEffects, spread: Spread, *, prior: Prior | None = None, added_variance: float = 0.0
) -> TComparison | None:
    """T test of canary pods against the control's rate.

    - estimate = mean of log(observed / expected) of the canary pods, expected from the control;
    - SE^2 = (s2 * f + max(0, v_C - v)) / m_C + (s2 + max(0, v_K - v)) / m_K, s2 and v between the
      background's pods, v_C and v_K the sampling variances of a canary and a control pod, f as for
      pods; df = m - 1 of the background, more with a ``prior`` (as `compare_pods`).
    """
    found = effects.effect[effects.canary]
    if not found.size:
        return None
    variance, df, method = spread.variance, spread.df, "pod t, matched control"
    if prior is not None:
        nu0 = float(min(max(prior.pods - 1, 1), PRIOR_DF_CAP))
        expected = (PRIOR_INFLATION * prior.sd) ** 2 + spread.sampling
        variance = (nu0 * expected + df * variance) / (nu0 + df)
        df += nu0
        method += ", moderated"
    v_canary = float(effects.sampling_variance[effects.canary].mean())
    late = float((0.5 + 0.5 / effects.live[effects.canary]).mean())
    of_canary = variance * late + max(0.0, v_canary - spread.sampling)
    of_control = variance + max(0.0, spread.control_sampling - spread.sampling)
    squared = of_canary / found.size + of_control / spread.control_pods + added_variance
    return TComparison(
        estimate=float(found.mean()),
        se=max(float(np.sqrt(squared)), 1e-12),
        df=df,
        n_canary=int(found.size),
        n_stable=spread.control_pods,
        unit="pod",
        method=method,
        between_variance=max(0.0, variance - spread.sampling),
        sampling_variance=v_canary,
        stable_sampling_variance=spread.control_sampling,
    )
