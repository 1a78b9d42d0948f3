from __future__ import annotations

from dataclasses import replace

import pytest

from inference_analysis.comparisons import TComparison
from inference_analysis.planning import Need, need_of_data, need_of_pods

FEW_REQUESTS = TComparison(
    estimate=0.0,
    se=(0.01 / 2 + 0.01 / 8) ** 0.5,
    df=7.0,
    n_canary=2,
    n_stable=8,
    unit="pod",
    method="",
    sampling_variance=0.01,
    stable_sampling_variance=0.01,
)
UNEQUAL_PODS = replace(
    FEW_REQUESTS, between_variance=0.01, sampling_variance=0.0, stable_sampling_variance=0.0
)


def test_request_noise_shrinks_with_time() -> None:
    # (t.96 + t.9) * SE must shrink to the margin; variance goes with one over the time.
    need = need_of_pods(FEW_REQUESTS, 0.1, 0.04)
    assert need.data_factor == pytest.approx((FEW_REQUESTS.mde(0.04) / 0.1) ** 2)


def test_differences_between_pods_do_not_shrink_with_time_but_with_pods() -> None:
    need = need_of_pods(UNEQUAL_PODS, 0.1, 0.04)
    assert need.data_factor is None
    assert need.canary_pods is not None
    assert need.canary_pods > 2


def test_where_canary_pods_alone_cannot_do_it_both_versions_need_more() -> None:
    need = need_of_pods(replace(UNEQUAL_PODS, n_stable=3, n_canary=1, df=2.0), 0.1, 0.04)
    assert need.canary_pods is not None
    assert need.stable_pods == 3 * need.canary_pods


def test_enough_needs_nothing() -> None:
    assert need_of_pods(FEW_REQUESTS, 1.0, 0.04) == Need(data_factor=1.0)


def test_prompts_needed_go_with_the_square_of_the_shortfall() -> None:
    comparison = replace(FEW_REQUESTS, unit="prompt", df=199.0)
    need = need_of_data(comparison, comparison.mde(0.04) / 3, 0.04)
    assert need.data_factor == pytest.approx(9.0)
