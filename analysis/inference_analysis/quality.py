"""The comparison of answers to the same prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.comparisons import TComparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.observations import FloatArray, Prompt

LEAST_PROMPTS = 10
LEAST_TOPICS = 8
"""Below this many topics a clustered variance is worse than none."""


def losses(prompts: Sequence[Prompt]) -> FloatArray:
    """(N,) mean stable score minus mean canary score of each prompt."""
    return np.array([np.mean(p.stable) - np.mean(p.canary) for p in prompts], dtype=np.float64)


def compare_quality(prompts: Sequence[Prompt]) -> TComparison | None:
    """Paired t test over prompts; None with fewer than ten of them.

    The unit is the prompt: its repeated answers are averaged first. Treating them as independent
    rejects .10-.15 instead of .05 once a version suits some prompts better than others.

    With equal weights and no topics it is ``scipy.stats.ttest_1samp`` on the losses. With weights
    w the estimate is sum(w d) / sum(w) and its variance n / (n - 1) * sum(w^2 (d - mean)^2) /
    sum(w)^2. With eight topics or more, sums run over topics (Miller 2024, arXiv 2411.00640,
    section 2.2) and the larger of both variances counts, on topics - 1 degrees of freedom.
    """
    if len(prompts) < LEAST_PROMPTS:
        return None
    loss = losses(prompts)
    weight = np.array([p.weight for p in prompts], dtype=np.float64)
    total = weight.sum()
    estimate = float(weight @ loss / total)
    residual = weight * (loss - estimate)
    n = len(prompts)
    variance = float((residual**2).sum() / total**2) * n / (n - 1)
    df, method = float(n - 1), "paired t over prompts"
    names, position = np.unique([p.topic for p in prompts], return_inverse=True)
    if len(names) >= LEAST_TOPICS:
        sums = np.bincount(position, weights=residual)
        groups = len(names)
        clustered = float((sums**2).sum() / total**2) * groups / (groups - 1)
        if clustered > variance:
            variance, df = clustered, float(groups - 1)
            method = "paired t over prompts, clustered by topic"
    return TComparison(
        estimate=estimate,
        se=max(float(np.sqrt(variance)), 1e-9),
        df=df,
        n_canary=n,
        n_stable=n,
        unit="prompt",
        method=method,
        between_variance=0.0,
        sampling_variance=variance * n,
    )
