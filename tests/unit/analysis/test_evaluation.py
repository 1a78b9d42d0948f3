from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from inference_analysis.errors import InputError
from inference_analysis.evaluation import Evaluation, evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.observations import Arm, Observations, Pod
from inference_analysis.policies import Gate, Limit, Mode, Policy, Prior, Role, Statistic
from inference_analysis.verdicts import Action, Evidence, Outcome, Verdict
from support.analysis_simulation import Fleet, Metric, Plan, play

FLEET = Fleet(requests=200.0, drift_sd=0.0)
TTFT = Gate(metric="ttft", statistic=Statistic.MEAN, margin=0.1)
ERRORS = Gate(metric="errors", statistic=Statistic.RATE, margin=0.005)
POLICY = Policy(gates=(TTFT, ERRORS))


def observed(fleet: Fleet = FLEET, seed: int = 11) -> Observations:
    return fleet.observe(np.random.default_rng(seed))


def once(
    data: Observations, policy: Policy = POLICY, fraction: float = 1.0, ledger: Ledger | None = None
) -> Evaluation:
    request = LookRequest(id="run", fraction=fraction)
    return evaluate(data, policy, request, ledger or Ledger(), fingerprint="a")


def test_a_good_version_passes_at_the_planned_end() -> None:
    decision = once(observed()).decision
    assert (decision.verdict, decision.action) == (Verdict.PASS, Action.PROCEED)
    assert decision.evidence is Evidence.PROVED


def test_before_the_end_a_good_version_passes_only_its_step() -> None:
    decision = once(observed(), fraction=0.4).decision
    assert (decision.verdict, decision.evidence) == (Verdict.PASS, Evidence.STEP)


def test_a_slower_version_fails_and_the_reason_has_size_and_certainty() -> None:
    found = once(observed(replace(FLEET, slowdown={"ttft": 1.3})))
    assert (found.decision.verdict, found.decision.action) == (Verdict.FAIL, Action.ABORT)
    (reason,) = found.decision.reasons
    assert reason.startswith("ttft/mean is worse by +")
    assert "at level" in reason


def test_a_version_with_twice_the_errors_fails() -> None:
    found = once(observed(replace(FLEET, error_ratio=3.0)))
    assert found.decision.verdict is Verdict.FAIL
    assert found.decision.reasons[0].startswith("errors/rate is worse by")


def test_worse_answers_fail() -> None:
    data = observed(replace(FLEET, prompts=300, quality_loss=0.15))
    gate = Gate(metric="quality", statistic=Statistic.SCORE, margin=0.05)
    found = once(data, Policy(gates=(gate,)))
    assert found.decision.verdict is Verdict.FAIL
    assert found.results[0].comparison is not None
    assert found.results[0].comparison.unit == "prompt"


@pytest.mark.parametrize(
    ("mode", "action", "evidence"),
    [
        pytest.param(Mode.GUARD, Action.PROCEED, Evidence.WEAK, id="guard-goes-on"),
        pytest.param(Mode.PROVE, Action.PAUSE, Evidence.NONE, id="prove-pauses"),
    ],
)
def test_too_little_power_is_weak_evidence_or_a_pause(
    mode: Mode, action: Action, evidence: Evidence
) -> None:
    noisy = replace(FLEET, canary=1, stable=3, pod_sd=0.1)
    decision = once(observed(noisy), replace(POLICY, mode=mode)).decision
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert (decision.action, decision.evidence) == (action, evidence)


@pytest.mark.parametrize("mode", list(Mode))
def test_gross_harm_fails_at_the_first_look_with_one_canary_and_three_stable_pods(
    mode: Mode,
) -> None:
    fleet = replace(FLEET, canary=1, stable=3, slowdown={"ttft": 2.5}, windows=3)
    found = once(observed(fleet), replace(POLICY, mode=mode), fraction=0.1)
    assert found.decision.action is Action.ABORT
    assert found.decision.reasons[0].startswith("ttft is 2.")


def test_a_few_slow_requests_are_not_gross_harm() -> None:
    # 60 requests with a squared variation of 11: a ratio of 1.8 is chance.
    wide = {"ttft": Metric(sdlog=1.6)}
    fleet = replace(FLEET, canary=1, stable=3, metrics=wide, windows=2, requests=30.0)
    for seed in range(40):
        found = once(observed(fleet, seed), Policy(gates=(TTFT,)), fraction=0.1)
        assert not any(check.fired for check in found.gross)


