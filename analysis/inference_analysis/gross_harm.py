"""Harm so large that it must not wait for a planned look.

These checks run from the first requests on and in either mode. Their thresholds are far from
what chance or one slow pod does, so they spend little of the error budget (.01).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.policies import Prior
from inference_analysis.proportions import binomial_sf

if TYPE_CHECKING:
    from inference_analysis.matched import Spread
    from inference_analysis.observations import BoolArray, Histogram, Requests
    from inference_analysis.policies import Limit
    from inference_analysis.standardisation import PodEffects
    from inference_analysis.units import Units

DEFAULT_PRIOR = Prior(sd=0.10 / 1.2, pods=11)
"""s0 = 10 % on ten degrees of freedom, so that three stable pods suffice for a critical t of 3."""
LEAST_DF_POD = 11
LARGEST_ERROR = 0.12
"""Relative standard error of the canary's mean above which its ratio is not looked at: with heavy
tails the mean of few requests is far from normal."""
RATIOS = np.geomspace(2.4, 30.0, 24)
"""Alternatives of the e-process; 2.4 is 1.2 times the tolerated ratio."""
BLOCK = 2
"""Windows that count as one piece of evidence."""
LARGEST_FACTOR = 4.0
"""One block multiplies the evidence by no more, so that one burst of errors decides nothing."""
PERSISTENT_WINDOWS = 3
_LARGEST_LOG = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrossHarm:
    """One check: was it made, did it fire, and on what."""

    check: str
    fired: bool
    observed: float
    threshold: float
    p: float | None = None
    text: str = ""


def gross_latency(
    metric: str,
    effects: PodEffects,
    units: Units,
    *,
    ratio: float,
    alpha: float,
    least: int,
    prior: Prior | None,
    spread: Spread | None = None,
) -> GrossHarm | None:
    """Whether the canary is at least ``ratio`` times as slow, beyond chance; None with few data.

    Few: fewer than ``least`` canary requests, or so few for the metric's spread that the canary's
    mean is not known to 12 %.

    Fires when the estimated ratio reaches ``ratio`` and the moderated t test of "no slower"
    rejects at ``alpha``; the test never has fewer than ten degrees of freedom.
    """
    canary = effects.canary
    if effects.requests[canary].sum() < least:
        return None
    if effects.sampling_variance[canary].mean() / canary.sum() > LARGEST_ERROR**2:
        return None
    strong = prior if prior is not None and prior.pods >= LEAST_DF_POD else DEFAULT_PRIOR
    comparison = units.compare_gross(effects, strong, spread)
    if comparison is None:
        return None
    observed, p = float(np.exp(comparison.estimate)), comparison.harm_p(0.0)
    return GrossHarm(
        check=f"{metric} ratio",
        fired=bool(observed >= ratio and p <= alpha),
        observed=observed,
        threshold=ratio,
        p=p,
        text=f"{metric} is {observed:.2f} times stable's mean; {ratio:g} times is gross harm",
    )


def error_evidence(
    requests: Requests, usable: BoolArray, canary: BoolArray, *, tolerated: float
) -> float:
    """Largest value so far of the e-process against "error ratio at most ``tolerated``".

    e = mean over psi of the product over blocks b of min(L_b(psi), 4), with
    L_b(psi) = Bin(x_b; x_b + y_b, pi(psi)) / Bin(x_b; x_b + y_b, pi(tolerated)) and
    pi(r) = r * n_C / (r * n_C + n_S): given all errors of a block, the canary's share of them.
    Under the null hypothesis the product's expectation never exceeds 1, so by Ville's inequality
    P(ever >= 1 / alpha) <= alpha, at any number of looks. Cutting factors off at 4 keeps that.
    """
    total = np.where(usable, requests.total, 0.0)
    errors = np.where(usable, requests.errors, 0.0)
    width = total.shape[1]
    starts = np.arange(0, width, BLOCK)
    if not width:
        return 1.0

    def blocks(rows: BoolArray, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values[rows].sum(axis=0), starts)

    n_c, n_s = blocks(canary, total), blocks(~canary, total)
    x, y = blocks(canary, errors), blocks(~canary, errors)
    held = (n_c > 0) & (n_s > 0)
    n_c, n_s, x, y = n_c[held], n_s[held], x[held], y[held]
    if not x.size:
        return 1.0

    def log_likelihood(ratio: np.ndarray) -> np.ndarray:
        odds = ratio[:, None] * n_c / n_s
        result: np.ndarray = x * np.log(odds) - (x + y) * np.log1p(odds)
        return result

    factors = log_likelihood(RATIOS / 2.0 * tolerated) - log_likelihood(np.array([tolerated]))
    path = np.cumsum(np.minimum(factors, np.log(LARGEST_FACTOR)), axis=1)
    return float(np.exp(min(_largest(path) - np.log(len(RATIOS)), _LARGEST_LOG)))


def _largest(path: np.ndarray) -> float:
    """Largest over time of the log of the sum over ratios of exp(path)."""
    top = path.max(axis=0)
    result: float = np.max(top + np.log(np.exp(path - top).sum(axis=0)))
    return result


def gross_errors(
    requests: Requests,
    usable: BoolArray,
    canary: BoolArray,
    *,
    tolerated: float,
    alpha: float,
) -> GrossHarm:
    """Whether the canary fails more than ``tolerated`` times as often as stable."""
    evidence = error_evidence(requests, usable, canary, tolerated=tolerated)
    shares = []
    for arm in (canary, ~canary):
        total = np.where(usable, requests.total, 0.0)[arm].sum()
        shares.append(float(np.where(usable, requests.errors, 0.0)[arm].sum() / max(total, 1.0)))
    return GrossHarm(
        check="error ratio",
        fired=evidence >= 1.0 / alpha,
        observed=evidence,
        threshold=1.0 / alpha,
        p=min(1.0, 1.0 / evidence),
        text=f"{shares[0]:.2%} of the canary's requests fail, {shares[1]:.2%} of stable's; evidence"
        f" {evidence:.3g} of more than {tolerated:g} times as many, {1.0 / alpha:g} is gross harm",
    )


def error_limit(
    requests: Requests, usable: BoolArray, canary: BoolArray, *, limit: float, least: int
) -> GrossHarm | None:
    """Whether at least ``limit`` of the canary's requests fail in three windows running.

    Windows in which stable fails half as often as that do not count: the cause is elsewhere.
    """
    total = np.where(usable, requests.total, 0.0)
    errors = np.where(usable, requests.errors, 0.0)
    n, x = total[canary].sum(axis=0), errors[canary].sum(axis=0)
    n_stable, x_stable = total[~canary].sum(axis=0), errors[~canary].sum(axis=0)
    if n.sum() < least:
        return None
    seen = n > 0
    bad = (x >= limit * n) & (x_stable < 0.5 * limit * np.maximum(n_stable, 1.0))
    run = longest = 0
    for window in np.flatnonzero(seen):
        run = run + 1 if bad[window] else 0
        longest = max(longest, run)
    share = float(x.sum() / n.sum())
    enough = float(n[bad].sum()) >= least
    return GrossHarm(
        check="error limit",
        fired=bool(longest >= PERSISTENT_WINDOWS and enough),
        observed=share,
        threshold=limit,
        text=f"{share:.1%} of the canary's requests fail; {limit:.0%} in {PERSISTENT_WINDOWS} "
        "windows running is gross harm",
    )


def broken_limit(
    limit: Limit,
    histogram: Histogram,
    usable: BoolArray,
    canary: BoolArray,
    *,
    alpha: float,
    least: int,
) -> GrossHarm | None:
    """Whether the canary breaks an absolute promise that stable keeps; None with few data.

    Exact binomial test of the share above the limit's bucket edge at ``alpha``.

    Raises KeyError when no bucket edge equals the limit's seconds.
    """
    matches = np.flatnonzero(np.isclose(histogram.le, limit.seconds, rtol=1e-9))
    if not matches.size:
        raise KeyError(limit.seconds)
    edge = int(matches[0])
    above = np.where(usable, histogram.buckets[:, :, edge + 1 :].sum(axis=2), 0.0)
    count = np.where(usable, histogram.count, 0.0)
    n, x = float(count[canary].sum()), float(above[canary].sum())
    n_stable, x_stable = float(count[~canary].sum()), float(above[~canary].sum())
    if n < least:
        return None
    p = binomial_sf(x, n, limit.share)
    kept_by_stable = x_stable <= limit.share * n_stable
    return GrossHarm(
        check=f"{limit.metric} limit",
        fired=bool(p <= alpha and kept_by_stable),
        observed=x / n,
        threshold=limit.share,
        p=p,
        text=f"{x / n:.1%} of the canary's {limit.metric} exceed {limit.seconds:g} s, "
        f"{limit.share:.1%} are allowed" + ("" if kept_by_stable else "; stable breaks it too"),
    )
