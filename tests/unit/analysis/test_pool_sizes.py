"""Pools of unequal size: a busy smaller one is slower to first token whatever its version."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from inference_analysis.confounders import Weight
from inference_analysis.evaluation import Evaluation, evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.policies import Gate, Policy, Statistic
from inference_analysis.pool_sizes import check_pools
from inference_analysis.remedies import next_step
from inference_analysis.units import units_of
from inference_analysis.verdicts import Action, Outcome, Verdict
from support.analysis_simulation import Fleet

if TYPE_CHECKING:
    from inference_analysis.observations import Observations

TTFT = Gate(metric="ttft", statistic=Statistic.MEAN, margin=0.1)
TAIL = Gate(metric="ttft", statistic=Statistic.TAIL, margin=0.1)
TPOT = Gate(metric="tpot", statistic=Statistic.MEAN, margin=0.1)
STEADY = Fleet(requests=200.0, drift_sd=0.0)


def busy(fleet: Fleet, running: float = 3.0) -> Observations:
    data = fleet.observe(np.random.default_rng(11))
    return replace(data, running=np.full(data.usable.shape, running))


def judged(data: Observations, *gates: Gate, bias: float = 0.15) -> Evaluation:
    policy = Policy(gates=gates or (TTFT,), pool_bias=bias)
    return evaluate(data, policy, LookRequest(id="a", fraction=1.0), Ledger(), fingerprint="x")


@pytest.mark.parametrize("gate", [TTFT, TAIL], ids=["mean", "tail"])
def test_a_difference_that_the_smaller_pool_explains_pauses(gate: Gate) -> None:
    found = judged(busy(replace(STEADY, canary=4, stable=16, slowdown={"ttft": 1.12})), gate)
    assert found.results[0].outcome is Outcome.BLOCKED
    assert found.decision.action is Action.PAUSE
    assert "4 canary and 16 stable pods are busy" in found.decision.reasons[0]
    assert "as many pods (setCanaryScale)" in next_step(found)


def test_one_beyond_what_the_pool_explains_fails() -> None:
    found = judged(busy(replace(STEADY, canary=4, stable=16, slowdown={"ttft": 1.3})))
    assert found.decision.verdict is Verdict.FAIL


def test_time_between_tokens_does_not_depend_on_the_pool() -> None:
    data = busy(replace(STEADY, canary=4, stable=16, slowdown={"ttft": 1.12, "tpot": 1.12}))
    found = judged(data, TTFT, TPOT)
    assert [r.outcome for r in found.results] == [Outcome.BLOCKED, Outcome.FAIL]
    assert found.decision.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(busy(replace(STEADY, canary=4, stable=4)), id="equal-pools"),
        pytest.param(busy(STEADY, running=0.1), id="idle-pods"),
        pytest.param(STEADY.observe(np.random.default_rng(11)), id="load-unknown"),
        pytest.param(busy(replace(STEADY, control=2)), id="one-pool-with-a-control"),
    ],
)
def test_there_is_nothing_to_say_about(data: Observations) -> None:
    assert check_pools(data, units_of(data), Policy(gates=(TTFT,))) == []


def test_it_can_be_switched_off() -> None:
    data = busy(replace(STEADY, canary=4, stable=16, slowdown={"ttft": 1.12}))
    assert judged(data, bias=0.0).decision.verdict is Verdict.FAIL


def test_a_larger_canary_pool_looks_faster_than_it_is_and_does_not_pass_by_that() -> None:
    found = judged(busy(replace(STEADY, canary=16, stable=4)))
    assert [f.weight for f in found.findings] == [Weight.BLOCKS_PASS]
    assert found.decision.verdict is Verdict.INCONCLUSIVE
