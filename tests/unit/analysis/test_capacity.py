from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from inference_analysis.capacity import check_capacity
from inference_analysis.confounders import Weight
from support.analysis_simulation import Fleet

if TYPE_CHECKING:
    from inference_analysis.observations import Observations

FLEET = Fleet(canary=2, stable=6, requests=100.0)
PER_REQUEST = 0.0001
"""Share of the KV cache that one request a minute holds."""


def observed(*, kv: float = 1.0, preempted: float = 0.0, seed: int = 3) -> Observations:
    """A fleet whose canary takes ``kv`` times the cache; pods differ by 2 per cent."""
    random = np.random.default_rng(seed)
    data = FLEET.observe(random)
    assert data.requests is not None
    canary = data.canary[:, None]
    own = np.exp(random.normal(0.0, 0.02, size=len(data.pods)))[:, None]
    usage = data.requests.total * PER_REQUEST * own * np.where(canary, kv, 1.0)
    return replace(
        data,
        kv_usage=usage,
        preemptions=np.where(canary, preempted, 0.0) * np.ones_like(usage),
        generated_tokens=np.full(usage.shape, 6000.0),
    )


@pytest.mark.parametrize(
    ("kv", "found"),
    [
        pytest.param(1.0, False, id="equal"),
        pytest.param(1.05, False, id="a-little-more"),
        pytest.param(0.7, False, id="less"),
        pytest.param(1.4, True, id="much-more"),
    ],
)
def test_a_version_that_takes_more_of_the_kv_cache_cannot_pass(kv: float, found: bool) -> None:
    findings = check_capacity(observed(kv=kv))
    assert [f.code for f in findings] == (["capacity"] if found else [])
    for finding in findings:
        assert finding.weight is Weight.BLOCKS_PASS
        # 1 / 1.4 = .71
        assert "full at 7" in finding.text
        # 6,000 tokens in a window of 60 s.
        assert "canary 100, stable 100 tokens/s and pod" in finding.text


@pytest.mark.parametrize(
    ("preempted", "found"),
    [pytest.param(0.0, False, id="none"), pytest.param(1.0, True, id="one-a-window-and-pod")],
)
def test_preempted_requests_beyond_chance_are_found(preempted: float, found: bool) -> None:
    assert ["preemptions"] * found == [
        f.code for f in check_capacity(observed(preempted=preempted))
    ]


def test_without_these_series_nothing_is_said() -> None:
    data = replace(observed(), kv_usage=None, preemptions=None)
    assert check_capacity(data) == []


def test_an_equal_version_is_held_back_in_no_more_cases_than_the_level() -> None:
    # Level .01 and a gap of 15 per cent beyond it: sixty equal fleets give none.
    assert sum(bool(check_capacity(observed(seed=seed))) for seed in range(100, 160)) == 0
