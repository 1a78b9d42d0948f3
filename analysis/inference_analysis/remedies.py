"""What to do after a verdict: its last line, and what each open gate still wants."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from inference_analysis.comparisons import LEAST_STABLE_PODS
from inference_analysis.confounders import Weight
from inference_analysis.planning import LONGEST
from inference_analysis.policies import Role, Statistic
from inference_analysis.verdicts import Action, Evidence, Outcome, Verdict
from inference_analysis.wording import effect, spoken

if TYPE_CHECKING:
    from inference_analysis.evaluation import Evaluation
    from inference_analysis.verdicts import GateResult

OPEN: Final = frozenset({Outcome.UNDECIDED, Outcome.OPEN_STEP, Outcome.NO_DATA})
LONGEST_WAIT_MINUTES: Final = 14 * 24 * 60.0
"""Nobody leaves a canary beside stable for longer; then more pods or history are the way."""
WIDEST: Final = 5.0
"""Times its margin beyond which a wider one is no proposal."""
MOST_WAYS: Final = 3


def next_step(evaluation: Evaluation) -> str:  # noqa: PLR0911 - one for each situation
    """What the operator does now."""
    decision = evaluation.decision
    if decision.action is Action.ABORT:
        return "roll back, remove the cause, retry; a retry is judged on new data only"
    if decision.verdict is Verdict.PASS and decision.evidence is Evidence.PROVED:
        return "nothing is needed"
    wants = _wants(evaluation)
    if decision.verdict is Verdict.PASS:
        late = [text for text, at_end in wants if not at_end]
        if not late:
            return "go on to the next step"
        return "go on to the next step; by the planned end a PASS wants " + "; ".join(late)
    if evaluation.stand.needs_acknowledgement:
        return "find out why it failed, then `inference-rollouts analysis acknowledge` and resume"
    ways = [*_removals(evaluation), *(text for text, _ in wants)]
    text = "; ".join(ways) or "look again when there is more data"
    if decision.action is Action.PAUSE:
        return f"to decide: {text}"
    return f"the rollout goes on; for a PASS: {text}"


def _removals(evaluation: Evaluation) -> list[str]:
    """What to do about things other than the amount of data."""
    primary = [r for r in evaluation.results if r.gate.role is Role.PRIMARY]
    held = [r for r in evaluation.results if r.outcome is Outcome.SUSPECT]
    blocked = any(r.outcome is Outcome.BLOCKED for r in primary)
    found = [r.remedy for r in held if r.remedy]
    if blocked:
        weights = {Weight.BLOCKS, Weight.BLOCKS_FAIL}
        found += [f.remedy for f in evaluation.findings if f.weight in weights and f.remedy]
        found += [r.remedy for r in primary if r.outcome is Outcome.BLOCKED and r.remedy]
        if not found:
            found = ["make both versions comparable (see why), then look again"]
    elif not held:
        found += [
            f.remedy for f in evaluation.findings if f.weight is Weight.BLOCKS_PASS and f.remedy
        ]
    return list(dict.fromkeys(found))


def _wants(evaluation: Evaluation) -> list[tuple[str, bool]]:
    """What each open primary gate wants, and whether the plan's end brings it anyway."""
    found: dict[tuple[str, bool], list[str]] = {}
    for result in evaluation.results:
        if result.gate.role is Role.PRIMARY and result.outcome in OPEN:
            key = (need_text(result, evaluation), _at_end(result, evaluation))
            found.setdefault(key, []).append(result.gate.name)
    return [(f"{', '.join(names)}: {text}", end) for (text, end), names in found.items()]


def _at_end(result: GateResult, evaluation: Evaluation) -> bool:
    """Whether the data that the plan still brings are enough for a canary as good as stable."""
    need, fraction = result.need, evaluation.stand.look.fraction
    if need is None or need.data_factor is None or evaluation.stand.may_pass:
        return False
    return need.data_factor * fraction <= 1.0


def need_text(result: GateResult, evaluation: Evaluation) -> str:
    """What would make an open gate conclusive."""
    comparison, need = result.comparison, result.need
    if comparison is None:
        return _missing(result, evaluation)
    if need is None:
        return "look again when there is more data"
    if need.data_factor is not None and need.data_factor <= 1.0 and need.canary_pods is None:
        return _near(result, evaluation)
    if _at_end(result, evaluation):
        return "the planned end"
    ways = []
    if need.data_factor is not None:
        ways.append(_amount(result, evaluation, need.data_factor))
    if need.canary_pods is not None and need.stable_pods is not None:
        more = need.stable_pods != comparison.n_stable
        stable = f" and {need.stable_pods} stable" if more else ""
        ways.append(f"{need.canary_pods} canary{stable} pods")
    ways = [way for way in ways if way]
    if _without_history(result, evaluation):
        ways.append("history (analysis calibrate)")
    widest = comparison.mde(evaluation.stand.pass_level)
    if widest <= WIDEST * result.margin:
        ways.append(f"a margin of {effect(widest, _scale(result))}")
    return " or ".join(ways[:MOST_WAYS]) or "more pods or more traffic"


def _near(result: GateResult, evaluation: Evaluation) -> str:
    """Enough data for an equal canary; this one looks worse, so what its estimate would want."""
    comparison = result.comparison
    assert comparison is not None  # noqa: S101 - the caller has looked
    if not evaluation.stand.may_pass:
        return "the planned end"
    seen, margin = (
        effect(comparison.estimate, _scale(result)),
        effect(result.margin, _scale(result)),
    )
    room = result.margin - comparison.estimate
    if room <= 0.0:
        return (
            f"it looks worse than its margin ({seen}, {margin}): find out why, or widen the margin"
        )
    factor = (comparison.mde(evaluation.stand.pass_level) / room) ** 2
    amount = _amount(result, evaluation, factor) if factor <= LONGEST else ""
    return f"it is near its margin ({seen} of {margin}): " + (
        f"{amount} if that is what it is" if amount else "find out why, or widen the margin"
    )


def _amount(result: GateResult, evaluation: Evaluation, factor: float) -> str:
    """So many prompts, or so much more time; nothing if nobody waits that long."""
    comparison = result.comparison
    assert comparison is not None  # noqa: S101 - the caller has looked
    if result.gate.statistic is Statistic.SCORE:
        return f"{math.ceil(factor * comparison.n_canary)} prompts"
    seen = float(evaluation.observations.seconds.sum()) / 60.0
    minutes = (factor - 1.0) * seen
    return f"{spoken(60.0 * math.ceil(minutes))} more" if minutes <= LONGEST_WAIT_MINUTES else ""


def _missing(result: GateResult, evaluation: Evaluation) -> str:
    """What a gate without any numbers lacks."""
    observations = evaluation.observations
    if result.gate.statistic is Statistic.SCORE:
        return "ten prompts"
    shared = any(pod.server for pod in observations.pods) or observations.background is not None
    stable = int((~observations.canary).sum())
    if not shared and stable < LEAST_STABLE_PODS:
        return f"{LEAST_STABLE_PODS} stable pods ({stable} now)"
    return "traffic on both versions"


def _without_history(result: GateResult, evaluation: Evaluation) -> bool:
    comparison = result.comparison
    return (
        comparison is not None
        and result.gate.statistic is Statistic.MEAN
        and comparison.unit == "pod"
        and result.gate.metric not in evaluation.policy.priors
    )


def _scale(result: GateResult) -> str:
    ratio = result.gate.statistic in {Statistic.MEAN, Statistic.TAIL}
    return "log ratio" if ratio else "difference"
