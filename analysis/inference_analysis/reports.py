"""A verdict in five lines, and as JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from inference_analysis.comparisons import TComparison
from inference_analysis.error_rates import RateComparison
from inference_analysis.policies import Role, Statistic
from inference_analysis.remedies import OPEN, need_text, next_step
from inference_analysis.translating import ledger_document
from inference_analysis.verdicts import Evidence, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_analysis.evaluation import Evaluation
    from inference_analysis.schema import RolloutDocument
    from inference_analysis.verdicts import GateResult

SCHEMA: Final = "inference-rollouts.io/analysis-verdict/v1"
FAR: Final = 10.0
"""Margins beyond which a bound says no more than that nothing is known."""


def lines(evaluation: Evaluation, rollout: RolloutDocument) -> tuple[str, str, str, str, str]:
    """Verdict, reason, gates, data, and what to do next."""
    return (
        _headline(evaluation, rollout),
        "why: " + "; ".join(evaluation.decision.reasons),
        "gates (+ is worse): " + " | ".join(_gate_summary(r) for r in evaluation.results),
        _data(evaluation),
        "next: " + next_step(evaluation),
    )


def _headline(evaluation: Evaluation, rollout: RolloutDocument) -> str:
    decision = evaluation.decision
    name = "/".join(part for part in (rollout.namespace, rollout.name) if part)
    subject = " ".join(part for part in (name, "canary", rollout.canary_hash) if part)
    text = f"{decision.verdict.upper()}, {decision.action}: {subject}"
    if decision.evidence is Evidence.WEAK:
        text += f"; evidence: weak, {_blindness(evaluation)}"
    elif decision.evidence is Evidence.STEP:
        text += "; evidence: enough for this step"
    return text


def _blindness(evaluation: Evaluation) -> str:
    """Below which worsening the open gates see nothing."""
    primary = [
        r
        for r in evaluation.results
        if r.gate.role is Role.PRIMARY and r.outcome is not Outcome.SHOWN
    ]
    unseen = [r.gate.name for r in primary if r.comparison is None]
    seen = [r for r in primary if r.outcome in OPEN and r.comparison is not None]
    ratios = [r.latency_mde for r in seen if _is_ratio(r)]
    parts = []
    if unseen:
        parts.append(f"blind to {', '.join(unseen)}")
    if ratios:
        parts.append(f"blind below {_ratio(max(ratios))}")
    parts += [f"blind below {_points(r.mde)} of {r.gate.name}" for r in seen if not _is_ratio(r)]
    return ", ".join(parts) or "the canary carries less load"


def _is_ratio(result: GateResult) -> bool:
    return result.gate.statistic in {Statistic.MEAN, Statistic.TAIL}


def _ratio(log_ratio: float) -> str:
    if log_ratio > math.log(11.0):
        return "+1000 %"
    return f"{100.0 * math.expm1(log_ratio):+.1f} %"


def _points(difference: float) -> str:
    return f"{100.0 * difference:+.2f} points"


def _gate_summary(result: GateResult) -> str:
    comparison = result.comparison
    if comparison is None:
        return f"{result.gate.name} {result.outcome}"
    show = _ratio if _is_ratio(result) else _points
    far = FAR * max(result.margin, 1e-9)

    def bound(value: float) -> str:
        return show(value) if abs(value) <= far else "…"

    return (
        f"{result.gate.name} {result.outcome} {show(comparison.estimate)} "
        f"[{bound(result.lower)}, {bound(result.upper)}] p {result.harm_p:.2g}"
    )


def _data(evaluation: Evaluation) -> str:
    observations, stand = evaluation.observations, evaluation.stand
    canary = int(observations.canary.sum())
    requests = 0.0
    if observations.requests is not None:
        requests = float(np.where(observations.usable, observations.requests.total, 0.0).sum())
    elif observations.histograms:
        first = next(iter(observations.histograms.values()))
        requests = float(np.where(observations.usable, first.count, 0.0).sum())
    usable = float(observations.usable.mean()) if observations.usable.size else 0.0
    parts = []
    if observations.pods:
        parts += [
            f"{canary} canary and {len(observations.pods) - canary} stable pods",
            f"{observations.start_s.size} windows ({usable:.0%} of the cells usable)",
            f"{requests:,.0f} requests",
        ]
    if observations.prompts:
        parts.append(f"{len({prompt.id for prompt in observations.prompts})} prompts")
    look = stand.look
    replayed = ", replayed" if stand.replayed else ""
    parts.append(
        f"{look.kind} look at {look.fraction:.0%} of epoch {stand.segment.epoch}{replayed}"
    )
    # What already stands among the reasons is not said twice.
    said = "; ".join(evaluation.decision.reasons)
    return f"data: {', '.join(parts)}" + "".join(
        f"; {f.text}" for f in evaluation.findings if f.text not in said
    )


def document(
    evaluation: Evaluation, rollout: RolloutDocument, *, with_figures: bool = False
) -> dict[str, Any]:
    """The verdict as JSON values; ``with_figures`` adds what the HTML report draws."""
    decision, stand = evaluation.decision, evaluation.stand
    observations = evaluation.observations
    found = {
        "next": next_step(evaluation),
        "worstPrompts": _worst_prompts(evaluation),
        "topics": _topics(evaluation),
        "schema": SCHEMA,
        "rollout": rollout.model_dump(mode="json", by_alias=True),
        "verdict": decision.verdict.value,
        "action": decision.action.value,
        "evidence": decision.evidence.value,
        "reasons": list(decision.reasons),
        "lines": list(lines(evaluation, rollout)),
        "mode": evaluation.policy.mode.value,
        "look": {
            "id": stand.look.id,
            "kind": stand.look.kind.value,
            "fraction": stand.look.fraction,
            "epoch": stand.segment.epoch,
            "until": stand.look.until_s,
            "replayed": stand.replayed,
            "mayPass": stand.may_pass,
            "passLevel": stand.pass_level,
        },
        "gates": [_gate(result, evaluation) for result in evaluation.results],
        "grossHarm": [
            {
                "check": check.check,
                "fired": check.fired,
                "observed": check.observed,
                "threshold": check.threshold,
                "p": check.p,
                "text": check.text,
            }
            for check in evaluation.gross
        ],
        "findings": [
            {"code": f.code, "weight": f.weight.value, "text": f.text, "remedy": f.remedy}
            for f in evaluation.findings
        ],
        "data": {
            "canaryPods": int(observations.canary.sum()),
            "stablePods": int((~observations.canary).sum()),
            "windows": int(observations.start_s.size),
            "usableCells": int(observations.usable.sum()),
            "cells": int(observations.usable.size),
            "prompts": len({prompt.id for prompt in observations.prompts}),
        },
        "ledger": ledger_document(evaluation.ledger),
    }
    if with_figures:
        from inference_analysis.figures import figures  # noqa: PLC0415 - five lines need none

        found["figures"] = figures(evaluation)
    plain: dict[str, Any] = _plain(found)
    return plain


def _worst_prompts(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "id": p.id,
            "measure": p.measure,
            "topic": p.topic,
            "weight": p.weight,
            "canary": p.canary_score,
            "stable": p.stable_score,
            "text": p.text,
            "canaryAnswer": p.canary_answer,
            "stableAnswer": p.stable_answer,
            "canaryReason": p.canary_reason,
            "stableReason": p.stable_reason,
        }
        for p in evaluation.worst_prompts
    ]


def _topics(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "measure": t.measure,
            "topic": t.topic,
            "prompts": t.prompts,
            "loss": t.loss,
            "standardError": t.standard_error,
        }
        for t in evaluation.topics
    ]


def _gate(result: GateResult, evaluation: Evaluation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": result.gate.name,
        "metric": result.gate.metric,
        "statistic": result.gate.statistic.value,
        "role": result.gate.role.value,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "margin": result.gate.margin,
        "harmMargin": result.gate.harm_margin,
    }
    comparison = result.comparison
    if comparison is None:
        return found
    found |= {
        "scale": "log ratio" if _is_ratio(result) else "difference",
        "estimate": comparison.estimate,
        "lower": result.lower,
        "upper": result.upper,
        "stepUpper": result.step_upper,
        "marginOnScale": result.margin,
        "p": result.harm_p,
        "level": result.fail_level,
        "minimumDetectableEffect": result.mde,
        "unit": comparison.unit,
        "canaryUnits": comparison.n_canary,
        "stableUnits": comparison.n_stable,
        "method": comparison.method,
    }
    if isinstance(comparison, TComparison):
        found |= {"standardError": comparison.se, "degreesOfFreedom": comparison.df}
    if isinstance(comparison, RateComparison):
        found |= {"dispersion": comparison.dispersion, "degreesOfFreedom": comparison.df}
    if result.details:
        found["details"] = dict(result.details)
    if result.need is not None:
        found["need"] = {
            "dataFactor": result.need.data_factor,
            "canaryPods": result.need.canary_pods,
            "stablePods": result.need.stable_pods,
        }
        if result.outcome in OPEN:
            found["needText"] = need_text(result, evaluation)
    return found


def rendered(document: Mapping[str, Any]) -> str:
    """The document's text: sorted keys, fifteen digits, no NaN; equal values give equal bytes."""
    return json.dumps(_plain(document), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.15g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value]
