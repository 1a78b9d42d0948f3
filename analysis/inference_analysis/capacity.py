"""Whether the canary would be full at a lower load, although it is as fast at this one.

Latencies compare at the load of the moment. What a request takes from the KV cache, and how often
requests are thrown out of it (preempted), tell how much load a pod still has room for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from inference_analysis.comparisons import compare_pods
from inference_analysis.confounders import Finding, Weight
from inference_analysis.proportions import binomial_sf
from inference_analysis.standardisation import pod_effects

if TYPE_CHECKING:
    from inference_analysis.observations import FloatArray, Observations

LEVEL: Final = 0.01
GAP: Final = 1.15
"""KV cache per request, canary to stable, from which on it is worth stopping for."""
LEAST_PREEMPTED: Final = 5
PREEMPTED_RATIO: Final = 2.0
_VARIATION: Final = 1.0
"""Squared coefficient of variation of one request's KV use: lengths are about exponential."""


def check_capacity(observations: Observations) -> list[Finding]:
    """KV cache per request and preemptions; each blocks a PASS, none can fail."""
    requests = _requests(observations)
    if requests is None:
        return []
    found = [_kv(observations, requests), _preemptions(observations, requests)]
    return [finding for finding in found if finding is not None]


def _requests(observations: Observations) -> FloatArray | None:
    if observations.requests is not None:
        return observations.requests.total
    if observations.histograms:
        return next(iter(observations.histograms.values())).count
    return None


def _kv(observations: Observations, requests: FloatArray) -> Finding | None:
    """Share of the cache times seconds held per request, pod by pod against concurrent stable.

    A pod is full where requests per second times this reaches 1, so its inverse is the load that
    a pod can take.
    """
    if observations.kv_usage is None:
        return None
    known = observations.usable & ~np.isnan(observations.kv_usage)
    held = np.where(known, observations.kv_usage, 0.0) * observations.seconds
    counts = np.where(known, requests, 0.0)
    canary = observations.canary
    if not (held[canary].sum() > 0 and held[~canary].sum() > 0):
        return None
    effects = pod_effects(
        held,
        counts,
        canary,
        np.zeros(len(observations.pods)),
        variation=(_VARIATION, _VARIATION),
    )
    comparison = compare_pods(effects)
    if comparison is None:
        return None
    ratio = float(np.exp(comparison.estimate))
    if ratio < GAP or comparison.harm_p(0.0) > LEVEL:
        return None
    return Finding(
        code="capacity",
        weight=Weight.BLOCKS_PASS,
        text=f"a request takes {ratio:.2f} times as much of the KV cache as on stable: a canary "
        f"pod is full at {1.0 / ratio:.0%} of a stable pod's load{_tokens(observations)}",
        remedy="run more canary pods before it gets all traffic, or find what takes the memory",
    )


def _preemptions(observations: Observations, requests: FloatArray) -> Finding | None:
    """Preempted requests, given all of both versions: the canary's share is binomial."""
    if observations.preemptions is None:
        return None
    usable, canary = observations.usable, observations.canary
    preempted = np.where(usable, observations.preemptions, 0.0)
    counts = np.where(usable, requests, 0.0)
    x, y = float(preempted[canary].sum()), float(preempted[~canary].sum())
    n, m = float(counts[canary].sum()), float(counts[~canary].sum())
    if x < LEAST_PREEMPTED or not n or not m or x * m < PREEMPTED_RATIO * y * n:
        return None
    if binomial_sf(round(x), round(x + y), n / (n + m)) > LEVEL:
        return None
    return Finding(
        code="preemptions",
        weight=Weight.BLOCKS_PASS,
        text=f"{1000 * x / n:.1f} of 1,000 requests are preempted on the canary, "
        f"{1000 * y / m:.1f} on stable: the KV cache is too small for its load"
        + _tokens(observations),
        remedy="give the canary more KV cache or more pods, or find what takes the memory",
    )


def _tokens(observations: Observations) -> str:
    """Tokens per second of one pod on both versions, in brackets."""
    if observations.generated_tokens is None:
        return ""
    known = observations.usable & ~np.isnan(observations.generated_tokens)
    made = np.where(known, observations.generated_tokens, 0.0)
    seconds = known * observations.seconds
    rates = [
        made[arm].sum() / max(float(seconds[arm].sum()), 1e-9)
        for arm in (observations.canary, ~observations.canary)
    ]
    return f" (canary {rates[0]:.0f}, stable {rates[1]:.0f} tokens/s and pod)"
