from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_analysis.standardisation import expectations, merged_windows, pod_effects

CANARY = np.array([True, False, False, False])
ONE_CLASS = np.zeros(4)


def test_a_stable_pod_is_expected_to_do_what_the_others_did() -> None:
    # By hand, one window: stable sums 2, 3, 4 over 10 requests each; the canary has 5 requests.
    outcome = np.array([[1.0], [2.0], [3.0], [4.0]])
    requests = np.array([[5.0], [10.0], [10.0], [10.0]])
    observed, expected, compared = expectations(outcome, requests, CANARY, ONE_CLASS)
    assert observed.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert expected == pytest.approx([5 * 9 / 30, 10 * 7 / 20, 10 * 6 / 20, 10 * 5 / 20])
    assert compared.tolist() == [5.0, 10.0, 10.0, 10.0]


def test_a_ramp_together_with_a_trend_is_no_difference() -> None:
    # Latency doubles over the run while the canary's traffic grows: raw totals differ by 9.5 %.
    width = 30
    rate = 0.2 * np.linspace(1.0, 2.0, width)
    requests = np.vstack([np.linspace(10, 90, width), np.full((3, width), 90.0)])
    effects = pod_effects(requests * rate, requests, CANARY, ONE_CLASS, variation=(0.5, 0.5))
    assert effects.effect == pytest.approx(np.zeros(4), abs=1e-12)
    raw = (requests * rate).sum(axis=1) / requests.sum(axis=1)
    assert raw[0] / raw[1] > 1.09


def test_a_slow_canary_shows_its_log_ratio_and_its_sampling_variance() -> None:
    requests = np.full((4, 10), 50.0)
    outcome = requests * 0.2
    outcome[0] *= 1.3
    effects = pod_effects(outcome, requests, CANARY, ONE_CLASS, variation=(0.5, 0.8))
    assert effects.effect[0] == pytest.approx(np.log(1.3))
    assert effects.sampling_variance == pytest.approx([0.8 / 500] + [0.5 / 500] * 3)


def test_stable_effects_are_shrunk_for_their_own_absence_from_the_reference() -> None:
    requests = np.full((4, 10), 50.0)
    outcome = requests * 0.2
    outcome[1] *= 1.1
    effects = pod_effects(outcome, requests, CANARY, ONE_CLASS, variation=(0.5, 0.5))
    assert effects.effect[1] == pytest.approx(np.log(1.1) * 2 / 3)


def test_sparse_windows_merge_and_empty_ones_drop_out() -> None:
    canary = np.array([9.0, 0.0, 2.0, 3.0, 7.0, 1.0])
    stable = np.array([50.0, 50.0, 50.0, 50.0, 0.0, 50.0])
    matrix = merged_windows(canary, stable)
    assert matrix.T.tolist() == [[1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]


def test_a_pod_that_joined_late_is_live_for_its_share() -> None:
    requests = np.full((4, 10), 50.0)
    requests[0, :6] = 0.0
    requests = np.vstack([np.full((1, 10), 50.0), requests])
    canary = np.array([True, True, False, False, False])
    effects = pod_effects(requests, requests, canary, np.zeros(5), variation=(0.5, 0.5))
    assert effects.live.tolist() == [1.0, 0.4, 1.0, 1.0, 1.0]


def test_no_common_traffic_leaves_no_pod() -> None:
    requests = np.array([[5.0, 0.0], [0.0, 5.0], [0.0, 5.0], [0.0, 5.0]])
    effects = pod_effects(requests, requests, CANARY, ONE_CLASS, variation=(0.5, 0.5))
    assert effects.effect.size == 0


@given(st.integers(0, 10_000), st.floats(0.1, 10.0))
def test_a_change_of_units_changes_nothing(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    requests = rng.integers(0, 40, (4, 12)).astype(np.float64)
    outcome = requests * rng.uniform(0.1, 0.3, (4, 12))
    first = pod_effects(outcome, requests, CANARY, ONE_CLASS, variation=(0.5, 0.5))
    second = pod_effects(outcome * factor, requests, CANARY, ONE_CLASS, variation=(0.5, 0.5))
    assert second.effect == pytest.approx(first.effect, abs=1e-9)
