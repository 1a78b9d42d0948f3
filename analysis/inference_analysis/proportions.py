"""Two shares of requests: exact stratified test, overdispersion, score bounds.

``scipy.stats`` has Fisher's exact test for one table, but neither its stratified form nor the
score interval of a difference; its ``hypergeom`` is the oracle of the tests here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtrc, gammaln, ndtr

from inference_analysis.spending import falling_root

if TYPE_CHECKING:
    from inference_analysis.observations import FloatArray

EXACT_ERRORS = 4000
"""With more errors than this the normal approximation takes over."""


def stratified_p(
    errors_canary: FloatArray,
    n_canary: FloatArray,
    errors_stable: FloatArray,
    n_stable: FloatArray,
) -> float:
    """One-sided mid-p of "the canary's error odds are no higher, in any window"; arrays are (G,).

    The Cochran-Mantel-Haenszel test in its exact form: given each window's margins the canary's
    errors are hypergeometric; the p-value is that of their sum. A pooled Fisher test instead
    rejects 65 % of identical canaries when the weight rises together with the background rate.
    Mid-p: P(X > x) + P(X = x) / 2.
    """
    errors = errors_canary + errors_stable
    total = float(errors_canary.sum())
    if not errors.sum():
        return 1.0
    if errors.sum() > EXACT_ERRORS:
        n = n_canary + n_stable
        mean = float((errors * n_canary / n).sum())
        variance = errors * n_canary * n_stable * (n - errors) / (n**2 * np.maximum(n - 1, 1))
        return float(_normal_sf((total - mean) / np.sqrt(max(float(variance.sum()), 1e-300))))
    distribution, lowest = np.ones(1), 0.0
    for drawn, marked, others in zip(errors, n_canary, n_stable, strict=True):
        if not drawn:
            continue
        low, high = max(0.0, drawn - others), min(drawn, marked)
        k = np.arange(low, high + 1)
        log_pmf = (
            _log_choose(marked, k)
            + _log_choose(others, drawn - k)
            - _log_choose(marked + others, drawn)
        )
        distribution = np.convolve(distribution, np.exp(log_pmf))
        lowest += low
    at = round(total - lowest)
    return float(min(distribution[at + 1 :].sum() + 0.5 * distribution[at], 1.0))


def overdispersion(observed: FloatArray, expected: FloatArray, groups: FloatArray) -> float:
    """max(1, Pearson chi-squared / df) of pods' errors about their own arm's rate.

    ``groups`` tells the arms apart; each arm's expectations are scaled to its observed total.
    """
    squares, df = 0.0, 0
    for group in np.unique(groups):
        members = (groups == group) & (expected > 0)
        if members.sum() < 2:  # noqa: PLR2004 - one pod has no spread
            continue
        fitted = expected[members] * observed[members].sum() / expected[members].sum()
        if not fitted.sum():
            continue
        squares += float(((observed[members] - fitted) ** 2 / fitted).sum())
        df += int(members.sum()) - 1
    return max(1.0, squares / df) if df else 1.0


def score_z(
    x_canary: float, n_canary: float, x_stable: float, n_stable: float, difference: float
) -> float:
    """Miettinen-Nurminen score statistic of "p_canary - p_stable = difference".

    Miettinen and Nurminen (1985, Stat. Med. 4:213), with their factor N / (N - 1); the restricted
    maximum-likelihood rates in closed form (Farrington and Manning 1990, appendix).
    """
    n = n_canary + n_stable
    errors = x_canary + x_stable
    # Cubic in the restricted rate of stable (appendix I): l3 r^3 + l2 r^2 + l1 r + l0 = 0.
    l3 = n
    l2 = (n_canary + 2.0 * n_stable) * difference - n - errors
    l1 = (n_stable * difference - n - 2.0 * x_stable) * difference + errors
    l0 = x_stable * difference * (1.0 - difference)
    q = l2**3 / (3.0 * l3) ** 3 - l1 * l2 / (6.0 * l3**2) + l0 / (2.0 * l3)
    p = math.copysign(math.sqrt(max(l2**2 / (3.0 * l3) ** 2 - l1 / (3.0 * l3), 0.0)), q)
    angle = (math.pi + math.acos(min(max(q / p**3, -1.0), 1.0))) / 3.0 if p else math.pi / 2.0
    stable = 2.0 * p * math.cos(angle) - l2 / (3.0 * l3)
    stable = min(max(stable, 0.0, -difference), 1.0, 1.0 - difference)
    canary = stable + difference
    variance = canary * (1.0 - canary) / n_canary + stable * (1.0 - stable) / n_stable
    variance *= n / max(n - 1.0, 1e-9)
    gap = x_canary / n_canary - x_stable / n_stable - difference
    if variance <= 0.0:
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / math.sqrt(variance)


def score_bound(
    x_canary: float, n_canary: float, x_stable: float, n_stable: float, z: float
) -> float:
    """The difference p_canary - p_stable whose score statistic is ``-z``: an upper bound.

    A negative ``z`` gives the lower bound. For 56/70 against 48/80 and z = 1.96 the two are .0528
    and .3382 (Newcombe 1998, Stat. Med. 17:873, table II, method 6).
    """
    return falling_root(
        lambda difference: score_z(x_canary, n_canary, x_stable, n_stable, difference),
        -z,
        -1.0 + 1e-12,
        1.0 - 1e-12,
    )


def binomial_sf(x: float, n: float, share: float) -> float:
    """P(X >= x) for X binomial: the one-sided exact p, as ``scipy.stats.binomtest`` gives it."""
    return 1.0 if x <= 0 else float(bdtrc(int(x) - 1, int(n), share))


def _log_choose(n: float, k: FloatArray) -> FloatArray:
    result: FloatArray = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return result


def _normal_sf(z: float) -> float:
    return float(ndtr(-z))