def test_one_slow_canary_pod_is_named_instead_of_failing_the_version() -> None:
    fleet = replace(FLEET, slow_pods=(1,), pod_sd=0.01)
    found = once(observed(fleet))
    assert found.results[0].outcome is Outcome.SUSPECT
    assert found.decision.action is Action.PAUSE
    assert "only because of canary-1 on node node-1" in found.decision.reasons[0]


def test_with_one_canary_pod_a_second_opinion_can_be_asked_for() -> None:
    data = observed(replace(FLEET, canary=1, stable=12, slowdown={"ttft": 1.2}))
    assert once(data).decision.verdict is Verdict.FAIL
    found = once(data, replace(POLICY, confirm_single_pod=True))
    assert found.results[0].outcome is Outcome.SUSPECT


def test_harm_inside_the_harm_margin_is_tolerated() -> None:
    data = observed(
        replace(FLEET, canary=4, stable=16, pod_sd=0.005, slowdown={"ttft": 1.05}, requests=400.0)
    )
    wide = replace(TTFT, margin=0.051)
    assert once(data, Policy(gates=(wide,))).decision.verdict is Verdict.FAIL
    tolerant = replace(wide, harm_margin=0.05)
    assert once(data, Policy(gates=(tolerant,))).decision.verdict is not Verdict.FAIL


def test_other_hardware_blocks_latency_but_not_errors() -> None:
    fleet = replace(FLEET, slowdown={"ttft": 3.0})

    def move(data: Observations) -> Observations:
        pods = tuple(
            Pod(name=p.name, arm=p.arm, hardware="L4" if p.arm is Arm.CANARY else "H100")
            for p in data.pods
        )
        return replace(data, pods=pods)

    found = once(move(observed(fleet)))
    assert (found.decision.verdict, found.decision.action) == (
        Verdict.INCONCLUSIVE,
        Action.PAUSE,
    )
    assert "the canary runs on L4, stable on H100" in found.decision.reasons[0]
    failing = once(move(observed(replace(fleet, error_ratio=4.0))))
    assert failing.decision.verdict is Verdict.FAIL


def test_an_overloaded_canary_is_not_called_slow() -> None:
    found = once(observed(replace(FLEET, canary_load=2.0, slowdown={"ttft": 1.3})))
    assert found.results[0].outcome is Outcome.BLOCKED
    assert "2.0" in found.decision.reasons[0]
    assert "the weight to 20%" in found.findings[0].remedy


def test_an_idle_canary_is_weak_evidence_even_when_it_looks_fine() -> None:
    found = once(observed(replace(FLEET, canary_load=0.4)))
    assert found.decision.evidence is Evidence.WEAK
    assert "looks faster than it is" in found.decision.reasons[0]


def test_a_secondary_gate_can_stop_but_is_not_needed_to_pass() -> None:
    tail = Gate(metric="ttft", statistic=Statistic.TAIL, role=Role.SECONDARY, margin=0.1)
    policy = Policy(gates=(TTFT, tail))
    passed = once(observed(), policy)
    assert passed.decision.verdict is Verdict.PASS
    slow_tail = replace(FLEET, canary=4, stable=16, tail={"ttft": 1.6})
    assert once(observed(slow_tail), policy).decision.verdict is Verdict.FAIL


def test_an_absolute_limit_fails_a_canary_that_breaks_it_alone() -> None:
    limit = Limit(metric="ttft", seconds=0.75, share=0.08)
    policy = replace(POLICY, limits=(limit,))
    slow = replace(FLEET, slowdown={"ttft": 1.45})
    found = once(observed(slow), policy, fraction=0.1)
    assert any(c.fired and c.check == "ttft limit" for c in found.gross)
    both = replace(limit, share=0.01)
    found = once(observed(slow), replace(POLICY, limits=(both,)), fraction=0.1)
    assert not any(c.fired and c.check == "ttft limit" for c in found.gross)


def test_history_lends_power_to_few_pods() -> None:
    data = observed(replace(FLEET, canary=1, stable=3, slowdown={"ttft": 1.2}))
    prior = replace(POLICY, priors=MappingProxyType({"ttft": Prior(sd=0.02, pods=12)}))
    assert once(data, prior).results[0].mde < once(data).results[0].mde
    assert once(data, prior).decision.verdict is Verdict.FAIL


