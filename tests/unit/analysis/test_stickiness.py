"""Sticky users: buckets of users are the unit as soon as they differ by more than pods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference_analysis.observations import Arm, Histogram, Observations, Pod, Requests
from inference_analysis.stickiness import check_users, user_error, widened
from inference_analysis.units import units_of
from support.analysis_simulation import Fleet


def users(counts: list[float], *, width: int = 10) -> Observations:
    """The same buckets on canary and control, with these requests a window."""
    rows = np.repeat(np.array([*counts, *counts])[:, None], width, axis=1)
    buckets = np.zeros((*rows.shape, 2), dtype=np.int32)
    return Observations(
        pods=tuple(Pod(name=f"{i}", arm=arm) for arm in Arm for i in range(len(counts))),
        start_s=60.0 * np.arange(width, dtype=np.float64),
        seconds=np.full(width, 60.0),
        usable=np.ones(rows.shape, dtype=np.bool_),
        histograms={
            "ttft": Histogram(le=np.array([1.0]), count=rows, sum=rows * 0.2, buckets=buckets)
        },
        requests=Requests(total=rows, errors=np.zeros(rows.shape)),
    )


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        pytest.param([10.0] * 7, "only 7 buckets of users reach the canary", id="seven"),
        pytest.param([10.0] * 8, "", id="eight"),
        pytest.param([10.0] * 16 + [45.0], "sends 22% of the canary's requests", id="one-heavy"),
    ],
)
def test_few_users_or_one_heavy_one_are_no_sample(counts: list[float], text: str) -> None:
    found = check_users(replace(users(counts), sticky=users(counts)))
    assert bool(found) is bool(text)
    assert text in "".join(f.text for f in found)


def test_the_error_is_that_of_a_ratio_over_clusters() -> None:
    """Cochran 1977, section 6.4, by hand: O = (1, 3), E = (2, 2), R = 1; control alike."""
    outcome = np.array([[1.0], [3.0], [1.0], [3.0]]) * 10.0
    requests = np.full((4, 1), 20.0)
    canary = np.array([True, True, False, False])
    found = user_error(outcome, requests, canary)
    assert found is not None
    # Each arm: n / (n - 1) * (10^2 + 10^2) / 40^2 = .25; E are equal, so two effective clusters.
    assert found.se == pytest.approx(np.sqrt(0.5), rel=1e-12)
    assert found.df == pytest.approx(2.0, rel=1e-12)


def test_heavy_buckets_count_as_few() -> None:
    requests = np.array([[100.0], [1.0], [1.0], [10.0], [10.0], [10.0]])
    canary = np.array([True, True, True, False, False, False])
    outcome = requests * np.array([[1.1], [0.9], [1.0], [1.0], [1.001], [0.999]])
    found = user_error(outcome, requests, canary)
    assert found is not None
    assert found.df < 1.1


def test_the_larger_of_both_errors_counts() -> None:
    data = Fleet(canary=2, stable=8).observe(np.random.default_rng(1))
    comparison = units_of(data).compare(units_of(data).mean(data.histograms["ttft"], data))
    assert comparison is not None
    wide, narrow = (
        widened(comparison, error)
        for error in (
            user_error(
                np.array([[1.0], [9.0], [1.0], [9.0]]), np.full((4, 1), 20.0), np.arange(4) < 2
            ),
            None,
        )
    )
    assert narrow is comparison
    assert wide.se > comparison.se
    assert wide.unit == "bucket of users"
    assert wide.estimate == comparison.estimate
