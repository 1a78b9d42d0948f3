"""What else differs between canary and stable, besides the version.

Each finding is reported; those that make a comparison meaningless block it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.comparisons import compare_pods
from inference_analysis.latencies import mean_effects
from inference_analysis.standardisation import merged_windows
from inference_analysis.units import Kind, Units

if TYPE_CHECKING:
    from inference_analysis.ledgers import Stand
    from inference_analysis.observations import FloatArray, Histogram, Observations
    from inference_analysis.policies import Policy
    from inference_analysis.standardisation import PodEffects

MIX_LEVEL = 0.01
LARGEST_ADJUSTMENT = 0.25
"""A difference in prompt length beyond this is not corrected by a straight line."""
LEAST_CELLS = 20
DRIFT = 0.10
CACHE_GAP = 0.10
COVERAGE_GAP = 0.05
MOST_WINDOW_LOOKS = 2


class Weight(StrEnum):
    """What a finding does to the verdict."""

    BLOCKS = "blocks"
    """Latency gates are inconclusive."""
    BLOCKS_FAIL = "blocks-fail"
    """A latency gate cannot fail: the canary carries more load."""
    BLOCKS_PASS = "blocks-pass"  # noqa: S105 - a word, not a password
    """A latency gate cannot pass: the canary carries less load."""
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference between the arms."""

    code: str
    weight: Weight
    text: str
    remedy: str = ""
    """What takes the difference away, where something does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixAdjustment:
    """Each pod's log ratio of prompt length, observed to expected; (P,), 0 where unknown."""

    length: FloatArray
    difference: float
    shown: bool
    """Whether the difference is beyond chance (two-sided .01)."""


def check_hardware(observations: Observations) -> list[Finding]:
    """Canary pods on hardware that no two stable pods run on."""
    if len({p.hardware for p in observations.pods}) < 2:  # noqa: PLR2004 - all on one
        return []
    stable = [p.hardware for p in observations.pods if p.arm == "stable"]
    canary = {p.hardware for p in observations.pods if p.arm == "canary"}
    alone = sorted(hardware for hardware in canary if stable.count(hardware) <= 1)
    if not alone:
        return []
    if canary - set(alone):
        return [
            Finding(
                code="hardware",
                weight=Weight.NOTE,
                text=f"canary pods on {', '.join(alone)} are left out of latency: fewer than two "
                "stable pods run there",
            )
        ]
    return [
        Finding(
            code="hardware",
            weight=Weight.BLOCKS,
            text=f"the canary runs on {', '.join(alone)}, stable on "
            f"{', '.join(sorted(set(stable)))}: the version's effect on latency cannot be told "
            "from the hardware's",
            remedy="run at least two stable pods on the canary's hardware",
        )
    ]


def check_coverage(observations: Observations) -> list[Finding]:
    """Share of the requests whose answers were watched, canary to reference.

    Watching costs the gateway time (12 ms of CPU for 100 tokens), so it is itself a treatment.
    """
    covered, requests = observations.covered, observations.requests
    if covered is None or requests is None:
        return []
    usable, canary = observations.usable, observations.canary
    shares = []
    for arm in (canary, ~canary):
        total = float(np.where(usable, requests.total, 0.0)[arm].sum())
        shares.append(float(np.where(usable, covered, 0.0)[arm].sum()) / max(total, 1.0))
    if abs(shares[0] - shares[1]) <= COVERAGE_GAP:
        return []
    text = (
        f"{shares[0]:.0%} of the canary's answers are watched token by token and {shares[1]:.0%} "
        "of the control's, and watching takes time itself"
    )
    remedy = "give both versions the same sampling"
    return [Finding(code="coverage", weight=Weight.BLOCKS, text=text, remedy=remedy)]


