from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference_analysis.comparisons import compare_pods
from inference_analysis.confounders import (
    Weight,
    adjusted,
    check_drift,
    check_hardware,
    check_load,
    check_mix,
)
from inference_analysis.latencies import mean_effects
from inference_analysis.observations import Arm, FloatArray, Histogram, Observations, Pod
from inference_analysis.policies import Policy
from inference_analysis.units import units_of
from support.analysis_simulation import TTFT, Fleet

FLEET = Fleet(requests=200.0, pod_sd=0.005, drift_sd=0.0)


def observed(fleet: Fleet = FLEET, seed: int = 3) -> Observations:
    return fleet.observe(np.random.default_rng(seed))


def on_hardware(observations: Observations, canary: str, stable: list[str]) -> Observations:
    others = iter(stable)
    return replace(
        observations,
        pods=tuple(
            Pod(name=p.name, arm=p.arm, hardware=canary if p.arm is Arm.CANARY else next(others))
            for p in observations.pods
        ),
    )


@pytest.mark.parametrize(
    ("stable", "weights"),
    [
        pytest.param(["a"] * 8, [Weight.BLOCKS], id="stable-elsewhere"),
        pytest.param(["a"] * 7 + ["b"], [Weight.BLOCKS], id="one-stable-pod-there"),
        pytest.param(["a"] * 4 + ["b"] * 4, [], id="enough-stable-pods-there"),
    ],
)
def test_hardware_that_only_the_canary_has_blocks(stable: list[str], weights: list[str]) -> None:
    findings = check_hardware(on_hardware(observed(), "b", stable))
    assert [f.weight for f in findings] == weights


def test_a_single_stable_pod_is_too_few_not_other_hardware() -> None:
    data = observed(Fleet(canary=1, stable=1))
    assert check_hardware(data) == []


@pytest.mark.parametrize(
    ("load", "weight"),
    [
        pytest.param(0.3, Weight.BLOCKS_PASS, id="idle"),
        pytest.param(2.0, Weight.BLOCKS_FAIL, id="overloaded"),
        pytest.param(1.0, None, id="equal"),
    ],
)
def test_unequal_load_is_named_with_the_weight_that_evens_it(
    load: float, weight: str | None
) -> None:
    findings = check_load(observed(replace(FLEET, canary_load=load)), Policy())
    assert [f.weight for f in findings] == ([weight] if weight else [])
    assert all("the weight to 20% (2 of 10 pods)" in f.remedy for f in findings)


def with_prompts(observations: Observations, tokens: FloatArray) -> Observations:
    """The same with prompt lengths, which drive the latency one to one."""
    ttft = observations.histograms["ttft"]
    longer = Histogram(le=ttft.le, count=ttft.count, sum=ttft.sum * tokens, buckets=ttft.buckets)
    prompt_tokens = Histogram(
        le=ttft.le, count=ttft.count, sum=ttft.count * 500.0 * tokens, buckets=ttft.buckets
    )
    return replace(observations, histograms={"ttft": longer, "prompt_tokens": prompt_tokens})


def lengths(observations: Observations, canary: float) -> FloatArray:
    rng = np.random.default_rng(5)
    spread = np.exp(0.1 * rng.standard_normal(observations.usable.shape))
    return spread * np.where(observations.canary, canary, 1.0)[:, None]


def test_somewhat_longer_prompts_are_adjusted_for() -> None:
    plain = observed()
    data = with_prompts(plain, lengths(plain, 1.15))
    findings, mix = check_mix(data, units_of(data))
    assert [f.weight for f in findings] == [Weight.NOTE]
    assert mix is not None
    ttft = data.histograms["ttft"]
    strata = np.zeros(len(data.pods))
    effects = mean_effects(ttft, data.usable, data.canary, strata)
    raw = compare_pods(effects)
    corrected = adjusted(effects, mix, ttft, data)
    assert raw is not None
    assert corrected is not None
    fixed = compare_pods(corrected[0], added_variance=corrected[1])
    assert fixed is not None
    assert raw.estimate == pytest.approx(np.log(1.15), abs=0.05)
    assert raw.harm_p(0.0) < 1e-4
    assert fixed.estimate == pytest.approx(0.0, abs=0.03)
    assert fixed.harm_p(0.0) > 0.02


def test_much_longer_prompts_block() -> None:
    plain = observed()
    findings, mix = check_mix(with_prompts(plain, lengths(plain, 1.4)), units_of(plain))
    assert [f.weight for f in findings] == [Weight.BLOCKS]
    assert mix is None


def test_equal_prompts_are_no_finding_and_change_little() -> None:
    plain = observed()
    data = with_prompts(plain, lengths(plain, 1.0))
    findings, mix = check_mix(data, units_of(plain))
    assert findings == []
    assert mix is not None
    assert not mix.shown
    ttft, strata = data.histograms["ttft"], np.zeros(len(data.pods))
    effects = mean_effects(ttft, data.usable, data.canary, strata)
    corrected = adjusted(effects, mix, ttft, data)
    assert corrected is not None
    before, after = compare_pods(effects), compare_pods(corrected[0], added_variance=corrected[1])
    assert before is not None
    assert after is not None
    assert after.estimate == pytest.approx(before.estimate, abs=0.03)


def test_longer_answers_and_a_colder_cache_are_worth_a_word() -> None:
    fleet = replace(FLEET, metrics={"output_tokens": TTFT}, slowdown={"output_tokens": 1.3})
    data = observed(fleet)
    canary = np.broadcast_to(data.canary[:, None], data.usable.shape)
    data = replace(
        data,
        cache_queries=np.full(data.usable.shape, 100.0),
        cache_hits=np.where(canary, 30.0, 60.0),
    )
    findings = {f.code: f for f in check_drift(data)}
    assert set(findings) == {"drift", "cache"}
    assert all(f.weight is Weight.NOTE for f in findings.values())
    assert findings["cache"].text == "prefix cache hits: canary 30%, stable 60%"
