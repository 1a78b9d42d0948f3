"""From comparisons to a verdict: rule B for each gate, then all gates together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from inference_analysis.confounders import Weight
from inference_analysis.policies import Mode, Role, Statistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_analysis.comparisons import Comparison
    from inference_analysis.confounders import Finding
    from inference_analysis.gross_harm import GrossHarm
    from inference_analysis.ledgers import Stand
    from inference_analysis.planning import Need
    from inference_analysis.policies import Gate, Policy


class Outcome(StrEnum):
    """What one gate says."""

    FAIL = "fail"
    SUSPECT = "suspect"
    """Would fail, but only because of one pod."""
    BLOCKED = "blocked"
    """Something besides the version differs, so the numbers do not decide."""
    PROVED = "proved"
    """Not worse by the margin."""
    OPEN_STEP = "step"
    """Not worse by the wider margin of a step."""
    UNDECIDED = "undecided"
    NO_DATA = "no-data"
    SHOWN = "shown"
    """Known to be biased, so it decides nothing."""


class Verdict(StrEnum):
    """What is known about the canary."""

    PASS = "pass"  # noqa: S105 - a word, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Action(StrEnum):
    """What the mode makes of the verdict."""

    PROCEED = "proceed"
    ABORT = "abort"
    PAUSE = "pause"


class Evidence(StrEnum):
    """How much stands behind going on."""

    PROVED = "proved"
    STEP = "step"
    WEAK = "weak"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate's numbers and what they say."""

    gate: Gate
    outcome: Outcome
    reason: str = ""
    comparison: Comparison | None = None
    margin: float = 0.0
    """On the estimate's scale."""
    harm_margin: float = 0.0
    fail_level: float = 0.0
    harm_p: float = 1.0
    lower: float = 0.0
    """One-sided bound at the look's FAIL level."""
    upper: float = 0.0
    """One-sided bound at the look's PASS level."""
    step_upper: float = 0.0
    mde: float = 0.0
    """Smallest effect that the last planned look would find with 90 % power, with these data."""
    need: Need | None = None
    remedy: str = ""
    """What lets a suspect or blocked gate decide."""
    details: tuple[tuple[str, float | str], ...] = ()

    @property
    def latency_mde(self) -> float:
        """The mde as a log ratio of latency: a tail's estimate moves more than the latency."""
        if self.gate.statistic is Statistic.TAIL and self.margin > 0.0:
            return self.mde * math.log1p(self.gate.margin) / self.margin
        return self.mde


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict on a canary."""

    verdict: Verdict
    action: Action
    evidence: Evidence
    reasons: tuple[str, ...]


def judge(
    gate: Gate,
    comparison: Comparison,
    stand: Stand,
    policy: Policy,
    *,
    margins: tuple[float, float, float],
) -> GateResult:
    """Rule B for one gate; ``margins`` are margin, step margin and harm margin of the estimate.

    FAIL when harm is shown at this look's level, unless "not worse by the margin" is shown too;
    PROVED when that is shown and the plan has ended; a step opens when the plain one-sided 90 %
    bound lies below the step margin.
    """
    margin, step_margin, harm_margin = margins
    level = stand.fail_level(policy.alpha(gate))
    p = comparison.harm_p(harm_margin)
    upper = comparison.upper(stand.pass_level)
    step_upper = comparison.upper(1.0 - policy.step_confidence)
    if p <= level and not upper < margin:
        outcome = Outcome.FAIL
    elif upper < margin and stand.may_pass:
        outcome = Outcome.PROVED
    elif step_upper < step_margin:
        outcome = Outcome.OPEN_STEP
    else:
        outcome = Outcome.UNDECIDED
    return GateResult(
        gate=gate,
        outcome=outcome,
        comparison=comparison,
        margin=margin,
        harm_margin=harm_margin,
        fail_level=level,
        harm_p=p,
        lower=comparison.lower(level),
        upper=upper,
        step_upper=step_upper,
        mde=comparison.mde(stand.final_level(policy.alpha(gate))),
    )


def decide(
    results: Sequence[GateResult],
    gross: Sequence[GrossHarm],
    findings: Sequence[Finding],
    stand: Stand,
    policy: Policy,
) -> Decision:
    """The verdict of all gates together.

    FAIL when any gate fails (each has its own part of the budget); PASS when every primary gate
    says so (intersection-union, no correction needed): secondary gates can only stop. Gross harm
    fails in any case.
    """
    harm = [check.text for check in gross if check.fired]
    if not stand.needs_acknowledgement:
        harm += [r.reason for r in results if r.outcome is Outcome.FAIL]
    if harm:
        return Decision(
            verdict=Verdict.FAIL,
            action=Action.ABORT,
            evidence=Evidence.PROVED,
            reasons=tuple(harm),
        )
    primary = [r for r in results if r.gate.role is Role.PRIMARY]
    held = [r.reason for r in results if r.outcome is Outcome.SUSPECT]
    held += [r.reason for r in primary if r.outcome is Outcome.BLOCKED]
    if stand.needs_acknowledgement:
        tries = stand.segment.epoch - 1
        held = [f"this canary failed {tries} times; somebody must acknowledge a further try"]
    if held:
        return _paused(*dict.fromkeys(held))
    short = {Outcome.UNDECIDED, Outcome.NO_DATA}
    if stand.may_pass:
        short.add(Outcome.OPEN_STEP)
    open_gates = [r for r in primary if r.outcome in short]
    idle = [f.text for f in findings if f.weight is Weight.BLOCKS_PASS]
    if not open_gates and not idle:
        evidence = Evidence.PROVED if stand.may_pass else Evidence.STEP
        claim = (
            "every primary gate shows that the canary is not worse by its margin"
            if stand.may_pass
            else f"no harm, and every primary gate is below {policy.step_factor:g} times its margin"
        )
        return Decision(
            verdict=Verdict.PASS, action=Action.PROCEED, evidence=evidence, reasons=(claim,)
        )
    reasons = (*(r.reason for r in open_gates), *idle)
    if policy.mode is Mode.PROVE:
        return _paused(*reasons)
    return Decision(
        verdict=Verdict.INCONCLUSIVE,
        action=Action.PROCEED,
        evidence=Evidence.WEAK,
        reasons=reasons,
    )


def _paused(*reasons: str) -> Decision:
    return Decision(
        verdict=Verdict.INCONCLUSIVE,
        action=Action.PAUSE,
        evidence=Evidence.NONE,
        reasons=reasons,
    )
