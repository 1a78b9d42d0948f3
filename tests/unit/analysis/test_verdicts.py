from __future__ import annotations

from dataclasses import replace

import pytest

from inference_analysis.comparisons import TComparison
from inference_analysis.confounders import Finding, Weight
from inference_analysis.gross_harm import GrossHarm
from inference_analysis.ledgers import Ledger, LookRequest, Stand, stand
from inference_analysis.policies import Gate, Mode, Policy, Role, Statistic
from inference_analysis.verdicts import (
    Action,
    Evidence,
    GateResult,
    Outcome,
    Verdict,
    decide,
    judge,
)

GATE = Gate(metric="ttft", statistic=Statistic.MEAN, margin=0.1)
SECONDARY = replace(GATE, metric="e2e", role=Role.SECONDARY)
POLICY = Policy(gates=(GATE,))
PROVE = replace(POLICY, mode=Mode.PROVE)
MARGINS = (0.1, 0.2, 0.0)


def standing(fraction: float = 1.0, *, epoch: int = 1) -> Stand:
    ledger = Ledger()
    for number in range(epoch - 1):
        request = LookRequest(id=str(number), fraction=1.0, aborted_at_s=number * 10.0)
        ledger = stand(ledger, request, POLICY, fingerprint="a", until_s=1.0).booked("fail", {})
    request = LookRequest(id="now", fraction=fraction, aborted_at_s=(epoch - 1) * 10.0)
    return stand(ledger, request, POLICY, fingerprint="a", until_s=1.0)


def comparison(estimate: float, se: float) -> TComparison:
    return TComparison(
        estimate=estimate, se=se, df=30.0, n_canary=4, n_stable=31, unit="pod", method="t"
    )


@pytest.mark.parametrize(
    ("estimate", "se", "fraction", "margins", "outcome"),
    [
        pytest.param(0.15, 0.02, 1.0, MARGINS, Outcome.FAIL, id="harm-beyond-the-margin"),
        pytest.param(0.09, 0.02, 1.0, MARGINS, Outcome.FAIL, id="harm-maybe-beyond-the-margin"),
        pytest.param(0.05, 0.01, 1.0, MARGINS, Outcome.PROVED, id="certain-harm-inside-the-margin"),
        pytest.param(0.05, 0.01, 0.5, MARGINS, Outcome.OPEN_STEP, id="the-same-before-the-end"),
        pytest.param(0.15, 0.02, 1.0, (0.1, 0.2, 0.14), Outcome.OPEN_STEP, id="harm-tolerated"),
        pytest.param(0.0, 0.02, 1.0, MARGINS, Outcome.PROVED, id="no-difference"),
        pytest.param(0.0, 0.1, 1.0, MARGINS, Outcome.OPEN_STEP, id="too-wide-for-the-margin"),
        pytest.param(0.0, 0.3, 1.0, MARGINS, Outcome.UNDECIDED, id="too-wide-for-a-step"),
        pytest.param(0.09, 0.04, 1.0, MARGINS, Outcome.OPEN_STEP, id="p-.016-at-level-.011"),
        pytest.param(0.15, 0.05, 0.1, MARGINS, Outcome.UNDECIDED, id="three-errors-at-first-look"),
    ],
)
def test_rule_b(
    estimate: float,
    se: float,
    fraction: float,
    margins: tuple[float, float, float],
    outcome: Outcome,
) -> None:
    policy = Policy(gates=(GATE, replace(GATE, metric="a"), replace(GATE, metric="b")))
    found = judge(GATE, comparison(estimate, se), standing(fraction), policy, margins=margins)
    assert found.outcome is outcome


def result(outcome: Outcome, gate: Gate = GATE) -> GateResult:
    return GateResult(gate=gate, outcome=outcome, reason=f"{gate.metric} {outcome}")


