"""A/A on stable history: how often identical pods would have been failed, and what is found.

Stable pods are split at random into a pretended canary and the rest, in blocks of time as long as
an analysis, and each split goes through the whole procedure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.errors import InputError
from inference_analysis.latencies import squared_variation
from inference_analysis.observations import Arm, Histogram, Requests
from inference_analysis.policies import Prior
from inference_analysis.priors import SCHEMA, MetricPrior, PriorsDocument
from inference_analysis.replaying import replayed
from inference_analysis.standardisation import LEAST_POD_REQUESTS, expectations
from inference_analysis.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_analysis.evaluation import Evaluation
    from inference_analysis.observations import BoolArray, FloatArray, Observations
    from inference_analysis.policies import Policy

LEAST_STABLE = 3
LEAST_SD = 0.005
"""No prior says that pods are more alike than this, however quiet its history was."""
_TINY = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One gate over all splits."""

    gate: str
    failed: float
    """Share of the splits in which this gate failed."""
    mde: float
    """Median of the minimum detectable effects at the last look."""
    mde_with_history: float
    """The same once the priors count."""
    log_ratio: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What stable's history says about the analysis."""

    priors: PriorsDocument
    canary_pods: int
    stable_pods: int
    blocks: int
    splits: int
    failures: int
    passes: int
    gates: tuple[Found, ...]
    reasons: tuple[str, ...]
    """Why the first failures failed."""

    @property
    def false_alarms(self) -> float:
        """Share of the splits that were failed."""
        return self.failures / self.splits

    def least(self, level: float = 0.05) -> float:
        """Lower Clopper-Pearson bound of the false alarms; splits share pods, so it is rough."""
        from scipy.stats import beta  # noqa: PLC0415 - a verdict does not need it

        if not self.failures:
            return 0.0
        return float(beta.ppf(level, self.failures, self.splits - self.failures + 1))


def only_stable(observations: Observations) -> Observations:
    """The stable pods alone."""
    return with_pods(observations, ~observations.canary)


def with_pods(observations: Observations, kept: BoolArray) -> Observations:
    """The same with only some pods, without prompts; ``kept`` is (P,)."""

    def cut(values: FloatArray | None) -> FloatArray | None:
        return None if values is None else values[kept]

    return replace(
        observations,
        pods=tuple(p for p, k in zip(observations.pods, kept, strict=True) if k),
        usable=observations.usable[kept],
        histograms={
            name: Histogram(le=h.le, count=h.count[kept], sum=h.sum[kept], buckets=h.buckets[kept])
            for name, h in observations.histograms.items()
        },
        requests=None
        if observations.requests is None
        else Requests(
            total=observations.requests.total[kept], errors=observations.requests.errors[kept]
        ),
        running=cut(observations.running),
        cache_hits=cut(observations.cache_hits),
        cache_queries=cut(observations.cache_queries),
        prompts=(),
    )


def blocks(observations: Observations, minutes: float) -> list[Observations]:
    """Stretches of that length, one after the other, none over a hole in the grid."""
    found, begin = [], 0
    starts, ends = observations.start_s, observations.start_s + observations.seconds
    for w in range(starts.size):
        if w > begin and starts[w] > ends[w - 1] + 1.0:
            begin = w
        if ends[w] - starts[begin] >= 60.0 * minutes - 1.0:
            at = np.arange(starts.size)
            found.append(observations.windows((at >= begin) & (at <= w)))
            begin = w + 1
    return found


