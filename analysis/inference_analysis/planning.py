"""What it would take for an undecided gate to decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from inference_analysis.spending import falling_root

if TYPE_CHECKING:
    from inference_analysis.comparisons import TComparison
    from inference_analysis.error_rates import RateComparison

MOST_PODS = 64
LONGEST = 1000.0
"""Times the data at hand; more than this is "never"."""
POWER = 0.9
_UNLUCKY = 1.2816
"""Normal quantile of ``POWER``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Any one of these is enough for a canary no worse than stable to pass with 90 % power.

    Nothing set: more of the same does not help.
    """

    data_factor: float | None = None
    """Times the data so far, from the same pods (for quality: times the prompts)."""
    canary_pods: int | None = None
    stable_pods: int | None = None


def need_of_pods(comparison: TComparison, margin: float, level: float) -> Need:
    """Minutes or pods for (t_{1-level} + t_{.9}) * SE <= margin.

    SE^2 = between * (1/m_C + 1/m_S) + (v_C / m_C + v_S / m_S) / factor. ``between`` includes
    what varies slowly within a pod, so the time needed is rather over- than understated.
    """
    if comparison.mde(level) <= margin:
        return Need(data_factor=1.0)
    wanted = margin / comparison.mde(level) * comparison.se
    m_c, m_s = comparison.n_canary, comparison.n_stable
    fixed = comparison.between_variance * (1.0 / m_c + 1.0 / m_s)
    shrinking = comparison.sampling_variance / m_c + comparison.stable_sampling_variance / m_s
    left = wanted**2 - fixed
    factor = shrinking / left if left > 0 else np.inf
    found = Need(data_factor=float(max(factor, 1.0)) if factor <= LONGEST else None)
    pods = np.arange(m_c + 1, MOST_PODS + 1)
    for grow_stable in (False, True):
        stable = np.maximum(m_s, np.round(m_s * pods / m_c)) if grow_stable else np.full(1, m_s)
        variance = comparison.between_variance * (1.0 / pods + 1.0 / stable)
        variance += comparison.sampling_variance / pods
        variance += comparison.stable_sampling_variance / stable
        df = comparison.df + stable - m_s
        total = -stdtrit(df, max(level, 1e-300)) - stdtrit(df, 1.0 - POWER)
        enough = np.flatnonzero(total * np.sqrt(variance) <= margin)
        if enough.size:
            at = int(enough[0])
            needed = int(stable[at]) if grow_stable else m_s
            return replace(found, canary_pods=int(pods[at]), stable_pods=needed)
    return found


def need_of_data(comparison: TComparison, margin: float, level: float) -> Need:
    """Times the data for the minimum detectable effect to shrink to the margin."""
    factor = (comparison.mde(level) / margin) ** 2
    return Need(data_factor=float(max(factor, 1.0)) if factor <= LONGEST else None)


def need_of_requests(comparison: RateComparison, margin: float, level: float) -> Need:
    """Times the requests for a canary that fails as often as stable to pass with 90 % power.

    Looks for the smallest factor at which the bound of one that is unlucky in one case of ten lies
    below the margin. Where nothing has failed, the bound's own rule of three asks for 3 / margin
    requests.
    """

    def short(factor: float) -> float:
        return comparison.grown(factor, unlucky=_UNLUCKY).upper(level) - margin

    if short(1.0) <= 0.0:
        return Need(data_factor=1.0)
    if short(LONGEST) > 0.0:
        return Need()
    return Need(data_factor=falling_root(short, 0.0, 1.0, LONGEST))
