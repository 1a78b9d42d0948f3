from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, fisher_exact, hypergeom

from inference_analysis.proportions import (
    binomial_sf,
    overdispersion,
    score_bound,
    score_z,
    stratified_p,
)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe 1998 (Stat. Med. 17:873), table II, method 6 (Miettinen-Nurminen).
        pytest.param((56, 70, 48, 80), 0.0528, 0.3382, id="56/70-48/80"),
        pytest.param((9, 10, 3, 10), 0.1700, 0.8406, id="9/10-3/10"),
        pytest.param((5, 56, 0, 29), -0.0326, 0.1933, id="5/56-0/29"),
        pytest.param((10, 10, 0, 20), 0.7156, 1.0, id="10/10-0/20"),
    ],
)
def test_score_bounds_are_the_published_ones(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert score_bound(*table, -1.959964) == pytest.approx(low, abs=1e-4)
    assert score_bound(*table, 1.959964) == pytest.approx(high, abs=1e-4)


@pytest.mark.parametrize(
    ("table", "difference"),
    [
        pytest.param((7, 50, 3, 90), 0.05, id="inside"),
        pytest.param((0, 30, 2, 60), 0.02, id="no-canary-errors"),
        pytest.param((20, 40, 30, 50), -0.1, id="canary-better"),
    ],
)
def test_score_uses_the_restricted_maximum_likelihood_rates(
    table: tuple[int, int, int, int], difference: float
) -> None:
    x1, n1, x2, n2 = table

    def negative_log_likelihood(rate: float) -> float:
        canary = rate + difference
        return -float(
            x1 * np.log(canary)
            + (n1 - x1) * np.log1p(-canary)
            + x2 * np.log(rate)
            + (n2 - x2) * np.log1p(-rate)
        )

    bounds = (max(0.0, -difference) + 1e-9, min(1.0, 1.0 - difference) - 1e-9)
    rate = minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
    ).x
    canary = rate + difference
    n = n1 + n2
    variance = (canary * (1 - canary) / n1 + rate * (1 - rate) / n2) * n / (n - 1)
    expected = (x1 / n1 - x2 / n2 - difference) / math.sqrt(variance)
    assert score_z(*table, difference) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_one_stratum_is_fisher_with_mid_p() -> None:
    p = stratified_p(np.array([8.0]), np.array([100.0]), np.array([5.0]), np.array([200.0]))
    fisher = fisher_exact([[8, 92], [5, 195]], alternative="greater").pvalue
    assert p == pytest.approx(fisher - 0.5 * hypergeom.pmf(8, 300, 13, 100))


def test_strata_convolve_their_hypergeometric_distributions() -> None:
    canary, stable = np.array([2.0, 0.0, 3.0]), np.array([1.0, 4.0, 2.0])
    n_canary, n_stable = np.array([20.0, 30.0, 25.0]), np.array([90.0, 60.0, 80.0])
    pmfs = [
        hypergeom.pmf(np.arange(6), a + b, x + y, a)
        for x, y, a, b in zip(canary, stable, n_canary, n_stable, strict=True)
    ]
    total = np.convolve(np.convolve(pmfs[0], pmfs[1]), pmfs[2])
    assert stratified_p(canary, n_canary, stable, n_stable) == pytest.approx(
        total[6:].sum() + 0.5 * total[5]
    )


def test_many_errors_use_the_normal_form_close_to_the_exact_one() -> None:
    shape = np.ones(40)
    p = stratified_p(30 * shape, 1000 * shape, 80 * shape, 3000 * shape)
    exact = stratified_p(30 * shape[:35], 1000 * shape[:35], 80 * shape[:35], 3000 * shape[:35])
    assert 0.0 < p < exact < 0.05


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(5, 50), st.integers(0, 5), st.integers(5, 90)),
        min_size=1,
        max_size=8,
    )
)
def test_the_stratified_p_is_a_probability_and_swapping_arms_complements_it(
    rows: list[tuple[int, int, int, int]],
) -> None:
    x, n, y, m = np.array(rows, dtype=np.float64).T
    forward, backward = stratified_p(x, n, y, m), stratified_p(y, m, x, n)
    assert 0.0 <= forward <= 1.0
    if (x + y).sum():
        assert forward + backward == pytest.approx(1.0)


@pytest.mark.parametrize(("x", "n", "share"), [(7, 100, 0.03), (0, 10, 0.5), (10, 10, 0.2)])
def test_the_binomial_tail_is_scipys(x: int, n: int, share: float) -> None:
    expected = binomtest(x, n, share, alternative="greater").pvalue
    assert binomial_sf(x, n, share) == pytest.approx(expected)


def test_equal_pods_are_not_overdispersed_and_a_bursting_one_is() -> None:
    arms = np.array([0.0] * 8)
    expected = np.full(8, 10.0)
    assert overdispersion(np.full(8, 10.0), expected, arms) == 1.0
    # Pearson by hand: mean 15; seven pods (10-15)^2/15, one (50-15)^2/15, over 7.
    bursting = np.array([10.0] * 7 + [50.0])
    assert overdispersion(bursting, expected, arms) == pytest.approx((7 * 25 + 1225) / 15 / 7)


def test_harm_by_the_canary_is_not_overdispersion() -> None:
    arms = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    observed = np.array([30.0, 30.0, 10.0, 10.0, 10.0])
    assert overdispersion(observed, np.full(5, 10.0), arms) == 1.0
