from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from inference_analysis.comparisons import compare_pods, without_slowest
from inference_analysis.policies import Prior
from inference_analysis.standardisation import PodEffects


def effects(
    canary: list[float],
    stable: list[float],
    *,
    v: tuple[float, float] = (0.0, 0.0),
    strata: list[int] | None = None,
    live: float = 1.0,
) -> PodEffects:
    n = len(canary) + len(stable)
    is_canary = np.array([True] * len(canary) + [False] * len(stable))
    return PodEffects(
        index=np.arange(n, dtype=np.float64),
        effect=np.array(canary + stable),
        sampling_variance=np.where(is_canary, v[0], v[1]),
        live=np.where(is_canary, live, 1.0),
        canary=is_canary,
        stratum=np.array(strata or [0] * n, dtype=np.float64),
        requests=np.full(n, 100.0),
    )


def test_one_canary_pod_is_crawford_and_howells_test() -> None:
    # Crawford and Howell 1998: a case against a small sample is scipy's pooled t with n = 1.
    stable = [0.02, -0.01, 0.03, -0.05, 0.01, 0.0, 0.04]
    comparison = compare_pods(effects([0.09], stable))
    assert comparison is not None
    expected = ttest_ind([0.09], stable, alternative="greater")
    assert comparison.harm_p(0.0) == pytest.approx(expected.pvalue)
    assert comparison.df == expected.df
    assert comparison.unit == "pod"


def test_crawford_and_howells_published_example() -> None:
    # Crawford, Garthwaite and Porter 2010 (Cogn. Neuropsychol. 27:245), worked example: case 70,
    # controls mean 100, sd 15, n = 10 -> t(9) = -1.907.
    shape = np.array([-1.5, -1.2, -0.9, -0.4, -0.1, 0.1, 0.4, 0.9, 1.2, 1.5])
    stable = 100 + 15 * shape / shape.std(ddof=1)
    comparison = compare_pods(effects([70.0], stable.tolist()))
    assert comparison is not None
    assert comparison.estimate / comparison.se == pytest.approx(-1.907, abs=1e-3)
    assert comparison.df == 9


def test_noisier_canary_pods_add_their_variance() -> None:
    stable = [0.02, -0.02, 0.01, -0.01]
    comparison = compare_pods(effects([0.1, 0.1], stable, v=(0.0025, 0.0005)))
    assert comparison is not None
    s2 = np.var(stable, ddof=1)
    assert comparison.se**2 == pytest.approx((s2 + 0.002) / 2 + s2 / 4)


def test_a_canary_pod_that_came_late_counts_with_more_variance() -> None:
    stable = [0.02, -0.02, 0.01, -0.01]
    comparison = compare_pods(effects([0.1], stable, live=0.25))
    assert comparison is not None
    s2 = np.var(stable, ddof=1)
    assert comparison.se**2 == pytest.approx(s2 * 2.5 + s2 / 4)


def test_a_prior_moderates_the_variance() -> None:
    # Smyth 2004: (nu0 s0^2 + df s^2) / (nu0 + df), s0 inflated by 1.2, nu0 = pods - 1 <= 10.
    stable = [0.02, -0.02, 0.01]
    comparison = compare_pods(effects([0.1], stable), prior=Prior(sd=0.05, pods=7))
    assert comparison is not None
    s2 = (6 * 0.06**2 + 2 * np.var(stable, ddof=1)) / 8
    assert comparison.df == 8
    assert comparison.se**2 == pytest.approx(s2 * (1 + 1 / 3))


def test_a_prior_leaves_room_for_the_pods_own_sampling() -> None:
    comparison = compare_pods(
        effects([0.1], [0.02, -0.02, 0.01], v=(0.04, 0.04)), prior=Prior(sd=0.05, pods=7)
    )
    assert comparison is not None
    s2 = (6 * (0.06**2 + 0.04) + 2 * np.var([0.02, -0.02, 0.01], ddof=1)) / 8
    assert comparison.se**2 == pytest.approx(s2 * (1 + 1 / 3))


def test_pods_are_compared_within_their_hardware() -> None:
    # Class 1 is .5 slower throughout; within classes there is no difference at all.
    comparison = compare_pods(
        effects([0.0, 0.5], [0.01, -0.01, 0.51, 0.49], strata=[0, 1, 0, 0, 1, 1])
    )
    assert comparison is not None
    assert comparison.estimate == pytest.approx(0.0)
    assert comparison.df == 2


@pytest.mark.parametrize(
    ("canary", "stable", "strata"),
    [
        pytest.param([0.1], [0.0, 0.1], None, id="two-stable-pods"),
        pytest.param([], [0.0, 0.1, 0.2], None, id="no-canary-pod"),
        pytest.param([0.1], [0.0, 0.1, 0.2], [1, 0, 0, 0], id="other-hardware"),
    ],
)
def test_too_little_gives_no_comparison(
    canary: list[float], stable: list[float], strata: list[int] | None
) -> None:
    assert compare_pods(effects(canary, stable, strata=strata)) is None


@given(
    st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=4),
    st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=9),
)
def test_bounds_and_p_values_agree(canary: list[float], stable: list[float]) -> None:
    comparison = compare_pods(effects(canary, stable))
    assert comparison is not None
    if comparison.se < 1e-6:
        return
    assert comparison.harm_p(comparison.lower(0.03)) == pytest.approx(0.03)
    assert comparison.harm_p(comparison.upper(0.03)) == pytest.approx(0.97)
    assert comparison.harm_p(0.1) >= comparison.harm_p(0.0)


def test_the_slowest_canary_pod_can_be_left_out() -> None:
    rest, worst = without_slowest(effects([0.1, 0.3], [0.0, 0.4, 0.1]))
    assert worst == 1
    assert rest.effect.tolist() == [0.1, 0.0, 0.4, 0.1]
