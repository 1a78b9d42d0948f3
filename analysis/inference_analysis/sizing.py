"""How many pods, minutes and prompts an analysis needs, before there is a canary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.special import ndtr, ndtri, stdtrit

from inference_analysis.comparisons import LEAST_STABLE_PODS, PRIOR_DF_CAP, PRIOR_INFLATION
from inference_analysis.spending import critical_values

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_PODS = 64
LEAST_PAIRS = 4
WINDOW_MINUTES = 60
"""A single source is compared window by window, which takes at least this long."""
MOST_LOOKS = 2
"""Looks at a single source: each has few batches of windows."""
INTERACTION = 0.01
"""Variance by which versions differ on a prompt, however often it is asked."""
ANSWERS = 0.275
"""Twice the mean p (1 - p) of one answer, with prompts of mean score .74 (research of the
design): the variance of a difference of single answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What pods of one rollout are like."""

    sd: float
    """Between-pod sd of the log."""
    variation: float
    """Coefficient of variation of one request."""
    per_minute: float
    """Requests of a pod in a minute."""
    learnt_pods: int = 0
    """Pods that ``sd`` was learnt from; 0 when it is assumed, and then no prior counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One way to run a canary."""

    canary: int
    stable: int
    minutes: float
    paired: bool = False
    """Canary and control share each pod (LoRA); ``canary`` is the number of pods."""


def final_level(alpha: float, looks: int, planned: float = 0.8) -> float:
    """One-sided level of the last of ``looks`` even looks, as a verdict will use it."""
    fractions = tuple((k + 1) / looks for k in range(looks))
    return float(ndtr(-critical_values(fractions, alpha * planned)[-1]))


def detectable(setup: Setup, traffic: Traffic, level: float, power: float = 0.9) -> float:
    """Smallest log ratio that the test finds with ``power``; infinite with too few pods.

    (t_{1-level} + t_{power}) * SE, SE^2 = (s^2 + v) (1/m_C + 1/m_S), v = CV^2 / requests of a pod,
    df = m_S - 1. A learnt s counts as in a verdict: inflated by 1.2, on up to ten degrees of
    freedom more. Pairs: SE^2 = (s^2 + 2 v) / pairs, df = pairs - 1.
    """
    sampling = traffic.variation**2 / max(traffic.per_minute * setup.minutes, 1e-9)
    spread, prior_df = traffic.sd**2, 0.0
    if traffic.learnt_pods:
        prior_df = float(min(traffic.learnt_pods - 1, PRIOR_DF_CAP))
    if setup.paired:
        if setup.canary < LEAST_PAIRS:
            return math.inf
        df = setup.canary - 1.0
        variance = (spread + 2.0 * sampling) / setup.canary
    else:
        if setup.stable < LEAST_STABLE_PODS or not setup.canary:
            return math.inf
        df = setup.stable - 1.0
        inflated = PRIOR_INFLATION**2 * spread
        spread = (prior_df * inflated + df * spread) / (prior_df + df)
        df += prior_df
        variance = (spread + sampling) * (1.0 / setup.canary + 1.0 / setup.stable)
    quantiles = stdtrit(df, level) + stdtrit(df, 1.0 - power)
    return float(-quantiles * math.sqrt(variance))


def pods_needed(
    effect: float, setup: Setup, traffic: Traffic, level: float
) -> tuple[int, int] | None:
    """Fewest pods that find ``effect`` (a log ratio) in the same minutes, or None up to 64."""
    for canary, stable in _growing(setup):
        larger = Setup(canary=canary, stable=stable, minutes=setup.minutes, paired=setup.paired)
        if detectable(larger, traffic, level) <= effect:
            return canary, stable
    return None


def _growing(setup: Setup) -> Iterator[tuple[int, int]]:
    for canary in range(setup.canary, MOST_PODS + 1):
        if setup.paired:
            yield canary, canary
        else:
            yield canary, max(setup.stable, round(setup.stable * canary / setup.canary))


def minutes_needed(effect: float, setup: Setup, traffic: Traffic, level: float) -> float | None:
    """Shortest time, up to a day, in which these pods find ``effect``; None when none does."""
    low, high = 1.0, 24.0 * 60.0

    def finds(minutes: float) -> bool:
        tried = Setup(
            canary=setup.canary, stable=setup.stable, minutes=minutes, paired=setup.paired
        )
        return detectable(tried, traffic, level) <= effect

    if not finds(high):
        return None
    while high - low > 0.5:  # noqa: PLR2004 - half a minute
        middle = (low + high) / 2.0
        low, high = (low, middle) if finds(middle) else (middle, high)
    return float(math.ceil(high))


def error_minutes(
    margin: float, share: float, setup: Setup, traffic: Traffic, level: float
) -> float:
    """Minutes until a canary that fails as often as stable shows "not worse by ``margin``".

    n = ((z_{1-level} + z_{.9}) / margin)^2 p (1 - p) (1 + m_C / m_S) canary requests, and never
    fewer than 3 / margin (rule of three).
    """
    p = max(share, 1e-4)
    z = -ndtri(level) - ndtri(0.1)
    requests = (z / margin) ** 2 * p * (1.0 - p) * (1.0 + setup.canary / max(setup.stable, 1))
    requests = max(requests, 3.0 / margin)
    return float(requests / max(traffic.per_minute * setup.canary, 1e-9))


def prompts_needed(margin: float, answers: int, level: float) -> int:
    """Prompts for "not worse by ``margin``" with 90 % power: z^2 Var(d) / margin^2.

    Var(d) = .01 + .275 / answers for right-or-wrong scores: n = 200 with five answers and n = 1000
    with one find 5 points.
    """
    z = float(-ndtri(level) - ndtri(0.1))
    return math.ceil(z**2 * (INTERACTION + ANSWERS / answers) / margin**2)
