"""Adapters that share pods: each pod is its own control."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from inference_analysis.errors import InputError
from inference_analysis.evaluation import Evaluation, evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.observations import Arm, Histogram, Observations, Pod, Requests
from inference_analysis.pairs import compare_pairs
from inference_analysis.policies import Gate, Policy, Prior, Statistic
from inference_analysis.units import Kind, units_of
from inference_analysis.verdicts import Outcome, Verdict

TTFT = Gate(metric="ttft", statistic=Statistic.MEAN, margin=0.1)
TPOT = Gate(metric="tpot", statistic=Statistic.MEAN, margin=0.1)
POLICY = Policy(gates=(TTFT,))
EDGES = np.array([0.1, 0.2, 0.4, 1.0])


def shared(
    pods: int, slowdown: float = 1.0, *, seed: int = 3, width: int = 30, noise: float = 0.02
) -> Observations:
    """Pods that differ by a factor of two from each other; each serves both adapters alike."""
    rng = np.random.default_rng(seed)
    level = 0.2 * np.exp(rng.normal(0.0, 0.4, pods))
    counts = np.full((2 * pods, width), 20.0)
    mean = np.concatenate([level * slowdown, level])[:, None] * np.exp(
        noise * rng.standard_normal((2 * pods, width))
    )
    buckets = np.zeros((2 * pods, width, 5), dtype=np.int32)
    buckets[:, :, 1] = 20
    histogram = Histogram(le=EDGES, count=counts, sum=counts * mean, buckets=buckets)
    return Observations(
        pods=tuple(
            Pod(name=f"pod-{i}/{arm.value}", arm=arm, server=f"pod-{i}", node=f"n{i}")
            for arm in Arm
            for i in range(pods)
        ),
        start_s=60.0 * np.arange(width, dtype=np.float64),
        seconds=np.full(width, 60.0),
        usable=np.ones((2 * pods, width), dtype=np.bool_),
        histograms={"ttft": histogram, "tpot": histogram},
        requests=Requests(total=counts, errors=np.zeros_like(counts)),
    )


def judged(data: Observations, policy: Policy = POLICY) -> Evaluation:
    look = LookRequest(id="a", fraction=1.0)
    return evaluate(data, policy, look, Ledger(), fingerprint="x")


def test_the_test_is_scipys_one_sample_t_on_the_log_ratios_of_pods() -> None:
    data = shared(6, 1.03)
    units = units_of(data)
    effects = units.mean(data.histograms["ttft"], data)
    found = units.compare(effects)
    assert found is not None
    sums, half = data.histograms["ttft"].sum, 6
    # E_i = sum over windows of the control's own mean, at equal counts the control's sum.
    ratios = np.log(sums[:half].sum(axis=1) / sums[half:].sum(axis=1))
    expected = stats.ttest_1samp(ratios, 0.0, alternative="greater")
    assert found.harm_p(0.0) == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.unit, found.n_canary, found.df) == ("pod x adapter", 6, 5.0)


@pytest.mark.parametrize(
    ("slowdown", "verdict"),
    [
        pytest.param(1.0, Verdict.PASS, id="equal-though-pods-differ-by-a-factor"),
        pytest.param(1.2, Verdict.FAIL, id="a-fifth-slower"),
    ],
)
def test_pods_that_differ_do_not_hide_what_adapters_differ_by(
    slowdown: float, verdict: Verdict
) -> None:
    assert judged(shared(5, slowdown)).decision.verdict is verdict


def test_fewer_than_four_shared_pods_are_compared_window_by_window() -> None:
    assert units_of(shared(3)).kind is Kind.WINDOWS
    short = judged(shared(1)).results[0]
    assert short.outcome is Outcome.NO_DATA
    assert "at least 60 windows" in short.reason
    found = judged(shared(1, 1.2, width=120)).results[0]
    assert found.comparison is not None
    assert (found.comparison.unit, found.comparison.n_canary) == ("batch of windows", 5)
    assert found.outcome is Outcome.FAIL
    assert judged(shared(2, width=120)).decision.verdict is Verdict.PASS


def test_windows_that_follow_each_other_closely_decide_nothing() -> None:
    data = shared(1, width=120)
    wave = np.exp(0.5 * np.sin(np.arange(120) / 8.0))
    histogram = data.histograms["ttft"]
    sums = histogram.sum * np.vstack([wave, np.ones(120)])
    found = judged(replace(data, histograms={"ttft": replace(histogram, sum=sums)})).results[0]
    assert found.outcome is Outcome.NO_DATA


def test_gross_harm_is_seen_on_a_single_shared_pod() -> None:
    found = judged(shared(1, 3.0, width=5))
    assert found.decision.verdict is Verdict.FAIL
    assert [check.check for check in found.gross if check.fired] == ["ttft ratio"]


def test_a_prior_moderates_pairs() -> None:
    data = shared(4)
    units = units_of(data)
    effects = units.mean(data.histograms["ttft"], data)
    plain, informed = (
        compare_pairs(effects, prior=prior) for prior in (None, Prior(sd=0.05, pods=11))
    )
    assert plain is not None
    assert informed is not None
    assert informed.df == plain.df + 10.0
    # (10 * ((1.2 * .05)^2 + 2 v) + 3 s^2) / 13 over four pairs.
    s2, v = plain.se**2 * 4, effects.sampling_variance[effects.canary].mean()
    expected = (10.0 * (0.06**2 + 2.0 * v) + 3.0 * s2) / 13.0 / 4.0
    assert informed.se**2 == pytest.approx(expected, rel=1e-9)


def test_a_metric_for_display_decides_nothing_and_costs_nothing() -> None:
    """Without a control alias the canary's prefix cache is colder: TTFT is biased."""
    data = replace(shared(5, 1.3), display={"ttft": "no control adapter"})
    steady = replace(data.histograms["tpot"], sum=shared(5).histograms["tpot"].sum)
    data = replace(data, histograms={"ttft": data.histograms["ttft"], "tpot": steady})
    found = judged(data, Policy(gates=(TTFT, TPOT)))
    assert found.decision.verdict is Verdict.PASS
    assert [(r.gate.name, r.outcome) for r in found.results] == [
        ("tpot/mean", Outcome.PROVED),
        ("ttft/mean", Outcome.SHOWN),
    ]
    assert found.results[1].comparison is not None
    assert found.results[0].fail_level == judged(data, Policy(gates=(TPOT,))).results[0].fail_level
    with pytest.raises(InputError, match="every primary one is display only"):
        judged(data, POLICY)