def check_load(observations: Observations, policy: Policy) -> list[Finding]:
    """Requests per second and pod, canary to stable.

    Finished requests, not running ones: a slower version has more requests running at one time
    for the same load.
    """
    if observations.requests is not None:
        total = observations.requests.total
    elif observations.histograms:
        total = next(iter(observations.histograms.values())).count
    else:
        return []
    usable, canary = observations.usable, observations.canary
    counted = np.where(usable, total, 0.0)
    pod_seconds = usable * observations.seconds
    both = (counted[canary].sum(axis=0) > 0) & (counted[~canary].sum(axis=0) > 0)
    rates = [
        counted[arm][:, both].sum() / max(pod_seconds[arm][:, both].sum(), 1e-9)
        for arm in (canary, ~canary)
    ]
    if not rates[1]:
        return []
    ratio = float(rates[0] / rates[1])
    if policy.load_low <= ratio <= policy.load_high:
        return []
    pods = int(canary.sum())
    weight = pods / len(observations.pods)
    low = ratio < policy.load_low
    if any(pod.server for pod in observations.pods):
        text = (
            f"the canary adapter gets {ratio:.2f} times the control's requests, so its prefix "
            f"cache is {'colder' if low else 'warmer'}"
        )
        # A colder cache makes the canary slower than it is, a warmer one faster.
        weight_of = Weight.BLOCKS_FAIL if low else Weight.BLOCKS_PASS
        remedy = "give the control the canary's share"
        return [Finding(code="load", weight=weight_of, text=text, remedy=remedy)]
    return [
        Finding(
            code="load",
            weight=Weight.BLOCKS_PASS if low else Weight.BLOCKS_FAIL,
            text=f"a canary pod gets {ratio:.2f} times a stable pod's requests, so it looks "
            f"{'faster' if low else 'slower'} than it is",
            remedy=f"set the weight to {weight:.0%} ({pods} of {len(observations.pods)} pods), "
            "which gives every pod the same",
        )
    ]


def check_looks(units: Units, stand: Stand) -> list[Finding]:
    """More looks than batches of windows allow.

    Five batches from one source hold their level for two looks; a third, which a resumed or retried
    rollout would take, could fail an identical version on the same few numbers.
    """
    before = sum(s.epoch == stand.segment.epoch and len(s.looks) for s in stand.ledger.segments)
    if units.kind is not Kind.WINDOWS or before < MOST_WINDOW_LOOKS:
        return []
    return [
        Finding(
            code="looks",
            weight=Weight.BLOCKS,
            text=f"batches of windows allow {MOST_WINDOW_LOOKS} looks at one try, and this is "
            f"number {before + 1}",
            remedy="serve both adapters on four pods or more, or retry with new data",
        )
    ]


def check_mix(
    observations: Observations, units: Units
) -> tuple[list[Finding], MixAdjustment | None]:
    """Prompt length: an adjustment when it differs by at most 25 %, shown or not.

    To adjust only for a difference that is beyond chance fails .13 of identical versions whose
    prompts are 10 % longer: the differences that just escape the test still count in full.
    """
    histogram = observations.histograms.get("prompt_tokens")
    if histogram is None:
        return [], None
    if units.kind is Kind.PODS:  # a GPU does not make prompts longer: all pods in one class
        units = Units(kind=units.kind, strata=np.zeros(len(observations.pods)))
    effects = units.mean(histogram, observations)
    comparison = units.compare(effects, spread=units.spread("prompt_tokens", observations))
    if comparison is None:
        return [], None
    p = comparison.harm_p(0.0)
    shown = 2.0 * min(p, 1.0 - p) <= MIX_LEVEL
    difference = float(np.expm1(comparison.estimate))
    if abs(difference) > LARGEST_ADJUSTMENT:
        if not shown:
            return [], None
        text = (
            f"the canary's prompts differ from stable's in length by {difference:+.0%}: too much "
            "to compare latencies"
        )
        remedy = "split traffic at random, or wait for a like mix of prompts"
        return [Finding(code="mix", weight=Weight.BLOCKS, text=text, remedy=remedy)], None
    length = np.zeros(len(observations.pods))
    if units.kind is not Kind.WINDOWS:
        length[effects.index.astype(int)] = effects.effect
    text = (
        f"the canary's prompts differ from stable's in length by {difference:+.1%}; means are "
        "adjusted for it"
    )
    note = [Finding(code="mix", weight=Weight.NOTE, text=text)] if shown else []
    return note, MixAdjustment(length=length, difference=comparison.estimate, shown=shown)