def test_the_same_run_replays_its_verdict_on_later_data() -> None:
    data = observed(replace(FLEET, slowdown={"ttft": 1.1}))
    early = data.windows(np.arange(30) < 12)
    first = once(early, fraction=0.4)
    again = once(data, fraction=0.4, ledger=first.ledger)
    assert again.stand.replayed
    assert again.decision == first.decision
    assert again.results == first.results
    assert again.ledger == first.ledger


def test_a_retry_forgets_the_data_before_it() -> None:
    slow, good = (
        observed(replace(FLEET, slowdown={"ttft": ratio}), seed=5) for ratio in (1.4, 1.0)
    )
    book = once(slow).ledger
    both = replace(
        good,
        start_s=np.concatenate((slow.start_s, good.start_s + 3600.0)),
        seconds=np.concatenate((slow.seconds, good.seconds)),
        usable=np.hstack((slow.usable, good.usable)),
        requests=None,
        histograms={
            "ttft": replace(
                good.histograms["ttft"],
                count=np.hstack([o.histograms["ttft"].count for o in (slow, good)]),
                sum=np.hstack([o.histograms["ttft"].sum for o in (slow, good)]),
                buckets=np.hstack([o.histograms["ttft"].buckets for o in (slow, good)]),
            )
        },
    )
    request = LookRequest(id="retry", fraction=1.0, aborted_at_s=3600.0)
    found = evaluate(both, Policy(gates=(TTFT,)), request, book, fingerprint="a")
    assert found.stand.segment.epoch == 2
    assert found.observations.start_s.size == 30
    assert found.decision.verdict is not Verdict.FAIL


def test_a_canary_without_a_request_is_an_error_and_never_a_pass() -> None:
    data = observed()
    usable = data.usable & ~data.canary[:, None]
    with pytest.raises(InputError, match="no usable request of the canary pods"):
        once(replace(data, usable=usable))


def test_a_gate_without_data_is_an_error_that_says_what_there_is() -> None:
    gate = Gate(metric="ttfb", statistic=Statistic.MEAN, margin=0.1)
    with pytest.raises(InputError, match=r"no data for ttfb/mean \(found tpot, ttft\)"):
        once(observed(), Policy(gates=(gate,)))


def test_too_few_stable_pods_are_weak_evidence() -> None:
    found = once(observed(replace(FLEET, canary=1, stable=2)))
    assert found.decision.evidence is Evidence.WEAK
    assert "1 and 3 are needed" in found.decision.reasons[0]


def test_an_undecided_gate_says_what_would_decide_it() -> None:
    found = once(observed(replace(FLEET, pod_sd=0.06)))
    need = found.results[0].need
    assert need is not None
    assert need.canary_pods is not None
    assert need.canary_pods > 2


def test_prompts_alone_are_enough_to_judge_answers() -> None:
    data = replace(
        observed(replace(FLEET, prompts=300)),
        pods=(),
        usable=np.ones((0, 30), dtype=np.bool_),
        histograms={},
        requests=None,
    )
    found = once(data, Policy())
    assert [r.gate.name for r in found.results] == ["quality/score"]
    assert found.decision.verdict is Verdict.PASS


def test_play_stops_at_the_first_failure() -> None:
    run = play(replace(FLEET, slowdown={"ttft": 3.0}), POLICY, Plan(), np.random.default_rng(1))
    assert run.failed_at == 1
    assert len(run.evaluations) == 1


def test_a_gate_on_answers_compares_the_prompts_of_its_measure_alone() -> None:
    good = observed(replace(FLEET, prompts=300))
    bad = observed(replace(FLEET, prompts=300, quality_loss=0.2))
    data = replace(
        good, prompts=(*good.prompts, *(replace(p, measure="judge") for p in bad.prompts))
    )
    found = once(data, Policy())
    scored = [r for r in found.results if r.gate.statistic is Statistic.SCORE]
    assert {r.gate.name: r.outcome for r in scored} == {
        "quality/score": Outcome.PROVED,
        "judge/score": Outcome.FAIL,
    }
    assert {worst.measure for worst in found.worst_prompts} == {"judge"}
    assert [topic.prompts for topic in found.topics] == [300, 300]
