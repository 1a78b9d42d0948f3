from __future__ import annotations

import numpy as np
import pytest

from inference_analysis.latencies import (
    shares_above,
    squared_variation,
    tail_edge,
    tail_effects,
    tail_margin,
)
from inference_analysis.observations import Histogram


def histogram(per_bucket: list[list[int]], le: tuple[float, ...] = (0.1, 0.2, 0.4)) -> Histogram:
    buckets = np.array(per_bucket, dtype=np.int32)[:, None, :]
    count = buckets.sum(axis=2).astype(np.float64)
    return Histogram(le=np.array(le), count=count, sum=0.1 * count, buckets=buckets)


ALL = np.ones((1, 1), dtype=np.bool_)


def test_shares_above_each_edge_are_counted() -> None:
    assert shares_above(histogram([[50, 30, 15, 5]]), ALL) == pytest.approx([0.5, 0.2, 0.05])


def test_the_tail_edge_is_the_one_nearest_two_percent_of_stable() -> None:
    assert tail_edge(histogram([[900, 79, 20, 1]]), ALL) == 1


def test_one_bucket_has_no_tail() -> None:
    assert tail_edge(histogram([[0, 100, 0, 0]]), ALL) is None


def test_a_slowdown_moves_the_share_above_an_edge_along_the_stable_curve() -> None:
    # p = (x / .1)^-2 exactly: +10 % means p * 1.1^2.
    le = np.array([0.1, 0.2, 0.4])
    shares = (le / 0.1) ** -2.0 * 0.5
    assert tail_margin(shares, le, 2, 0.1) == pytest.approx(2 * np.log(1.1))
    # Beyond the bucket's lower edge the next bucket's slope goes on; here it is the same.
    assert tail_margin(shares, le, 2, 1.5) == pytest.approx(2 * np.log(2.5))


def test_midpoints_give_the_variation() -> None:
    # Half at .05, half at .15: mean .1, sd .05.
    assert squared_variation(histogram([[10, 10, 0, 0]]), ALL) == pytest.approx(0.25)


def test_a_longer_tail_shows_as_a_log_ratio() -> None:
    cells = histogram([[800, 100, 60, 40], *[[800, 100, 80, 20]] * 3])
    canary = np.array([True, False, False, False])
    usable = np.ones((4, 1), dtype=np.bool_)
    effects = tail_effects(cells, 2, usable, canary, np.zeros(4))
    assert effects.effect[0] == pytest.approx(np.log(40.5 / 20.5))
    assert effects.sampling_variance[0] == pytest.approx(0.98 / 0.02 / 1000)
