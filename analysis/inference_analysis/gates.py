"""The gates of one look: each metric's data, its test, and the guards around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.comparisons import TComparison, without_slowest
from inference_analysis.confounders import Weight, adjusted
from inference_analysis.error_rates import RateComparison, compare_errors, pods_dispersion
from inference_analysis.errors import InputError
from inference_analysis.latencies import (
    shares_above,
    tail_edge,
    tail_margin,
)
from inference_analysis.planning import need_of_data, need_of_pods, need_of_requests
from inference_analysis.policies import Statistic
from inference_analysis.pool_sizes import CODE, METRIC
from inference_analysis.quality import QualityComparison, compare_quality, need_of_prompts
from inference_analysis.stickiness import clustered_rate, user_dispersion, user_error, widened
from inference_analysis.units import Kind
from inference_analysis.verdicts import GateResult, Outcome, judge

if TYPE_CHECKING:
    from inference_analysis.confounders import Finding, MixAdjustment
    from inference_analysis.ledgers import Stand
    from inference_analysis.matched import Spread
    from inference_analysis.observations import Observations
    from inference_analysis.policies import Gate, Policy, Prior
    from inference_analysis.standardisation import PodEffects
    from inference_analysis.stickiness import UserError
    from inference_analysis.units import Units

DROP_ONE_LEVEL = 0.05
"""What is left without the slowest canary pod must still be harm at this plain level. The look's
own level would ask one pod for the evidence of all and cost half of the power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the gates of one look share."""

    observations: Observations
    units: Units
    policy: Policy
    stand: Stand
    mix: MixAdjustment | None
    findings: tuple[Finding, ...]

    @property
    def blocked(self) -> str:
        """Why latencies do not compare, or nothing."""
        return "; ".join(f.text for f in self.findings if f.weight is Weight.BLOCKS)

    @property
    def clustered(self) -> str:
        """Why users are no sample, or nothing."""
        return "; ".join(f.text for f in self.findings if f.code == "users")

    @property
    def smaller_pool(self) -> Finding | None:
        """That the canary's pool is smaller and busy, or nothing."""
        small = (f for f in self.findings if f.code == CODE and f.weight is Weight.NOTE)
        return next(small, None)

    @property
    def overloaded(self) -> str:
        """Why a latency gate cannot fail, or nothing."""
        return "; ".join(f.text for f in self.findings if f.weight is Weight.BLOCKS_FAIL)


def gate_result(gate: Gate, context: Context, edges: dict[str, float]) -> GateResult:
    """One gate's verdict. ``edges`` holds the tail gates' bucket edges and takes new ones.

    Raises InputError when a tail edge that was asked for is no bucket edge.
    """
    if gate.statistic is Statistic.RATE:
        return _error_gate(gate, context)
    if gate.statistic is Statistic.SCORE:
        return _quality_gate(gate, context)
    if gate.metric in context.observations.unequal_edges:
        reason = f"{gate.name}: {context.observations.unequal_edges[gate.metric]}"
        return GateResult(gate=gate, outcome=Outcome.BLOCKED, reason=reason)
    if gate.statistic is Statistic.TAIL:
        return _tail_gate(gate, context, edges)
    return _mean_gate(gate, context)


def _mean_gate(gate: Gate, context: Context) -> GateResult:
    observations = context.observations
    histogram = observations.histograms[gate.metric]
    effects = context.units.mean(histogram, observations)
    added = 0.0
    mix = context.mix
    if mix is not None and context.units.kind is Kind.WINDOWS:
        if mix.shown:
            return _unadjusted(gate, mix, "batches of windows")
    elif mix is not None:
        corrected = adjusted(effects, mix, histogram, observations)
        if corrected is None and mix.shown:
            return GateResult(
                gate=gate,
                outcome=Outcome.BLOCKED,
                reason=f"{gate.name}: prompts differ in length by "
                f"{_percent(mix.difference)}, with too few windows to adjust for it",
            )
        effects, added = corrected or (effects, 0.0)
    margins = (
        float(np.log1p(gate.margin)),
        float(np.log1p(gate.margin * context.policy.step_factor)),
        float(np.log1p(gate.harm_margin)),
    )
    bias = float(np.log1p(context.policy.pool_bias))
    return _pod_gate(gate, context, effects, margins, added, bias=bias)