GROSS = GrossHarm(check="ttft ratio", fired=True, observed=2.0, threshold=1.5, text="gross")
IDLE = Finding(code="load", weight=Weight.BLOCKS_PASS, text="idle")
PASS = (Verdict.PASS, Action.PROCEED)
FAIL = (Verdict.FAIL, Action.ABORT)
WEAK = (Verdict.INCONCLUSIVE, Action.PROCEED)
PAUSE = (Verdict.INCONCLUSIVE, Action.PAUSE)


@pytest.mark.parametrize(
    ("results", "fraction", "guard", "prove"),
    [
        pytest.param([result(Outcome.PROVED)], 1.0, PASS, PASS, id="proved"),
        pytest.param([result(Outcome.OPEN_STEP)], 0.5, PASS, PASS, id="step-before-the-end"),
        pytest.param([result(Outcome.OPEN_STEP)], 1.0, WEAK, PAUSE, id="step-at-the-end"),
        pytest.param([result(Outcome.UNDECIDED)], 0.5, WEAK, PAUSE, id="undecided"),
        pytest.param([result(Outcome.NO_DATA)], 0.5, WEAK, PAUSE, id="no-data"),
        pytest.param([result(Outcome.SUSPECT)], 1.0, PAUSE, PAUSE, id="suspect"),
        pytest.param([result(Outcome.BLOCKED)], 1.0, PAUSE, PAUSE, id="blocked"),
        pytest.param(
            [result(Outcome.PROVED), result(Outcome.FAIL, SECONDARY)],
            1.0,
            FAIL,
            FAIL,
            id="secondary-fails",
        ),
        pytest.param(
            [result(Outcome.FAIL), result(Outcome.SUSPECT, SECONDARY)],
            1.0,
            FAIL,
            FAIL,
            id="fail-beats-suspect",
        ),
        pytest.param(
            [result(Outcome.PROVED), result(Outcome.UNDECIDED, SECONDARY)],
            1.0,
            PASS,
            PASS,
            id="secondary-undecided",
        ),
        pytest.param(
            [result(Outcome.PROVED), result(Outcome.BLOCKED, SECONDARY)],
            1.0,
            PASS,
            PASS,
            id="secondary-blocked",
        ),
        pytest.param(
            [result(Outcome.PROVED), result(Outcome.SUSPECT, SECONDARY)],
            1.0,
            PAUSE,
            PAUSE,
            id="secondary-suspect",
        ),
    ],
)
def test_all_gates_together(
    results: list[GateResult],
    fraction: float,
    guard: tuple[Verdict, Action],
    prove: tuple[Verdict, Action],
) -> None:
    for policy, expected in ((POLICY, guard), (PROVE, prove)):
        found = decide(results, [], [], standing(fraction), policy)
        assert (found.verdict, found.action) == expected
        assert found.reasons


@pytest.mark.parametrize("outcome", list(Outcome))
def test_gross_harm_fails_whatever_the_gates_say(outcome: Outcome) -> None:
    found = decide([result(outcome)], [GROSS], [], standing(), PROVE)
    assert (found.verdict, found.action) == FAIL
    assert found.reasons[0] == "gross"


def test_an_idle_canary_cannot_pass() -> None:
    for policy, expected in ((POLICY, WEAK), (PROVE, PAUSE)):
        found = decide([result(Outcome.PROVED)], [], [IDLE], standing(), policy)
        assert (found.verdict, found.action) == expected
        assert found.reasons == ("idle",)


def test_a_third_try_pauses_unless_the_harm_is_gross() -> None:
    third = standing(epoch=3)
    found = decide([result(Outcome.FAIL)], [], [], third, POLICY)
    assert (found.verdict, found.action) == PAUSE
    assert found.reasons == ("this canary failed 2 times; somebody must acknowledge a further try",)
    assert decide([], [GROSS], [], third, POLICY).verdict is Verdict.FAIL


def test_weak_evidence_is_never_called_a_pass() -> None:
    found = decide([result(Outcome.UNDECIDED)], [], [], standing(), POLICY)
    assert found.verdict is not Verdict.PASS
    assert found.evidence is Evidence.WEAK
