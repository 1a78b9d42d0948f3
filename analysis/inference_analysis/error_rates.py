"""The comparison of failed requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from inference_analysis.comparisons import LEAST_STABLE_PODS
from inference_analysis.proportions import (
    overdispersion,
    score_bound,
    score_z,
    stratified_p,
)
from inference_analysis.standardisation import merged_windows

if TYPE_CHECKING:
    from inference_analysis.observations import BoolArray, Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class RateComparison:
    """Difference of error shares, canary minus what concurrent stable would have had.

    ``errors_*`` and ``requests_*`` are divided by the overdispersion (Rao and Scott 1992); stable's
    are those of the standardised rate.
    """

    stratified_p: float
    """Mid-p of the exact Cochran-Mantel-Haenszel test, blind to pods."""
    dispersion: float
    df: float
    errors_canary: float
    requests_canary: float
    errors_stable: float
    requests_stable: float
    n_canary: int
    n_stable: int
    unit: str = "request within pod"
    method: str = "max of stratified exact and pod-level quasi-binomial"

    @property
    def estimate(self) -> float:
        """Difference of shares."""
        return self.errors_canary / self.requests_canary - self.errors_stable / self.requests_stable

    def harm_p(self, harm_margin: float) -> float:
        """One-sided p of "the canary fails at most ``harm_margin`` more of its requests".

        The larger of the exact test and its quasi-binomial form: z / sqrt(dispersion) against t.
        With a margin, the score statistic at that margin as well.
        """
        z = -float(ndtri(min(max(self.stratified_p, 1e-300), 1.0 - 1e-16)))
        if z > 0.0:
            z /= np.sqrt(self.dispersion)
        p = max(self.stratified_p, float(stdtr(self.df, -z)))
        if harm_margin > 0.0:
            p = max(p, float(stdtr(self.df, -self._score(harm_margin))))
        return p

    def upper(self, level: float) -> float:
        """One-sided upper score bound; never below the rule of three, -log(.05) / n."""
        bound = self._bound(-float(stdtrit(self.df, max(level, 1e-300))))
        return max(bound, 3.0 / self.requests_canary) if not self.errors_canary else bound

    def lower(self, level: float) -> float:
        """One-sided lower score bound."""
        return self._bound(float(stdtrit(self.df, max(level, 1e-300))))

    def mde(self, level: float, power: float = 0.9) -> float:
        """(t_{1-level} + t_{power}) * SE at stable's share."""
        share = (self.errors_stable + 0.5) / (self.requests_stable + 1.0)
        se = np.sqrt(
            share * (1.0 - share) * (1.0 / self.requests_canary + 1.0 / self.requests_stable)
        )
        t = stdtrit(self.df, max(level, 1e-300)) + stdtrit(self.df, 1.0 - power)
        return float(-t * se)

    def grown(self, factor: float, *, unlucky: float = 0.0) -> RateComparison:
        """The same with ``factor`` times the requests, the canary failing as often as stable.

        ``unlucky`` standard errors above it, so that power can be asked for.
        """
        share = self.errors_stable / self.requests_stable
        canary, stable = factor * self.requests_canary, factor * self.requests_stable
        more = unlucky * float(np.sqrt(share * (1.0 - share) * (1.0 / canary + 1.0 / stable)))
        return replace(
            self,
            errors_canary=min(share + more, 1.0) * canary,
            requests_canary=canary,
            errors_stable=share * stable,
            requests_stable=stable,
        )

    def _score(self, difference: float) -> float:
        return score_z(
            self.errors_canary,
            self.requests_canary,
            self.errors_stable,
            self.requests_stable,
            difference,
        )

    def _bound(self, z: float) -> float:
        return score_bound(
            self.errors_canary,
            self.requests_canary,
            self.errors_stable,
            self.requests_stable,
            min(max(z, -1e6), 1e6),
        )


def pods_dispersion(requests: Requests, usable: BoolArray) -> tuple[float, float] | None:
    """Overdispersion of the pods of one version and its degrees of freedom; None below three."""
    total = np.where(usable, requests.total, 0.0)
    errors = np.where(usable, requests.errors, 0.0)
    counts = total.sum(axis=0)
    rate = np.divide(errors.sum(axis=0), counts, out=np.zeros_like(counts), where=counts > 0)
    expected = (total * rate).sum(axis=1)
    pods = int((total.sum(axis=1) > 0).sum())
    if pods < LEAST_STABLE_PODS:
        return None
    return overdispersion(errors.sum(axis=1), expected, np.zeros(len(total))), float(pods - 1)


def compare_errors(
    requests: Requests,
    usable: BoolArray,
    canary: BoolArray,
    *,
    spread: tuple[float, float] | None = None,
) -> RateComparison | None:
    """The comparison, or None without requests in both arms or with too few stable pods.

    ``spread`` is the overdispersion between stable's other pods and its degrees of freedom, where
    the reference is a control that too few pods serve.

    Windows are the strata, so that neither the weight's ramp nor an incident that hits both
    versions counts against the canary. Pods that differ in their error rate, or fail in bursts,
    show as overdispersion of pod totals; it is scaled up when a canary pod has more requests than
    a stable one, since its variance grows with the square of what is expected of it.
    """
    total = np.where(usable, requests.total, 0.0)
    errors = np.where(usable, requests.errors, 0.0)
    matrix = merged_windows(total[canary].sum(axis=0), total[~canary].sum(axis=0))
    stable_pods = int((total[~canary].sum(axis=1) > 0).sum())
    canary_pods = int((total[canary].sum(axis=1) > 0).sum())
    least = LEAST_STABLE_PODS if spread is None else 1
    if not matrix.shape[1] or not canary_pods or stable_pods < least:
        return None
    n, x = total @ matrix, errors @ matrix
    n_canary, n_stable = n[canary].sum(axis=0), n[~canary].sum(axis=0)
    x_canary, x_stable = x[canary].sum(axis=0), x[~canary].sum(axis=0)
    rate = x_stable / n_stable
    expected = (n * rate).sum(axis=1)
    dispersion = overdispersion(x.sum(axis=1), expected, canary.astype(np.float64))
    df = float(stable_pods + canary_pods - 2)
    if spread is not None:
        dispersion, df = max(dispersion, spread[0]), spread[1]
    mean_canary = expected[canary].sum() / canary_pods
    mean_stable = expected[~canary].sum() / stable_pods
    if mean_stable > 0:
        dispersion = 1.0 + (dispersion - 1.0) * max(1.0, mean_canary / mean_stable)
    requests_canary = float(n_canary.sum())
    effective = requests_canary**2 / float((n_canary**2 / n_stable).sum())
    return RateComparison(
        stratified_p=stratified_p(x_canary, n_canary, x_stable, n_stable),
        dispersion=float(dispersion),
        df=df,
        errors_canary=float(x_canary.sum()) / dispersion,
        requests_canary=requests_canary / dispersion,
        errors_stable=float(expected[canary].sum()) / requests_canary * effective / dispersion,
        requests_stable=effective / dispersion,
        n_canary=canary_pods,
        n_stable=stable_pods,
    )