def _tail_gate(gate: Gate, context: Context, edges: dict[str, float]) -> GateResult:
    observations = context.observations
    histogram = observations.histograms[gate.metric]
    stable_cells = observations.usable & ~observations.canary[:, None]
    chosen = edges.get(gate.metric, context.policy.tail_edges.get(gate.metric))
    matches = (
        np.array([tail_edge(histogram, stable_cells)])
        if chosen is None
        else np.flatnonzero(np.isclose(histogram.le, chosen, rtol=1e-9))
    )
    if not matches.size:
        raise InputError(
            f"policy.tailEdges.{gate.metric}: no bucket edge at {chosen:g} (found "
            f"{', '.join(f'{x:g}' for x in histogram.le)}). Take one of these"
        )
    if matches[0] is None:
        return _no_data(gate, f"{gate.name}: all of stable's requests lie in one bucket")
    edge = int(matches[0])
    edges[gate.metric] = float(histogram.le[edge])
    if context.mix is not None and context.mix.shown:
        return _unadjusted(gate, context.mix, "a tail")
    effects = context.units.tail(histogram, edge, observations)
    shares = shares_above(histogram, stable_cells)
    step = gate.margin * context.policy.step_factor
    margins = (
        tail_margin(shares, histogram.le, edge, gate.margin),
        tail_margin(shares, histogram.le, edge, step),
        tail_margin(shares, histogram.le, edge, gate.harm_margin),
    )
    bias = tail_margin(shares, histogram.le, edge, context.policy.pool_bias)
    result = _pod_gate(gate, context, effects, margins, 0.0, edge, bias=bias)
    details = (("edge", float(histogram.le[edge])), ("stable_share", float(shares[edge])))
    return replace(result, details=(*result.details, *details))


def _pod_gate(
    gate: Gate,
    context: Context,
    effects: PodEffects,
    margins: tuple[float, float, float],
    added: float,
    edge: int | None = None,
    *,
    bias: float,
) -> GateResult:
    """Rule B, then the guards: hardware, load, one slow pod, and a smaller pool (``bias``)."""
    prior = context.policy.priors.get(gate.metric) if gate.statistic is Statistic.MEAN else None
    spread = context.units.spread(gate.metric, context.observations, edge)
    comparison = context.units.compare(effects, prior=prior, added_variance=added, spread=spread)
    if comparison is not None:
        comparison = widened(comparison, _users(gate, context, edge))
    if comparison is None:
        if context.blocked:
            return GateResult(gate=gate, outcome=Outcome.BLOCKED, reason=context.blocked)
        canary = int(effects.canary.sum())
        stable = len(effects.canary) - canary
        return _no_data(
            gate,
            f"{gate.name}: too little to compare ({canary} canary and {stable} stable pods with "
            f"enough requests; {context.units.needed})",
        )
    result = judge(gate, comparison, context.stand, context.policy, margins=margins)
    if context.blocked:
        return replace(result, outcome=Outcome.BLOCKED, reason=context.blocked)
    if result.outcome is Outcome.FAIL:
        confirmed = _confirmed(result, context, effects, prior, added, spread)
        return _beyond_pools(confirmed, context, bias)
    return _explained(result, context)


def _beyond_pools(result: GateResult, context: Context, bias: float) -> GateResult:
    """A FAIL that a smaller pool of the same version could have caused is no FAIL.

    The bias is known only by its bound, so harm is shown where it is shown beyond that bound.
    """
    pools = context.smaller_pool
    comparison = result.comparison
    if result.outcome is not Outcome.FAIL or pools is None or result.gate.metric != METRIC:
        return result
    assert comparison is not None  # noqa: S101 - a FAIL has one
    if comparison.harm_p(max(bias, result.harm_margin)) <= result.fail_level:
        return result
    reason = f"{result.gate.name} is {_percent(comparison.estimate)} slower, but {pools.text}"
    return replace(result, outcome=Outcome.BLOCKED, reason=reason, remedy=pools.remedy)


def _confirmed(
    result: GateResult,
    context: Context,
    effects: PodEffects,
    prior: Prior | None,
    added: float,
    spread: Spread | None,
) -> GateResult:
    """A latency FAIL, unless load or a single pod explains it."""
    gate, comparison = result.gate, result.comparison
    assert isinstance(comparison, TComparison)  # noqa: S101 - narrows the protocol
    if context.overloaded:
        reason = f"{gate.name} is {_percent(comparison.estimate)} slower, but {context.overloaded}"
        return replace(result, outcome=Outcome.BLOCKED, reason=reason)
    rest, worst = without_slowest(effects)
    pod = context.observations.pods[worst]
    where = f"{pod.name}" + (f" on node {pod.node}" if pod.node else "")
    if context.units.kind is Kind.WINDOWS:
        return _explained(result, context)
    if comparison.n_canary > 1:
        again = context.units.compare(rest, prior=prior, added_variance=added, spread=spread)
        if again is None or again.harm_p(result.harm_margin) > DROP_ONE_LEVEL:
            reason = (
                f"{gate.name} is {_percent(comparison.estimate)} slower only because of {where}; "
                "without it there is no harm"
            )
            remedy = f"re-create {pod.name} on another node and look again"
            return replace(result, outcome=Outcome.SUSPECT, reason=reason, remedy=remedy)
    elif context.policy.confirm_single_pod:
        reason = (
            f"{gate.name} is {_percent(comparison.estimate)} slower, on the only canary pod {where}"
        )
        remedy = f"re-create {pod.name} on another node, or add a second one, and look again"
        return replace(result, outcome=Outcome.SUSPECT, reason=reason, remedy=remedy)
    return _explained(result, context)