@pytest.mark.parametrize(
    ("covered", "blocked"),
    [
        pytest.param((20.0, 20.0), False, id="the-same"),
        pytest.param((20.0, 19.2), False, id="four-points"),
        pytest.param((20.0, 18.8), True, id="six-points"),
    ],
)
def test_sampling_that_differs_between_the_arms_blocks(
    covered: tuple[float, float], blocked: Any
) -> None:
    data = shared(5)
    columns = np.repeat(np.array(covered), 5)[:, None] * np.ones(30)
    found = judged(replace(data, covered=columns))
    assert (found.results[0].outcome is Outcome.BLOCKED) is blocked
    assert any(f.code == "coverage" for f in found.findings) is blocked


def test_a_control_with_another_share_is_said_to_have_another_cache() -> None:
    data = shared(5)
    assert data.requests is not None
    total = data.requests.total.copy()
    total[5:] *= 10.0
    found = judged(replace(data, requests=replace(data.requests, total=total)))
    assert any("give the control the canary's share" in f.remedy for f in found.findings)


def test_a_third_look_at_batches_of_windows_is_inconclusive_and_says_so() -> None:
    # Five batches of one source hold their level for two looks, whatever a third would see.
    slow = shared(3, 1.3, width=90, noise=0.01)
    policy = replace(POLICY, family_alpha=1e-12, primary_alpha=1e-12)
    ledger, seen = Ledger(), []
    for number in (1, 2, 3):
        look = LookRequest(id=str(number), fraction=number / 3)
        strict = policy if number < 3 else replace(POLICY, family_alpha=0.04)
        found = evaluate(slow, strict, look, ledger, fingerprint="x")
        ledger = found.ledger
        seen.append(found)
    assert all(f.results[0].outcome is not Outcome.BLOCKED for f in seen[:2])
    assert seen[2].results[0].outcome is Outcome.BLOCKED
    assert seen[2].decision.verdict is Verdict.INCONCLUSIVE
    assert seen[2].decision.reasons == (
        "batches of windows allow 2 looks at one try, and this is number 3",
    )


def test_a_retry_after_an_abort_may_look_at_windows_twice_again() -> None:
    data = shared(3, width=180)
    ledger = Ledger()
    for number in (1, 2):
        look = LookRequest(id=str(number), fraction=number / 2)
        ledger = evaluate(data, POLICY, look, ledger, fingerprint="x").ledger
    again = LookRequest(id="3", fraction=0.5, aborted_at_s=60.0 * 90)
    found = evaluate(data, POLICY, again, ledger, fingerprint="x")
    assert found.results[0].outcome is not Outcome.BLOCKED
