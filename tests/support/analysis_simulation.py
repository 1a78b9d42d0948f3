"""Simulated fleets for the analysis.

A request's latency is log-normal around its pod's level; pods differ persistently (``pod_sd``) and
drift (``drift_sd``, autocorrelation .8 from window to window); all pods share a time effect. This
is the generator behind the figures in docs/statistics.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.special import ndtr

from inference_analysis.calibrating import with_pods
from inference_analysis.evaluation import evaluate
from inference_analysis.ledgers import Ledger, LookRequest
from inference_analysis.observations import (
    Arm,
    BoolArray,
    FloatArray,
    Histogram,
    Observations,
    Pod,
    Prompt,
    Requests,
)
from inference_analysis.verdicts import Evidence, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_analysis.evaluation import Evaluation
    from inference_analysis.policies import Policy

# vLLM V1's bucket edges (vllm/v1/metrics/loggers.py).
ITL_EDGES = np.array(
    [
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
        *(20.0, 40.0, 80.0),
    ]
)
TTFT_EDGES = np.array(
    [
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
        *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
    ]
)

TOP_TENTH = 1.2815515655446004
"""Normal quantile of .9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One simulated latency."""

    median_s: float = 0.2
    sdlog: float = 0.7
    edges: FloatArray = field(default_factory=lambda: TTFT_EDGES)


TTFT = Metric()
# Prompt lengths in tokens, in the edges that vLLM derives from the longest context.
PROMPT = Metric(
    median_s=500.0,
    sdlog=0.8,
    edges=np.array([1.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4]),
)
TPOT = Metric(median_s=0.03, sdlog=0.3, edges=ITL_EDGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is true of the two versions. The defaults make them identical."""

    canary: int = 2
    stable: int = 8
    windows: int = 30
    requests: float = 20.0
    """Per stable pod and window."""
    control: int = 0
    """Stable pods that serve the matched control, the others being background; 0: no control."""
    canary_load: float = 1.0
    """Requests of a canary pod per request of a stable one."""
    ramp: tuple[int, ...] = ()
    """Canary pods from each fifth of the run on; empty: all from the start."""
    trend: float = 0.0
    """Growth of everyone's latency over the run, as a share."""
    pod_sd: float = 0.02
    drift_sd: float = 0.05
    pod_t_df: float = 0.0
    """Pod effects from Student's t instead of the normal; 0: normal."""
    time_sd: float = 0.2
    slow_pods: tuple[int, ...] = ()
    """Pods, canary first, that run 20 % slow whatever their version."""
    slow_share: float = 0.0
    """Or: each pod is 20 % slow with this probability."""
    one_slow: bool = False
    """Or: exactly one pod is, any of them."""
    warm_up: float = 0.0
    """A new canary pod is twice as slow and recovers with this time constant, in windows; the
    file leaves out four of them."""
    metrics: Mapping[str, Metric] = field(
        default_factory=lambda: MappingProxyType({"ttft": TTFT, "tpot": TPOT})
    )
    slowdown: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Metric -> canary mean / stable mean."""
    tail: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Metric -> factor on the canary's slowest tenth of requests, buckets only."""
    error_share: float = 0.005
    error_ratio: float = 1.0
    error_pod_sd: float = 0.0
    error_trend: float = 0.0
    """Growth of everyone's error share over the run, as a share."""
    burst_chance: float = 0.0
    """Chance, per pod and window, that 30 % of the requests fail."""
    prompts: int = 0
    answers: int = 5
    quality_loss: float = 0.0
    quality_sd: float = 0.1
    """By how much each version is better at some prompts than at others."""
    prompt_ratio: float = 0.0
    """Length of the canary's prompts to stable's; 0: lengths are not collected. Latencies grow
    with the .8th power of the length."""

    def observe(self, rng: np.random.Generator) -> Observations:
        """One run of this fleet."""
        pods, width = self.canary + self.stable, self.windows
        canary = np.arange(pods) < self.canary
        live = np.ones((pods, width), dtype=bool)
        for fifth, number in enumerate(self.ramp):
            begin = round(fifth * width / len(self.ramp))
            live[number : self.canary, begin:] = False
            live[:number, begin:] = True
        rate = np.where(canary, self.canary_load, 1.0)[:, None] * self.requests
        counts = rng.poisson(rate * live).astype(np.float64)
        time = self.time_sd * ar(rng, 1, width, 0.8) + np.log1p(
            self.trend * np.linspace(0.0, 1.0, width)
        )
        slow = rng.random(pods) < self.slow_share
        slow[list(self.slow_pods)] = True
        if self.one_slow:
            slow[rng.integers(pods)] = True
        age = np.where(canary[:, None], np.cumsum(live, axis=1) - 1.0, np.inf)
        usable = live & (age >= 4.0 * self.warm_up)
        if self.warm_up:
            time = time + np.log(2.0) * np.exp(-age / self.warm_up)
        histograms = {}
        if self.prompt_ratio:
            length = 0.15 * rng.standard_normal((pods, width))
            length += np.where(canary, np.log(self.prompt_ratio), 0.0)[:, None]
            histograms["prompt_tokens"] = drawn(rng, PROMPT, counts, length, np.ones(pods))
            time = time + 0.8 * length
        for name, metric in self.metrics.items():
            ratio = np.where(canary, self.slowdown.get(name, 1.0), 1.0)
            level = np.log(ratio * np.where(slow, 1.2, 1.0)) + self.pod_sd * self._pods(rng, pods)
            log_mean = level[:, None] + self.drift_sd * ar(rng, pods, width, 0.8) + time
            tail = np.where(canary, self.tail.get(name, 1.0), 1.0)
            histograms[name] = drawn(rng, metric, counts, log_mean, tail)
        share = self.error_share * np.exp(self.error_pod_sd * rng.standard_normal(pods))
        share = share * np.where(canary, self.error_ratio, 1.0)
        chance = share[:, None] * (1.0 + self.error_trend * np.linspace(0.0, 1.0, width))
        chance = np.where(rng.random(counts.shape) < self.burst_chance, 0.3, chance)
        errors = rng.binomial(counts.astype(np.int64), np.minimum(chance, 1.0))
        return self._matched(
            Observations(
                pods=tuple(
                    Pod(
                        name=f"canary-{i}" if c else f"stable-{i - self.canary}",
                        arm=Arm.CANARY if c else Arm.STABLE,
                        node=f"node-{i}",
                    )
                    for i, c in enumerate(canary)
                ),
                start_s=60.0 * np.arange(width, dtype=np.float64),
                seconds=np.full(width, 60.0),
                usable=usable,
                histograms=histograms,
                requests=Requests(total=counts, errors=errors.astype(np.float64)),
                prompts=self._prompts(rng),
            )
        )

    def _matched(self, whole: Observations) -> Observations:
        if not self.control:
            return whole
        compared = np.arange(len(whole.pods)) < self.canary + self.control
        return replace(with_pods(whole, compared), background=with_pods(whole, ~compared))

    def _pods(self, rng: np.random.Generator, pods: int) -> FloatArray:
        if self.pod_t_df:
            df = self.pod_t_df
            effect: FloatArray = rng.standard_t(df, pods) / np.sqrt(df / (df - 2.0))
            return effect
        return rng.standard_normal(pods)

    def _prompts(self, rng: np.random.Generator) -> tuple[Prompt, ...]:
        """Right or wrong answers; each version is better at some prompts than at others."""
        base = rng.beta(3.0, 1.05, self.prompts)
        shift = rng.normal(0.0, self.quality_sd, (2, self.prompts))
        canary = np.clip(base + shift[0] - self.quality_loss, 0.0, 1.0)
        stable = np.clip(base + shift[1], 0.0, 1.0)
        scores = [rng.random((self.prompts, self.answers)) < p[:, None] for p in (canary, stable)]
        return tuple(
            Prompt(
                id=f"p{i}",
                canary=tuple(scores[0][i].astype(float)),
                stable=tuple(scores[1][i].astype(float)),
            )
            for i in range(self.prompts)
        )