def _error_gate(gate: Gate, context: Context) -> GateResult:
    observations = context.observations
    assert observations.requests is not None  # noqa: S101 - _with_gates has checked it
    comparison = compare_errors(
        observations.requests,
        observations.usable,
        observations.canary,
        spread=_error_spread(observations),
    )
    users = observations.sticky
    if comparison is not None and users is not None:
        comparison = clustered_rate(comparison, user_dispersion(users))
    if comparison is not None and context.clustered:
        return GateResult(gate=gate, outcome=Outcome.BLOCKED, reason=context.clustered)
    if comparison is None:
        return _no_data(gate, f"{gate.name}: too few pods or requests to compare")
    margins = (gate.margin, gate.margin * context.policy.step_factor, gate.harm_margin)
    result = judge(gate, comparison, context.stand, context.policy, margins=margins)
    return _explained(result, context)


def _quality_gate(gate: Gate, context: Context) -> GateResult:
    prompts = [p for p in context.observations.prompts if p.measure == gate.metric]
    comparison = compare_quality(prompts)
    if comparison is None:
        return _no_data(gate, f"{gate.name}: {len(prompts)} prompts; ten are needed")
    margins = (gate.margin, gate.margin * context.policy.step_factor, gate.harm_margin)
    result = judge(gate, comparison, context.stand, context.policy, margins=margins)
    return _explained(result, context)


def _error_spread(observations: Observations) -> tuple[float, float] | None:
    """Overdispersion between stable's pods and its degrees of freedom, beside a control."""
    background = observations.background
    if background is None or background.requests is None:
        return None
    return pods_dispersion(background.requests, background.usable)


def _users(gate: Gate, context: Context, edge: int | None) -> UserError | None:
    """What chance in the assignment of sticky users does to a latency; None without them."""
    users = context.observations.sticky
    histogram = None if users is None else users.histograms.get(gate.metric)
    if users is None or histogram is None:
        return None
    outcome = histogram.sum if edge is None else histogram.buckets[:, :, edge + 1 :].sum(axis=2)
    return user_error(
        np.where(users.usable, outcome, 0.0),
        np.where(users.usable, histogram.count, 0.0),
        users.canary,
    )


def _unadjusted(gate: Gate, mix: MixAdjustment, what: str) -> GateResult:
    return GateResult(
        gate=gate,
        outcome=Outcome.BLOCKED,
        reason=f"{gate.name}: prompts differ in length by {_percent(mix.difference)}, "
        f"and {what} cannot be adjusted for it",
    )


def _no_data(gate: Gate, reason: str) -> GateResult:
    return GateResult(gate=gate, outcome=Outcome.NO_DATA, reason=reason)


def _explained(result: GateResult, context: Context) -> GateResult:
    """The result with its reason in words and what would make it conclusive."""
    gate, comparison = result.gate, result.comparison
    assert comparison is not None  # noqa: S101 - called with one
    ratio = gate.statistic in {Statistic.MEAN, Statistic.TAIL}
    show = _percent if ratio else _points
    if result.outcome is Outcome.FAIL:
        reason = (
            f"{gate.name} is worse by {show(comparison.estimate)} "
            f"(at least {show(result.lower)}; p {result.harm_p:.2g} at level "
            f"{result.fail_level:.2g})"
        )
        return replace(result, reason=reason)
    if isinstance(comparison, QualityComparison):
        need = need_of_prompts(comparison, result.margin, context.stand.pass_level)
    elif isinstance(comparison, TComparison) and comparison.unit == "pod":
        need = need_of_pods(comparison, result.margin, context.stand.pass_level)
    elif isinstance(comparison, RateComparison):
        need = need_of_requests(comparison, result.margin, context.stand.pass_level)
    else:
        assert isinstance(comparison, TComparison)  # noqa: S101 - all there are
        need = need_of_data(comparison, result.margin, context.stand.pass_level)
    reason = (
        f"{gate.name}: {show(comparison.estimate)}, at worst {show(result.upper)}; margin "
        f"{show(result.margin)}, blind below {show(result.mde)}"
    )
    return replace(result, need=need, reason=reason)


def _percent(log_ratio: float) -> str:
    return f"{100.0 * float(np.expm1(min(log_ratio, 20.0))):+.1f} %"


def _points(difference: float) -> str:
    return f"{100.0 * difference:+.2f} points"
