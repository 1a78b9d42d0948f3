from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from inference_analysis.spending import critical_values, spent


@pytest.mark.parametrize(
    ("fractions", "alpha", "expected"),
    [
        # Reboussin, DeMets, Kim and Lan 2000 (Control. Clin. Trials 21:190) and R's ldbounds,
        # O'Brien-Fleming type spending, one-sided.
        pytest.param(
            (0.2, 0.4, 0.6, 0.8, 1.0), 0.025, (4.877, 3.357, 2.680, 2.290, 2.031), id="five-looks"
        ),
        pytest.param((0.5, 1.0), 0.025, (2.963, 1.969), id="two-looks"),
        pytest.param((1.0,), 0.05, (1.645,), id="one-look-is-the-fixed-test"),
    ],
)
def test_critical_values_are_the_published_ones(
    fractions: tuple[float, ...], alpha: float, expected: tuple[float, ...]
) -> None:
    assert critical_values(fractions, alpha) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("alpha", [0.05, 0.008, 1e-4])
def test_the_chance_to_cross_any_bound_is_alpha(alpha: float) -> None:
    # Independent of the recursion: scipy's multivariate normal of the three z statistics.
    fractions = (0.3, 0.6, 1.0)
    bounds = critical_values(fractions, alpha)
    t = np.array(fractions)
    correlation = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    stay = multivariate_normal.cdf(
        np.array(bounds), mean=np.zeros(3), cov=correlation, abseps=1e-8, releps=1e-8
    )
    assert 1.0 - stay == pytest.approx(alpha, rel=0.02, abs=2e-6)


def test_nothing_is_spent_before_the_start_and_all_at_the_end() -> None:
    assert spent(0.0, 0.05) == 0.0
    assert spent(1.0, 0.05) == 0.05
    assert spent(0.5, 0.05) == pytest.approx(2 - 2 * norm.cdf(norm.isf(0.025) / np.sqrt(0.5)))


def test_an_early_look_at_a_tiny_alpha_needs_overwhelming_evidence() -> None:
    assert critical_values((0.05, 1.0), 0.003)[0] > 12.0


def test_fractions_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="must ascend"):
        critical_values((0.5, 0.5), 0.05)
