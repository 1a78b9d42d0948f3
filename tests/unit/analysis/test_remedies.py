"""The last of the five lines: true, and something to do, in each situation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference_analysis.evaluation import Evaluation, evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.policies import Gate, Mode, Policy, Statistic
from inference_analysis.remedies import need_text, next_step
from inference_analysis.verdicts import Evidence, Verdict
from support.analysis_simulation import Fleet

MANY = Fleet(canary=4, stable=16, requests=200.0, drift_sd=0.0)
FEW = Fleet(canary=1, stable=3, requests=10.0)
ERRORS = Policy(gates=(Gate(metric="errors", statistic=Statistic.RATE, margin=0.005),))


def judged(
    fleet: Fleet, policy: Policy | None = None, *, fraction: float = 1.0, seed: int = 3
) -> Evaluation:
    data = fleet.observe(np.random.default_rng(seed))
    seen = data.windows(np.arange(fleet.windows) < round(fraction * fleet.windows))
    look = LookRequest(id="a", fraction=fraction)
    return evaluate(seen, policy or Policy(), look, Ledger(), fingerprint="x")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(judged(MANY), "nothing is needed", id="pass"),
        pytest.param(judged(MANY, fraction=0.2), "go on to the next step", id="step"),
        pytest.param(
            judged(replace(MANY, slowdown={"ttft": 1.4})),
            "roll back, remove the cause, retry; a retry is judged on new data only",
            id="fail",
        ),
        pytest.param(
            judged(replace(MANY, canary_load=0.2)),
            "the rollout goes on; for a PASS: set the weight to 20% (4 of 20 pods), which gives "
            "every pod the same",
            id="idle",
        ),
        pytest.param(
            judged(replace(MANY, canary_load=3.0, slowdown={"ttft": 1.3})),
            "to decide: set the weight to 20% (4 of 20 pods), which gives every pod the same",
            id="overloaded",
        ),
        pytest.param(
            judged(replace(FEW, stable=2)),
            "the rollout goes on; for a PASS: ttft/mean, tpot/mean, errors/rate: 3 stable pods "
            "(2 now)",
            id="two-stable-pods",
        ),
        pytest.param(
            judged(replace(MANY, prompt_ratio=1.6)),
            "to decide: split traffic at random, or wait for a like mix of prompts",
            id="another-mix",
        ),
        pytest.param(
            judged(replace(MANY, slow_pods=(0,), canary=2, stable=8), Policy(mode=Mode.PROVE)),
            "to decide: re-create canary-0 on another node and look again",
            id="one-slow-pod",
        ),
    ],
)
def test_the_last_line_says_what_to_do(found: Evaluation, said: str) -> None:
    assert next_step(found) == said


def test_where_nothing_failed_errors_want_as_many_requests_as_the_rule_of_three() -> None:
    # 30 windows of ten requests on one pod: without an error at most 1 % can be excluded.
    found = judged(replace(FEW, error_share=0.0), ERRORS)
    assert found.decision.verdict is Verdict.INCONCLUSIVE
    (result,) = found.results
    assert result.need is not None
    assert result.need.data_factor is not None
    comparison = result.comparison
    assert comparison is not None
    grown = comparison.grown(result.need.data_factor)  # type: ignore[attr-defined]
    assert grown.requests_canary >= 3.0 / result.gate.margin
    assert grown.upper(found.stand.pass_level) == pytest.approx(result.gate.margin, rel=1e-6)
    assert " h more" in need_text(result, found)


def test_a_canary_near_its_margin_is_said_to_be_near_it() -> None:
    found = judged(replace(MANY, requests=40.0, drift_sd=0.02, error_ratio=1.6))
    assert found.decision.evidence is Evidence.WEAK
    text = next_step(found)
    assert "near its margin (+0." in text
    assert "min more if that is what it is" in text


def test_what_the_plan_still_brings_is_not_asked_for() -> None:
    found = judged(replace(FEW, canary=4, stable=16, requests=60.0), fraction=0.4)
    assert found.decision.verdict in {Verdict.PASS, Verdict.INCONCLUSIVE}
    wanting = [r for r in found.results if r.need is not None and r.gate.metric == "errors"]
    assert [need_text(r, found) for r in wanting] == ["the planned end"]


def test_no_way_takes_longer_than_anybody_waits() -> None:
    strict = Policy(gates=(replace(ERRORS.gates[0], margin=0.0002),))
    found = judged(replace(FEW, requests=2.0), strict)
    assert "more pods or more traffic" in next_step(found)
