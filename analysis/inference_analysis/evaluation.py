"""One look at a canary: observations, policy and ledger in, a verdict and the new ledger out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.answer_drift import check_answers
from inference_analysis.capacity import check_capacity
from inference_analysis.confounders import (
    Weight,
    check_coverage,
    check_drift,
    check_hardware,
    check_load,
    check_looks,
    check_mix,
)
from inference_analysis.diversions import diverted_limit
from inference_analysis.errors import InputError
from inference_analysis.gates import Context, gate_result
from inference_analysis.gross_harm import (
    broken_limit,
    error_limit,
    gross_errors,
    gross_latency,
)
from inference_analysis.ledgers import stand as stand_in
from inference_analysis.policies import Role, Statistic, default_gates
from inference_analysis.pool_sizes import check_pools
from inference_analysis.quality import topic_differences, worst_prompts
from inference_analysis.stickiness import check_users
from inference_analysis.units import units_of
from inference_analysis.verdicts import Outcome, decide

if TYPE_CHECKING:
    from inference_analysis.confounders import Finding
    from inference_analysis.gross_harm import GrossHarm
    from inference_analysis.ledgers import Ledger, LookRequest, Stand
    from inference_analysis.observations import Histogram, Observations
    from inference_analysis.policies import Gate, Policy
    from inference_analysis.quality import TopicDifference, WorstPrompt
    from inference_analysis.verdicts import Decision, GateResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything that one look found."""

    decision: Decision
    results: tuple[GateResult, ...]
    gross: tuple[GrossHarm, ...]
    findings: tuple[Finding, ...]
    stand: Stand
    ledger: Ledger
    policy: Policy
    observations: Observations
    """What the look saw."""
    worst_prompts: tuple[WorstPrompt, ...] = ()
    """Of the measures that a gate compares."""
    topics: tuple[TopicDifference, ...] = ()


def evaluate(
    observations: Observations,
    policy: Policy,
    request: LookRequest,
    ledger: Ledger,
    *,
    fingerprint: str,
) -> Evaluation:
    """One look. Pure: the same arguments give the same result.

    Raises InputError when a gate or limit names what the observations do not have, or when an arm
    has no data at all.
    """
    whole = _with_gates(policy, observations)
    policy = _deciding(whole, observations)
    stand = stand_in(ledger, request, policy, fingerprint=fingerprint, until_s=observations.end_s)
    observations = observations.between(stand.segment.since_s, stand.look.until_s)
    _require_data(observations)
    units = units_of(observations)
    mix_findings, mix = check_mix(observations, units)
    findings = (
        *(() if units.paired else check_hardware(observations)),
        *check_users(observations),
        *check_coverage(observations),
        *check_load(observations, policy),
        *check_pools(observations, units, policy),
        *check_looks(units, stand),
        *mix_findings,
        *check_drift(observations),
        *check_capacity(observations),
        *check_answers(observations.prompts),
    )
    context = Context(
        observations=observations,
        units=units,
        policy=policy,
        stand=stand,
        mix=mix,
        findings=findings,
    )
    edges = dict(stand.ledger.tail_edges)
    results = tuple(gate_result(gate, context, edges) for gate in policy.gates)
    shown = _shown(whole, context, edges)
    gross = tuple(_gross(context))
    decision = decide(results, gross, findings, stand, policy)
    compared = {gate.metric for gate in policy.gates if gate.statistic is Statistic.SCORE}
    gated = [prompt for prompt in observations.prompts if prompt.measure in compared]
    return Evaluation(
        decision=decision,
        results=(*results, *shown),
        gross=gross,
        findings=findings,
        stand=stand,
        ledger=stand.booked(decision.verdict, edges),
        policy=policy,
        observations=observations,
        worst_prompts=worst_prompts(gated),
        topics=topic_differences(gated),
    )


def _with_gates(policy: Policy, observations: Observations) -> Policy:
    """The policy with its gates; the default ones follow from what was collected."""
    known = observations.histograms.keys() | observations.unequal_edges.keys()
    if not policy.gates:
        gates = default_gates(
            frozenset(known),
            requests=observations.requests is not None,
            measures=observations.measures,
        )
        if not gates:
            found = ", ".join(sorted(known)) or "no histogram"
            raise InputError(
                "policy.gates: none given, and the file has none of the default metrics ttft, "
                f"tpot, itl, e2e, requests with errors, quality (found {found}). Name the gates"
            )
        return replace(policy, gates=gates)
    for number, gate in enumerate(policy.gates):
        have = {
            Statistic.MEAN: gate.metric in known,
            Statistic.TAIL: gate.metric in known,
            Statistic.RATE: observations.requests is not None,
            Statistic.SCORE: gate.metric in observations.measures,
        }[gate.statistic]
        if not have:
            raise InputError(
                f"policy.gates[{number}]: no data for {gate.name} (found "
                f"{', '.join(sorted(known | observations.measures)) or 'no histogram'}). "
                "Collect it, or drop the gate"
            )
    return policy