def ar(rng: np.random.Generator, rows: int, width: int, rho: float) -> FloatArray:
    """(rows, width) stationary first-order autoregression with unit variance."""
    noise = rng.standard_normal((rows, width))
    noise[:, 1:] *= np.sqrt(1.0 - rho**2)
    for column in range(1, width):
        noise[:, column] += rho * noise[:, column - 1]
    return noise


def drawn(
    rng: np.random.Generator,
    metric: Metric,
    counts: FloatArray,
    log_mean: FloatArray,
    tail: FloatArray,
) -> Histogram:
    """Sums and buckets of ``counts`` log-normal requests per cell.

    A sum of n log-normals is drawn as one log-normal with its mean and variance (Fenton 1960), the
    buckets as a multinomial; so a run costs the same at any traffic.
    """
    n = np.maximum(counts, 1.0)
    log_median = np.log(metric.median_s) + log_mean
    spread = np.log1p(np.expm1(metric.sdlog**2) / n)
    mean = np.log(n) + log_median + 0.5 * metric.sdlog**2
    total = np.exp(mean - 0.5 * spread + np.sqrt(spread) * rng.standard_normal(counts.shape))
    z = (np.log(metric.edges) - log_median[:, :, None]) / metric.sdlog
    moved = np.maximum(z - np.log(tail)[:, None, None] / metric.sdlog, TOP_TENTH)
    below = ndtr(np.where(z > TOP_TENTH, moved, z))
    edges = np.concatenate((np.zeros((*counts.shape, 1)), below, np.ones((*counts.shape, 1))), -1)
    buckets = rng.multinomial(counts.astype(np.int64), np.diff(edges, axis=-1))
    return Histogram(
        le=metric.edges,
        count=counts,
        sum=np.where(counts > 0, total, 0.0),
        buckets=buckets.astype(np.int32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The looks at one run."""

    looks: int = 5
    resumes: int = 0
    """Looks after the planned end, each with a tenth more data."""
    retry: bool = False
    """After all that, abort and take the planned looks once more, on new data."""

    @property
    def stretch(self) -> float:
        """Length of the whole run in planned runs."""
        return (1.0 + 0.1 * self.resumes) + (1.0 if self.retry else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a sequence of looks came to."""

    failed_at: int
    """Number of the look that failed; 0: none did."""
    passed: bool
    """Some look that could say PASS did."""
    evaluations: tuple[Evaluation, ...]
    data: Observations
    """All that was there to see."""

    @property
    def last(self) -> Evaluation:
        """The last look."""
        return self.evaluations[-1]


class Source(Protocol):
    """What draws runs: a fleet, or users, or adapters."""

    @property
    def windows(self) -> int:
        """Planned windows of a run."""
        ...

    def observe(self, rng: np.random.Generator) -> Observations:
        """One run."""
        ...


def play(
    fleet: Source, policy: Policy, plan: Plan, rng: np.random.Generator, *, stop: bool = True
) -> Run:
    """Look at one simulated run as the plan says, until it fails or, unless ``stop`` is false,
    proves to be no worse.
    """
    planned = fleet.windows
    # Every source is a dataclass with that field, which a protocol cannot say.
    longer: Source = replace(fleet, windows=round(planned * plan.stretch))  # type: ignore[type-var]
    whole = longer.observe(rng)
    schedule = [(k / plan.looks, planned * k / plan.looks, 0.0) for k in range(1, plan.looks + 1)]
    schedule += [(1.0, planned * (1.0 + 0.1 * j), 0.0) for j in range(1, plan.resumes + 1)]
    if plan.retry:
        begin = round(planned * (1.0 + 0.1 * plan.resumes))
        schedule += [
            (k / plan.looks, begin + planned * k / plan.looks, 60.0 * begin)
            for k in range(1, plan.looks + 1)
        ]
    ledger, seen, passed = Ledger(), [], False
    for number, (fraction, end, aborted) in enumerate(schedule, 1):
        request = LookRequest(id=str(number), fraction=fraction, aborted_at_s=aborted)
        kept = np.arange(whole.start_s.size) < round(end)
        found = evaluate(whole.windows(kept), policy, request, ledger, fingerprint="simulated")
        ledger = found.ledger
        seen.append(found)
        passed |= found.decision.evidence is Evidence.PROVED and not _failed(found)
        if _failed(found) or (passed and stop):
            break
    failed_at = len(seen) if _failed(seen[-1]) else 0
    return Run(failed_at=failed_at, passed=passed, evaluations=tuple(seen), data=whole)


def _failed(evaluation: Evaluation) -> bool:
    return evaluation.decision.verdict is Verdict.FAIL


def cells(
    observations: Observations,
    *,
    look: Mapping[str, object] | None = None,
    policy: Mapping[str, object] | None = None,
    ledger: object = None,
) -> dict[str, object]:
    """The observations as a cells file's content."""
    pods = []
    for i, pod in enumerate(observations.pods):
        usable = observations.usable[i]

        def column(values: FloatArray, usable: BoolArray = usable) -> list[float | None]:
            return [float(v) if u else None for v, u in zip(values, usable, strict=True)]

        def whole(values: FloatArray, usable: BoolArray = usable) -> list[int | None]:
            return [int(v) if u else None for v, u in zip(values, usable, strict=True)]

        entry: dict[str, object] = {
            "name": pod.name,
            "arm": pod.arm.value,
            "node": pod.node,
            "hardware": pod.hardware,
            "histograms": {
                name: {
                    "le": h.le.tolist(),
                    "count": whole(h.count[i]),
                    "sum": column(h.sum[i]),
                    "buckets": [
                        b.tolist() if u else None for b, u in zip(h.buckets[i], usable, strict=True)
                    ],
                }
                for name, h in observations.histograms.items()
            },
        }
        if observations.requests is not None:
            entry["requests"] = whole(observations.requests.total[i])
            entry["errors"] = whole(observations.requests.errors[i])
        pods.append(entry)
    return {
        "schema": "inference-rollouts.io/analysis-cells/v1",
        "rollout": {"namespace": "llm", "name": "chat", "canaryHash": "6d5f", "stableHash": "9c1b"},
        "look": {"id": "run-1", "fraction": 1.0, **(look or {})},
        "policy": dict(policy or {}),
        "ledger": ledger,
        "windows": {
            "start": observations.start_s.tolist(),
            "seconds": observations.seconds.tolist(),
        },
        "pods": pods,
        "prompts": [
            {
                "id": p.id,
                "topic": p.topic,
                "weight": p.weight,
                "canary": list(p.canary),
                "stable": list(p.stable),
            }
            for p in observations.prompts
        ],
    }
