"""Alpha spending over several looks, and the critical values it gives.

Lan and DeMets (1983), O'Brien-Fleming type: after the share t of the information, the one-sided
alpha(t) = 2 - 2 Phi(z_{alpha/2} / sqrt t) of alpha is spent. Critical values by the recursion of
Armitage, McPherson and Rowe (1969). Only information fractions are needed, not the number of looks.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_analysis.observations import FloatArray

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(160)
_LOWEST_Z = -8.5
_HIGHEST_Z = 37.0
_MOST_STEPS = 100


def spent(fraction: float, alpha: float) -> float:
    """One-sided alpha that is spent after ``fraction`` of the information.

    >>> round(spent(1.0, 0.025), 6)
    0.025
    """
    if alpha <= 0.0 or fraction <= 0.0:
        return 0.0
    if fraction >= 1.0:
        return alpha
    return float(2.0 * ndtr(ndtri(alpha / 2.0) / np.sqrt(fraction)))


@lru_cache(maxsize=1024)
def critical_values(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Critical z of each look, for ascending information fractions in (0, 1].

    For alpha = .025 and five even looks: 4.877, 3.357, 2.680, 2.290, 2.031 (Reboussin, DeMets, Kim
    and Lan 2000, table of ld98).

    Raises ValueError when the fractions do not ascend.
    """
    if any(b <= a for a, b in pairwise((0.0, *fractions))):
        message = f"information fractions must ascend from above 0, got {fractions}"
        raise ValueError(message)
    found: list[float] = []
    points: FloatArray = np.zeros(1)
    density: FloatArray = np.ones(1)  # all mass at B(0) = 0
    before, spent_before = 0.0, 0.0
    for fraction in fractions:
        step = np.sqrt(fraction - before)
        to_spend = max(spent(fraction, alpha) - spent_before, 0.0)
        root = np.sqrt(fraction)

        def crossing(
            z: float,
            points: FloatArray = points,
            density: FloatArray = density,
            step: float = float(step),
            root: float = float(root),
        ) -> float:
            return float(density @ ndtr((points - z * root) / step))

        value = falling_root(crossing, to_spend, _LOWEST_Z, _HIGHEST_Z) if to_spend else _HIGHEST_Z
        found.append(value)
        low, high = _LOWEST_Z * root, value * root
        new = low + (high - low) * (_NODES + 1.0) / 2.0
        kernel = np.exp(-0.5 * ((new[:, None] - points[None, :]) / step) ** 2)
        weights = _WEIGHTS * (high - low) / 2.0
        density = weights * (kernel @ density) / (step * np.sqrt(2.0 * np.pi))
        points, before, spent_before = new, fraction, spent_before + to_spend
    return tuple(found)


def falling_root(
    function: Callable[[float], float], target: float, low: float, high: float
) -> float:
    """X in [low, high] where a falling function takes the value ``target``, or the nearer end.

    Chandrupatla (1997, Adv. Eng. Software 28:145): bisection, and inverse quadratic interpolation
    where the function is smooth enough. ``scipy.optimize`` would do; importing it costs more time
    than a verdict.
    """
    old, new = high, low
    at_old, at_new = function(high) - target, function(low) - target
    if at_new <= 0.0:
        return low
    if at_old >= 0.0:
        return high
    step = 0.5
    for _ in range(_MOST_STEPS):
        middle = old + step * (new - old)
        at_middle = function(middle) - target
        if (at_middle > 0.0) == (at_old > 0.0):
            third, at_third = old, at_old
        else:
            third, at_third, new, at_new = new, at_new, old, at_old
        old, at_old = middle, at_middle
        best = old if abs(at_old) < abs(at_new) else new
        least = (4e-16 * abs(best) + 1e-16) / abs(new - old)
        if least > 0.5 or at_middle == 0.0:  # noqa: PLR2004 - nothing is left between
            return best
        x, y = (old - new) / (third - new), (at_old - at_new) / (at_third - at_new)
        step = 0.5
        if y**2 < x and (1.0 - y) ** 2 < 1.0 - x:
            step = at_old / (at_new - at_old) * at_third / (at_new - at_third) + (third - old) / (
                new - old
            ) * at_old / (at_third - at_old) * at_new / (at_third - at_new)
        step = min(max(step, least), 1.0 - least)
    return old