def adjusted(
    effects: PodEffects,
    mix: MixAdjustment,
    histogram: Histogram,
    observations: Observations,
) -> tuple[PodEffects, float] | None:
    """Effects at equal prompt length, and the variance this adds; None without enough cells.

    The slope comes from stable cells (pod x window) only: log mean latency on log mean prompt
    length with window fixed effects, weighted by requests.
    """
    tokens = observations.histograms["prompt_tokens"]
    stable = ~observations.canary
    matrix = merged_windows(
        np.where(observations.usable, histogram.count, 0.0)[~stable].sum(axis=0),
        np.where(observations.usable, histogram.count, 0.0)[stable].sum(axis=0),
    )

    def cells(values: FloatArray) -> FloatArray:
        result: FloatArray = np.where(observations.usable, values, 0.0)[stable] @ matrix
        return result

    n, total = cells(histogram.count), cells(histogram.sum)
    n_tokens, total_tokens = cells(tokens.count), cells(tokens.sum)
    held = (n >= 5) & (n_tokens >= 5) & (total > 0) & (total_tokens > 0)  # noqa: PLR2004
    if held.sum() < LEAST_CELLS:
        return None
    weight = np.where(held, n, 0.0)
    safe = held, np.ones_like(n)

    def centred(top: FloatArray, bottom: FloatArray) -> FloatArray:
        value = np.log(np.where(safe[0], top, 1.0) / np.where(safe[0], bottom, 1.0))
        mean = (weight * value).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
        result: FloatArray = value - mean
        return result

    x, y = centred(total_tokens, n_tokens), centred(total, n)
    squares = float((weight * x**2).sum())
    if squares <= 0.0:
        return None
    slope = float((weight * x * y).sum() / squares)
    residual = y - slope * x
    error = float(np.sqrt((weight**2 * x**2 * residual**2).sum())) / squares
    index = effects.index.astype(int)
    return (
        replace(effects, effect=effects.effect - slope * mix.length[index]),
        (mix.difference * error) ** 2,
    )


def check_drift(observations: Observations) -> list[Finding]:
    """Output length and cache-hit ratio: worth a word, never a verdict."""
    found = []
    histogram = observations.histograms.get("output_tokens")
    if histogram is not None:
        effects = mean_effects(
            histogram, observations.usable, observations.canary, np.zeros(len(observations.pods))
        )
        comparison = compare_pods(effects)
        if comparison is not None:
            p = comparison.harm_p(0.0)
            change = float(np.expm1(comparison.estimate))
            if 2.0 * min(p, 1.0 - p) <= MIX_LEVEL and abs(change) > DRIFT:
                found.append(
                    Finding(
                        code="drift",
                        weight=Weight.NOTE,
                        text=f"the canary's answers differ in length by {change:+.0%}",
                    )
                )
    hits, queries = observations.cache_hits, observations.cache_queries
    if hits is not None and queries is not None:
        canary = observations.canary
        shares = [
            float(hits[arm].sum() / max(queries[arm].sum(), 1.0)) for arm in (canary, ~canary)
        ]
        if abs(shares[0] - shares[1]) > CACHE_GAP:
            found.append(
                Finding(
                    code="cache",
                    weight=Weight.NOTE,
                    text=f"prefix cache hits: canary {shares[0]:.0%}, stable {shares[1]:.0%}",
                )
            )
    return found
