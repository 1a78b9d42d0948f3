from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from inference_analysis.error_rates import compare_errors
from inference_analysis.gross_harm import (
    LARGEST_FACTOR,
    RATIOS,
    error_evidence,
    error_limit,
    gross_errors,
    gross_latency,
)
from inference_analysis.observations import FloatArray, Requests
from inference_analysis.standardisation import PodEffects
from inference_analysis.units import Kind, Units

CANARY = np.array([True, False, False, False])


PODS = Units(kind=Kind.PODS, strata=np.zeros(0))


def requests(total: FloatArray, errors: FloatArray) -> Requests:
    return Requests(total=total, errors=errors)


def all_usable(total: FloatArray) -> np.ndarray:
    return np.ones(total.shape, dtype=np.bool_)


@pytest.mark.parametrize("tolerated", [1.0, 2.0])
def test_one_blocks_factor_is_one_on_average_at_most(tolerated: float) -> None:
    # The property behind Ville's inequality, by summation over all splits of 9 errors.
    odds = tolerated * 100 / 300
    share = odds / (1 + odds)
    for ratio in RATIOS / 2.0 * tolerated:
        other = ratio * 100 / 300
        x = np.arange(10)
        factor = binom.pmf(x, 9, other / (1 + other)) / binom.pmf(x, 9, share)
        assert binom.pmf(x, 9, share) @ factor == pytest.approx(1.0)
        assert binom.pmf(x, 9, share) @ np.minimum(factor, LARGEST_FACTOR) <= 1.0 + 1e-12


def test_the_evidence_of_one_block_is_the_mean_likelihood_ratio() -> None:
    total = np.full((4, 2), 100.0)
    errors = np.zeros((4, 2))
    errors[0] = [1, 0]
    errors[1] = [0, 1]
    shares = RATIOS * 200 / 600
    expected = np.mean(
        binom.pmf(1, 2, shares / (1 + shares)) / binom.pmf(1, 2, (400 / 600) / (1 + 400 / 600))
    )
    found = error_evidence(requests(total, errors), all_usable(total), CANARY, tolerated=2.0)
    assert found == pytest.approx(expected)


def test_one_burst_is_not_gross_harm_but_steady_failure_is() -> None:
    total = np.full((4, 20), 100.0)
    burst, steady = np.zeros((4, 20)), np.zeros((4, 20))
    burst[0, 8] = 100.0
    steady[0] = 5.0
    steady[1:] = burst[1:] = 0.5
    for errors, fired in ((burst, False), (steady, True)):
        found = gross_errors(
            requests(total, errors), all_usable(total), CANARY, tolerated=2.0, alpha=0.005
        )
        assert found.fired is fired


def test_an_incident_of_both_versions_is_no_harm_of_the_canary() -> None:
    total = np.full((4, 20), 100.0)
    errors = np.zeros((4, 20))
    errors[:, 8:12] = 60.0
    found = gross_errors(
        requests(total, errors), all_usable(total), CANARY, tolerated=2.0, alpha=0.005
    )
    limit = error_limit(requests(total, errors), all_usable(total), CANARY, limit=0.25, least=50)
    assert not found.fired
    assert limit is not None
    assert not limit.fired


def test_a_canary_that_fails_everything_breaks_the_limit_within_three_windows() -> None:
    total = np.full((4, 3), 20.0)
    errors = np.zeros((4, 3))
    errors[0] = 20.0
    limit = error_limit(requests(total, errors), all_usable(total), CANARY, limit=0.25, least=50)
    assert limit is not None
    assert limit.fired


def test_few_requests_are_not_checked_against_the_limit() -> None:
    total = np.full((4, 2), 20.0)
    found = error_limit(requests(total, total), all_usable(total), CANARY, limit=0.25, least=50)
    assert found is None


def latency(canary: float, v: float, stable: list[float]) -> PodEffects:
    n = 1 + len(stable)
    return PodEffects(
        index=np.arange(n, dtype=np.float64),
        effect=np.log(np.array([canary, *stable])),
        sampling_variance=np.array([v] + [0.0] * (n - 1)),
        live=np.ones(n),
        canary=np.arange(n) == 0,
        stratum=np.zeros(n),
        requests=np.full(n, 60.0),
    )


@pytest.mark.parametrize(
    ("canary", "v", "fired"),
    [
        pytest.param(1.6, 0.0, True, id="large-and-certain"),
        pytest.param(1.6, 0.014, False, id="large-by-chance"),
        pytest.param(1.4, 0.0, False, id="certain-but-not-gross"),
    ],
)
def test_gross_latency_must_be_large_and_beyond_chance(
    canary: float, v: float, *, fired: bool
) -> None:
    effects = latency(canary, v, [1.0, 1.01, 0.99])
    found = gross_latency("ttft", effects, PODS, ratio=1.5, alpha=0.005 / 3, least=50, prior=None)
    assert found is not None
    assert found.fired is fired
    assert found.observed == pytest.approx(canary, rel=1e-3)


def test_gross_latency_waits_for_fifty_requests() -> None:
    effects = latency(9.0, 0.0, [1.0, 1.01, 0.99])
    assert gross_latency("ttft", effects, PODS, ratio=1.5, alpha=0.1, least=61, prior=None) is None


def test_gross_latency_waits_until_the_mean_is_known_to_an_eighth() -> None:
    effects = latency(9.0, 0.015, [1.0, 1.01, 0.99])
    assert gross_latency("ttft", effects, PODS, ratio=1.5, alpha=0.1, least=50, prior=None) is None


def test_pods_that_differ_by_themselves_widen_the_error_test() -> None:
    total = np.full((4, 10), 100.0)
    even, uneven = np.zeros((4, 10)), np.zeros((4, 10))
    even[0] = uneven[0] = 2.0
    even[1:] = 1.0
    uneven[1:] = np.array([[0.0], [0.0], [3.0]])
    calm = compare_errors(requests(total, even), all_usable(total), CANARY)
    wild = compare_errors(requests(total, uneven), all_usable(total), CANARY)
    assert calm is not None
    assert wild is not None
    assert calm.dispersion == 1.0
    # Pearson by hand: stable totals 0, 0, 30 about 10: (100 + 100 + 400) / 10 over 2.
    assert wild.dispersion == pytest.approx(30.0)
    assert wild.stratified_p == pytest.approx(calm.stratified_p)
    assert wild.harm_p(0.0) > calm.harm_p(0.0) >= calm.stratified_p


def test_no_errors_at_all_prove_no_more_than_the_rule_of_three() -> None:
    total = np.full((4, 10), 20.0)
    found = compare_errors(requests(total, np.zeros((4, 10))), all_usable(total), CANARY)
    assert found is not None
    assert found.harm_p(0.0) == 1.0 or found.harm_p(0.0) >= 0.5
    assert found.upper(0.04) >= 3.0 / 200
