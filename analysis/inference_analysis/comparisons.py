"""The test of one gate: estimate, spread, p-values and bounds, with pods or prompts as units.

Every estimate points the same way: positive means that the canary is worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.special import stdtr, stdtrit

if TYPE_CHECKING:
    from inference_analysis.policies import Prior
    from inference_analysis.standardisation import PodEffects

PRIOR_INFLATION = 1.2
"""A prior sd that is 30 % too small gives .08 false alarms instead of .05; this makes up for it."""
PRIOR_DF_CAP = 10
LEAST_STABLE_PODS = 3
"""With two the repeated test's level is .060-.065 instead of .05."""


class Comparison(Protocol):
    """What a verdict needs to know of one gate's data."""

    @property
    def estimate(self) -> float:
        """Log ratio (mean, tail) or difference of shares (rate, score); positive is worse."""
        ...

    @property
    def n_canary(self) -> int:
        """Units of the canary."""
        ...

    @property
    def n_stable(self) -> int:
        """Units of stable."""
        ...

    @property
    def unit(self) -> str:
        """What one unit is."""
        ...

    @property
    def method(self) -> str:
        """The test's name."""
        ...

    def harm_p(self, harm_margin: float) -> float:
        """One-sided p of "the effect is at most ``harm_margin``"."""
        ...

    def upper(self, level: float) -> float:
        """One-sided upper confidence bound at 1 - ``level``."""
        ...

    def lower(self, level: float) -> float:
        """One-sided lower confidence bound at 1 - ``level``."""
        ...

    def mde(self, level: float, power: float = 0.9) -> float:
        """Smallest true effect that a test at ``level`` finds with this power."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TComparison:
    """A comparison whose estimate divided by its standard error follows t."""

    estimate: float
    se: float
    df: float
    n_canary: int
    n_stable: int
    unit: str
    method: str
    between_variance: float = 0.0
    """Variance between units that more requests cannot remove."""
    sampling_variance: float = 0.0
    """Variance of a canary unit that comes from its finite number of requests or answers."""
    stable_sampling_variance: float = 0.0

    def harm_p(self, harm_margin: float) -> float:
        """One-sided p of "the effect is at most ``harm_margin``"."""
        return float(stdtr(self.df, -(self.estimate - harm_margin) / self.se))

    def upper(self, level: float) -> float:
        """One-sided upper confidence bound at 1 - ``level``."""
        return self.estimate + self._quantile(level) * self.se

    def lower(self, level: float) -> float:
        """One-sided lower confidence bound at 1 - ``level``."""
        return self.estimate - self._quantile(level) * self.se

    def mde(self, level: float, power: float = 0.9) -> float:
        """(t_{1-level} + t_{power}) * SE."""
        return (self._quantile(level) + self._quantile(1.0 - power)) * self.se

    def _quantile(self, level: float) -> float:
        return float(-stdtrit(self.df, max(level, 1e-300)))


def compare_pods(
    effects: PodEffects, *, prior: Prior | None = None, added_variance: float = 0.0
) -> TComparison | None:
    """T test of canary against stable pods with additive variance.

    With canary effects c, stable effects s and hardware strata h of weight w_h = m_Ch / m_C:

    - estimate = sum of w_h * (mean c_h - mean s_h)
    - Var_C = s2_S * mean f + max(0, mean v_C - mean v_S), f_i = 1/2 + 1/2 / live_i
    - SE^2 = Var_C / m_C + s2_S * sum of w_h^2 / m_Sh, df = m_S - number of strata

    s2_S is the variance between stable pods only, v the sampling variance. Stable traffic per pod
    usually is not the canary's, for which a pooled t is liberal (up to .19 at .05); this one holds
    (.057 at worst). With equal v and live = 1 and one canary pod it is the test of Crawford and
    Howell (1998, Clin. Neuropsychol. 12:482), t = (x - mean s) / (sd_S * sqrt((m_S + 1) / m_S)).

    ``prior`` moderates s2_S (Smyth 2004): (nu0 * ((1.2 s0)^2 + mean v_S) + df * s2) / (nu0 + df),
    on nu0 + df degrees of freedom. s0 is what pods differ by beyond sampling, hence + v_S.

    ``added_variance`` is what an adjustment of the effects adds to SE^2.

    None when no canary pod has a stratum with stable pods, or fewer than three stable pods do.
    """
    strata = [
        h
        for h in np.unique(effects.stratum[effects.canary])
        if (~effects.canary & (effects.stratum == h)).sum() >= 2  # noqa: PLR2004 - a variance
    ]
    used = np.isin(effects.stratum, strata)
    canary, stable = used & effects.canary, used & ~effects.canary
    m_canary, m_stable = int(canary.sum()), int(stable.sum())
    if not m_canary or m_stable < LEAST_STABLE_PODS:
        return None
    estimate = squares = shares = 0.0
    for h in strata:
        mine, theirs = canary & (effects.stratum == h), stable & (effects.stratum == h)
        share = mine.sum() / m_canary
        mean = effects.effect[theirs].mean()
        estimate += share * float(effects.effect[mine].mean() - mean)
        squares += float(((effects.effect[theirs] - mean) ** 2).sum())
        shares += share**2 / theirs.sum()
    df = float(m_stable - len(strata))
    variance = squares / df
    v_canary = float(effects.sampling_variance[canary].mean())
    v_stable = float(effects.sampling_variance[stable].mean())
    method = "pod t, additive variance"
    if prior is not None:
        nu0 = float(min(max(prior.pods - 1, 1), PRIOR_DF_CAP))
        expected = (PRIOR_INFLATION * prior.sd) ** 2 + v_stable
        variance = (nu0 * expected + df * variance) / (nu0 + df)
        df += nu0
        method += ", moderated"
    late = float((0.5 + 0.5 / effects.live[canary]).mean())
    of_canary = variance * late + max(0.0, v_canary - v_stable)
    se = float(np.sqrt(of_canary / m_canary + variance * shares + added_variance))
    return TComparison(
        estimate=estimate,
        se=max(se, 1e-12),
        df=df,
        n_canary=m_canary,
        n_stable=m_stable,
        unit="pod",
        method=method,
        between_variance=max(0.0, variance - v_stable),
        sampling_variance=v_canary,
        stable_sampling_variance=v_stable,
    )


def without_slowest(effects: PodEffects) -> tuple[PodEffects, int]:
    """The effects without the canary pod that is worst, and that pod's position."""
    canary = np.flatnonzero(effects.canary)
    worst = canary[np.argmax(effects.effect[canary])]
    kept = np.arange(len(effects.effect)) != worst
    return (
        type(effects)(
            index=effects.index[kept],
            effect=effects.effect[kept],
            sampling_variance=effects.sampling_variance[kept],
            live=effects.live[kept],
            canary=effects.canary[kept],
            stratum=effects.stratum[kept],
            requests=effects.requests[kept],
        ),
        int(effects.index[worst]),
    )