def calibrated(
    history: Sequence[Observations],
    policy: Policy,
    *,
    canary_pods: int,
    minutes: float,
    looks: int,
    splits: int,
    rng: np.random.Generator,
    fingerprint: str = "calibrate",
    rollout: str = "",
) -> Calibration:
    """Split, look, count.

    Raises InputError when the history has too few pods or is too short.
    """
    stable = [only_stable(each) for each in history]
    parts = [block for each in stable for block in blocks(each, minutes)]
    if not parts:
        longest = max((float(each.seconds.sum()) / 60.0 for each in stable), default=0.0)
        raise InputError(
            f"windows: no stretch of {minutes:g} minutes (the longest file has {longest:.3g}). "
            "Capture more with --minutes, or calibrate with fewer --minutes"
        )
    parts = [_present(block) for block in parts]
    parts = [block for block in parts if len(block.pods) >= canary_pods + LEAST_STABLE]
    if not parts:
        most = max(len(each.pods) for each in stable)
        raise InputError(
            f"pods: at most {most} stable pods; an A/A of {canary_pods} canary pods needs "
            f"{canary_pods + LEAST_STABLE}. Use fewer --canary-pods, or plan without history"
        )
    learnt = _learnt(parts, minutes, rollout)
    with_history = replace(
        policy,
        priors={name: Prior(sd=each.sd, pods=each.pods) for name, each in learnt.metrics.items()},
    )
    last: list[Evaluation] = []
    informed: list[Evaluation] = []
    for number in range(splits):
        block = parts[number % len(parts)]
        pretended = _split(block, canary_pods, rng)
        runs = replayed(pretended, policy, looks=looks, fingerprint=fingerprint)
        last.append(runs[-1])
        if number < max(splits // 4, 10):
            informed.append(replayed(pretended, with_history, looks=1, fingerprint=fingerprint)[-1])
    failed = [e for e in last if e.decision.verdict is Verdict.FAIL]
    return Calibration(
        priors=learnt,
        canary_pods=canary_pods,
        stable_pods=min(len(block.pods) for block in parts) - canary_pods,
        blocks=len(parts),
        splits=splits,
        failures=len(failed),
        passes=sum(e.decision.verdict is Verdict.PASS for e in last),
        gates=_gates(last, informed),
        reasons=tuple(dict.fromkeys(r for e in failed for r in e.decision.reasons))[:5],
    )


def _present(block: Observations) -> Observations:
    """Without pods that were there for less than half of the block."""
    return with_pods(block, block.usable.mean(axis=1) >= 0.5)  # noqa: PLR2004 - half


def _split(block: Observations, canary_pods: int, rng: np.random.Generator) -> Observations:
    chosen = set(rng.choice(len(block.pods), canary_pods, replace=False).tolist())
    return replace(
        block,
        pods=tuple(
            replace(pod, arm=Arm.CANARY if i in chosen else Arm.STABLE)
            for i, pod in enumerate(block.pods)
        ),
    )


def _gates(last: Sequence[Evaluation], informed: Sequence[Evaluation]) -> tuple[Found, ...]:
    names = dict.fromkeys(r.gate.name for e in last for r in e.results)

    def middle(evaluations: Sequence[Evaluation], name: str) -> float:
        found = [
            r.latency_mde
            for e in evaluations
            for r in e.results
            if r.gate.name == name and r.comparison is not None
        ]
        return float(np.median(found)) if found else math.inf

    return tuple(
        Found(
            gate=name,
            failed=sum(r.gate.name == name and r.outcome == "fail" for e in last for r in e.results)
            / len(last),
            mde=middle(last, name),
            mde_with_history=middle(informed, name),
            log_ratio=name.endswith(("/mean", "/tail")),
        )
        for name in names
    )


def _learnt(parts: Sequence[Observations], minutes: float, rollout: str) -> PriorsDocument:
    """Between-pod sd beyond sampling of each latency, and how much traffic a pod has."""
    metrics: dict[str, MetricPrior] = {}
    for name in sorted({name for block in parts for name in block.histograms}):
        measured = [_spread(b.histograms[name], b.usable) for b in parts if name in b.histograms]
        spreads = [each for each in measured if each is not None]
        pods = {p.name for b in parts if name in b.histograms for p in b.pods}
        if not spreads or len(pods) < LEAST_STABLE:
            continue
        df = sum(s[1] for s in spreads)
        variance = sum(s[0] * s[1] for s in spreads) / df
        metrics[name] = MetricPrior(
            sd=round(max(math.sqrt(max(variance, 0.0)), LEAST_SD), 6),
            pods=len(pods),
            variation=round(math.sqrt(sum(s[2] for s in spreads) / len(spreads)), 6),
        )
    requests = errors = pod_minutes = 0.0
    for block in parts:
        total = _totals(block)
        requests += float(np.where(block.usable, total, 0.0).sum())
        pod_minutes += float((block.usable * block.seconds).sum()) / 60.0
        if block.requests is not None:
            errors += float(np.where(block.usable, block.requests.errors, 0.0).sum())
    return PriorsDocument(
        schema_=SCHEMA,
        rollout=rollout,
        minutes=minutes,
        until=max(block.end_s for block in parts),
        requests_per_pod_minute=round(max(requests / max(pod_minutes, _TINY), _TINY), 6),
        error_share=round(errors / max(requests, 1.0), 9),
        metrics=metrics,
    )


def _totals(block: Observations) -> FloatArray:
    if block.requests is not None:
        return block.requests.total
    counts: Mapping[str, Histogram] = block.histograms
    return next(iter(counts.values())).count


def _spread(histogram: Histogram, usable: BoolArray) -> tuple[float, float, float] | None:
    """Variance between pods beyond sampling, its degrees of freedom, and one request's CV squared.

    The effects are those of `pod_effects` for stable pods: log(observed / expected), the pod
    itself left out of the expectation, times (m - 1) / m.
    """
    counts = np.where(usable, histogram.count, 0.0)
    sums = np.where(usable, histogram.sum, 0.0)
    nobody = np.zeros(len(counts), dtype=np.bool_)
    observed, expected, compared = expectations(sums, counts, nobody, np.zeros(len(counts)))
    held = (compared >= LEAST_POD_REQUESTS) & (observed > 0) & (expected > 0)
    m = int(held.sum())
    if m < LEAST_STABLE:
        return None
    effect = np.log(observed[held] / expected[held]) * (m - 1) / m
    variation = squared_variation(histogram, usable)
    sampling = float((variation / compared[held]).mean())
    return float(effect.var(ddof=1)) - sampling, float(m - 1), variation