def _is_shown(gate: Gate, observations: Observations) -> bool:
    latency = gate.statistic in {Statistic.MEAN, Statistic.TAIL}
    return latency and gate.metric in observations.display


def _deciding(policy: Policy, observations: Observations) -> Policy:
    """The policy without gates on metrics that are only to be shown."""
    gates = tuple(gate for gate in policy.gates if not _is_shown(gate, observations))
    if any(gate.role is Role.PRIMARY for gate in gates):
        return replace(policy, gates=gates)
    reasons = "; ".join(dict.fromkeys(observations.display.values()))
    raise InputError(f"policy.gates: every primary one is display only ({reasons}). Add another")


def _shown(policy: Policy, context: Context, edges: dict[str, float]) -> tuple[GateResult, ...]:
    """The numbers of gates that are only shown, which cost nothing and decide nothing."""
    observations = context.observations
    return tuple(
        replace(
            gate_result(gate, replace(context, policy=policy), edges),
            outcome=Outcome.SHOWN,
            reason=f"{gate.name}: display only, {observations.display[gate.metric]}",
            need=None,
        )
        for gate in policy.gates
        if _is_shown(gate, observations)
    )


def _require_data(observations: Observations) -> None:
    """At least one usable request of each arm, or prompts alone.

    Raises InputError.
    """
    if observations.prompts and not observations.histograms and observations.requests is None:
        return
    canary = observations.canary
    counts = [h.count for h in observations.histograms.values()]
    if observations.requests is not None:
        counts.append(observations.requests.total)
    for name, arm in (("canary", canary), ("stable", ~canary)):
        usable = observations.usable[arm]
        if not any(np.where(usable, count[arm], 0.0).sum() for count in counts):
            raise InputError(
                f"pods: no usable request of the {name} pods (found {int(arm.sum())} pods, "
                f"{int(usable.sum())} usable windows). Wait for traffic, or check the pods' "
                "labels and warm-up"
            )


def _gross(context: Context) -> list[GrossHarm]:
    """All checks of gross harm that the data allow."""
    observations, policy = context.observations, context.policy
    usable, canary = observations.usable, observations.canary
    found: list[GrossHarm | None] = []
    present = [
        m
        for m in policy.gross_metrics
        if m in observations.histograms and m not in observations.display
    ]
    kept = {"coverage", "looks"}
    if not any(f.weight is Weight.BLOCKS and f.code not in kept for f in context.findings):
        for metric in present:
            effects = context.units.mean(
                observations.histograms[metric], observations, of_pods=True
            )
            found.append(
                gross_latency(
                    metric,
                    effects,
                    context.units,
                    ratio=policy.gross_ratio,
                    alpha=policy.gross_alpha / len(present),
                    least=policy.gross_requests,
                    prior=policy.priors.get(metric),
                    spread=context.units.spread(metric, observations),
                )
            )
    for number, limit in enumerate(policy.limits):
        histogram: Histogram | None = observations.histograms.get(limit.metric)
        if histogram is None:
            raise InputError(
                f"policy.limits[{number}].metric: no data for {limit.metric!r} (found "
                f"{', '.join(sorted(observations.histograms)) or 'none'})"
            )
        if not np.isclose(histogram.le, limit.seconds, rtol=1e-9).any():
            raise InputError(
                f"policy.limits[{number}].seconds: no bucket edge at {limit.seconds:g} (found "
                f"{', '.join(f'{x:g}' for x in histogram.le)}). Take one of these"
            )
        found.append(
            broken_limit(
                limit,
                histogram,
                usable,
                canary,
                alpha=policy.gross_alpha,
                least=policy.gross_requests,
            )
        )
    if observations.requests is not None:
        found.append(
            gross_errors(
                observations.requests,
                usable,
                canary,
                tolerated=policy.gross_error_ratio,
                alpha=policy.gross_error_alpha,
            )
        )
        found.append(
            error_limit(
                observations.requests,
                usable,
                canary,
                limit=policy.error_limit,
                least=policy.gross_requests,
            )
        )
        found.append(
            diverted_limit(observations, limit=policy.error_limit, least=policy.gross_requests)
        )
    return [check for check in found if check is not None]
