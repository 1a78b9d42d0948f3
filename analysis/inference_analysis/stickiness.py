"""Where users stick to a version, users are what was assigned at random, and so they are the unit.

A heavy user on the canary looks like a slow canary: with a thousand sticky users a test on pods
rejects identical versions in .29-.33 of the cases. The picker hashes the users' keys into 64
buckets and reports each by itself; the spread between buckets is what chance does to users.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from inference_analysis.confounders import Finding, Weight
from inference_analysis.standardisation import merged_windows

if TYPE_CHECKING:
    from inference_analysis.comparisons import TComparison
    from inference_analysis.error_rates import RateComparison
    from inference_analysis.observations import BoolArray, FloatArray, Observations

LEAST_BUCKETS = 8
LARGEST_BUCKET = 0.2
"""A bucket with more of the canary's requests is one user's, not a sample of users."""


class UserError(NamedTuple):
    """What chance in the assignment of users does: a standard error, or an overdispersion."""

    se: float
    df: float


def check_users(observations: Observations) -> list[Finding]:
    """Too few users on the canary, or one that is most of it."""
    users = observations.sticky
    if users is None:
        return []
    counts = np.where(users.usable, _requests(users), 0.0).sum(axis=1)
    mine = counts[users.canary]
    total = float(mine.sum())
    if not total:
        return []
    buckets, largest = int((mine > 0).sum()), float(mine.max() / total)
    if buckets >= LEAST_BUCKETS and largest <= LARGEST_BUCKET:
        return []
    what = (
        f"only {buckets} buckets of users reach the canary, {LEAST_BUCKETS} are needed"
        if buckets < LEAST_BUCKETS
        else f"one bucket of users sends {largest:.0%} of the canary's requests"
    )
    text = f"{what}: users stick to their version, so few of them are no sample"
    remedy = "raise the weight, so that more users reach the canary"
    return [Finding(code="users", weight=Weight.BLOCKS, text=text, remedy=remedy)]


def _requests(users: Observations) -> FloatArray:
    if users.requests is not None:
        return users.requests.total
    return next(iter(users.histograms.values())).count


def user_error(outcome: FloatArray, requests: FloatArray, canary: BoolArray) -> UserError | None:
    """Standard error of log(canary / control) between buckets; None with fewer than two an arm.

    Linearised ratio (Cochran 1977, Sampling Techniques, section 6.4), buckets as clusters: with
    E_i = sum over windows of n_iw * r_w, r_w the control's rate, R = sum O / sum E over the
    canary's buckets, its variance is n / (n - 1) * sum (O_i - R E_i)^2 / (sum O)^2, and the same
    for the control with R = 1. Degrees of freedom by Welch and Satterthwaite, from the effective
    numbers (sum E)^2 / sum E^2, so that a few heavy users do not count as many.
    """
    matrix = merged_windows(requests[canary].sum(axis=0), requests[~canary].sum(axis=0))
    if not matrix.shape[1]:
        return None
    merged, counts = outcome @ matrix, requests @ matrix
    rate = merged[~canary].sum(axis=0) / counts[~canary].sum(axis=0)
    observed, expected = merged.sum(axis=1), (counts * rate).sum(axis=1)
    variances, dfs = [], []
    for arm in (canary, ~canary):
        held = arm & (expected > 0)
        n, total = int(held.sum()), float(observed[held].sum())
        if n < 2 or total <= 0.0:  # noqa: PLR2004 - a variance
            return None
        ratio = total / float(expected[held].sum())
        residual = observed[held] - ratio * expected[held]
        variances.append(n / (n - 1) * float(residual @ residual) / total**2)
        effective = float(expected[held].sum()) ** 2 / float(expected[held] @ expected[held])
        dfs.append(max(effective - 1.0, 1.0))
    whole = sum(variances)
    if whole <= 0.0:
        return None
    df = whole**2 / sum(v**2 / d for v, d in zip(variances, dfs, strict=True))
    return UserError(se=float(np.sqrt(whole)), df=df)


def user_dispersion(users: Observations) -> UserError | None:
    """Overdispersion of the failed requests between buckets (as ``se``), and degrees of freedom.

    The variance of the arms' totals with buckets as clusters, sum (x_i - R E_i)^2 * n / (n - 1),
    over what single requests would give them, sum R E_i; R is each arm's own ratio to the
    control's rate. So heavy buckets count by their weight: a mean over buckets, as for pods, would
    not see that one heavy user who fails is many failures. Degrees of freedom from the effective
    number of the smaller arm.
    """
    if users.requests is None:
        return None
    total = np.where(users.usable, users.requests.total, 0.0)
    errors = np.where(users.usable, users.requests.errors, 0.0)
    canary = users.canary
    matrix = merged_windows(total[canary].sum(axis=0), total[~canary].sum(axis=0))
    if not matrix.shape[1]:
        return None
    n, x = total @ matrix, (errors @ matrix).sum(axis=1)
    rate = (errors[~canary] @ matrix).sum(axis=0) / n[~canary].sum(axis=0)
    expected = (n * rate).sum(axis=1)
    if expected[canary].sum() <= 0.0:
        expected = n.sum(axis=1)
    spread = single = 0.0
    effective = []
    for arm in (canary, ~canary):
        held = arm & (expected > 0)
        m, sum_e = int(held.sum()), float(expected[held].sum())
        if m < 2 or sum_e <= 0.0:  # noqa: PLR2004 - a variance
            return None
        fitted = expected[held] * float(x[held].sum()) / sum_e
        spread += m / (m - 1) * float(((x[held] - fitted) ** 2).sum())
        single += float(fitted.sum())
        effective.append(sum_e**2 / float(expected[held] @ expected[held]))
    if single <= 0.0:
        return None
    return UserError(se=max(spread / single, 1.0), df=max(min(effective) - 1.0, 1.0))


def clustered_rate(comparison: RateComparison, users: UserError | None) -> RateComparison:
    """The comparison of failed requests with the larger of both overdispersions."""
    if users is None:
        return comparison
    df = min(users.df, comparison.df)
    if users.se <= comparison.dispersion:
        return replace(comparison, df=df)
    factor = comparison.dispersion / users.se
    return replace(
        comparison,
        df=df,
        dispersion=users.se,
        errors_canary=comparison.errors_canary * factor,
        requests_canary=comparison.requests_canary * factor,
        errors_stable=comparison.errors_stable * factor,
        requests_stable=comparison.requests_stable * factor,
        unit="request within bucket of users",
    )


def widened(comparison: TComparison, users: UserError | None) -> TComparison:
    """The comparison with the larger of both standard errors."""
    if users is None or users.se <= comparison.se:
        return comparison
    return replace(
        comparison,
        se=users.se,
        df=users.df,
        unit="bucket of users",
        method=f"{comparison.method}; spread of buckets of users",
    )
