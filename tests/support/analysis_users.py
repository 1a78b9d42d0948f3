"""Simulated traffic whose unit is not the pod: users that stick, and adapters with own caches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inference_analysis.observations import (
    Arm,
    BoolArray,
    FloatArray,
    Histogram,
    Observations,
    Pod,
    Requests,
)
from support.analysis_simulation import ar

EDGES = np.array([0.1, 0.25, 0.5, 1.0, 2.5])
BUCKETS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StickyUsers:
    """Users that stay with a version: some send a thousand times as much as others.

    Each user's rate is Pareto with ``tail``, their latency log-normal around a level of their own
    (their prompts are long or short). Canary and control get ``share`` of the users each.
    """

    users: int = 1_000
    share: float = 0.1
    tail: float = 1.5
    user_sd: float = 0.5
    canary: int = 1
    stable: int = 9
    windows: int = 30
    requests: float = 4.0
    """Of the lightest user in a window."""
    slowdown: float = 1.0
    pod_sd: float = 0.02
    drift_sd: float = 0.05
    by_user: bool = True
    """Whether the file has the buckets of users."""

    def observe(self, rng: np.random.Generator) -> Observations:
        """One run."""
        size = round(self.users * self.share)
        parts = [
            self._arm(rng, size, pods, self.slowdown if arm is Arm.CANARY else 1.0)
            for arm, pods in ((Arm.CANARY, self.canary), (Arm.STABLE, self.stable))
        ]
        found = [self._observations(kind, parts) for kind in (0, 1)]
        if not self.by_user:
            return found[0]
        return replace(found[0], sticky=found[1])

    def _arm(
        self, rng: np.random.Generator, size: int, pods: int, slowdown: float
    ) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]:
        """Counts, sums and errors by pod and by bucket of users."""
        rate = self.requests * (1.0 - rng.random(size)) ** (-1.0 / self.tail)
        rate = np.minimum(rate, 200.0 * self.requests)
        level = 0.2 * slowdown * np.exp(self.user_sd * rng.standard_normal(size))
        failing = 0.005 * np.exp(rng.standard_normal(size))
        bucket = rng.integers(0, BUCKETS, size)
        counts = rng.poisson(
            rate[:, None] * np.ones(self.windows) / pods, (pods, size, self.windows)
        )
        drift = self.pod_sd * rng.standard_normal(pods)[:, None] + self.drift_sd * ar(
            rng, pods, self.windows, 0.8
        )
        noise = 0.8 * rng.standard_normal(counts.shape) / np.sqrt(np.maximum(counts, 1))
        sums = counts * level[:, None] * np.exp(drift[:, None, :]) * np.maximum(1.0 + noise, 0.05)
        errors = rng.binomial(counts, np.minimum(failing, 0.5)[:, None])
        by_pod = tuple(values.sum(axis=1).astype(float) for values in (counts, sums, errors))
        by_bucket = []
        for values in (counts, sums, errors):
            grouped = np.zeros((BUCKETS, self.windows))
            np.add.at(grouped, bucket, values.sum(axis=0))
            by_bucket.append(grouped)
        return by_pod, tuple(by_bucket)

    def _observations(
        self, kind: int, parts: list[tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]]
    ) -> Observations:
        rows = [part[kind] for part in parts]
        arms = [arm for arm, part in zip(Arm, rows, strict=True) for _ in range(len(part[0]))]
        counts, sums, errors = (np.vstack([row[i] for row in rows]) for i in range(3))
        return measured(arms, counts, sums, errors)


def measured(
    arms: list[Arm], counts: FloatArray, sums: FloatArray, errors: FloatArray
) -> Observations:
    """Observations of one latency; buckets follow from the cells' means."""
    width = counts.shape[1]
    mean = sums / np.maximum(counts, 1.0)
    at = np.searchsorted(EDGES, mean)
    buckets = np.zeros((*counts.shape, len(EDGES) + 1), dtype=np.int32)
    rows, columns = np.indices(counts.shape)
    buckets[rows, columns, at] = counts.astype(np.int32)
    return Observations(
        pods=tuple(Pod(name=f"{arm.value}-{i}", arm=arm) for i, arm in enumerate(arms)),
        start_s=60.0 * np.arange(width, dtype=np.float64),
        seconds=np.full(width, 60.0),
        usable=np.ones(counts.shape, dtype=np.bool_),
        histograms={"ttft": Histogram(le=EDGES, count=counts, sum=sums, buckets=buckets)},
        requests=Requests(total=counts, errors=errors),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAdapters:
    """Identical adapters on shared pods, each with a prefix cache of its own.

    Requests draw one of ``prefixes`` shared beginnings (Zipf); one is cached while its adapter used
    it on that pod in the last ``kept_s`` seconds. An uncached request takes five times as long to
    its first token. The reference is a second alias with the canary's share, or the rest.
    """

    pods: int = 6
    share: float = 0.05
    control: bool = True
    windows: int = 30
    requests: float = 400.0
    """Of all adapters together, a pod and window."""
    prefixes: int = 200
    kept_s: float = 300.0
    slowdown: float = 1.0

    def observe(self, rng: np.random.Generator) -> Observations:
        """One run."""
        shares = {Arm.CANARY: self.share, Arm.STABLE: self.share if self.control else 0.9}
        level = np.exp(0.1 * rng.standard_normal(self.pods))
        drift = np.exp(0.05 * ar(rng, self.pods, self.windows, 0.8))
        counts, sums = (np.zeros((2 * self.pods, self.windows)) for _ in range(2))
        for number, (arm, share) in enumerate(shares.items()):
            factor = self.slowdown if arm is Arm.CANARY else 1.0
            for pod in range(self.pods):
                row = number * self.pods + pod
                counts[row], sums[row] = self._adapter(rng, share, factor * level[pod] * drift[pod])
        errors = rng.binomial(counts.astype(np.int64), 0.005).astype(np.float64)
        found = measured([arm for arm in shares for _ in range(self.pods)], counts, sums, errors)
        return replace(
            found,
            pods=tuple(
                replace(pod, server=f"pod-{i % self.pods}") for i, pod in enumerate(found.pods)
            ),
        )

    def _adapter(
        self, rng: np.random.Generator, share: float, level: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Counts and sums of one adapter on one pod, by window."""
        length = 60.0 * self.windows
        # Begin ten minutes early, so that caches are as warm as they get.
        size = rng.poisson(self.requests * share * (self.windows + 10))
        at = np.sort(rng.uniform(-600.0, length, size))
        weights = 1.0 / np.arange(1, self.prefixes + 1)
        prefix = rng.choice(self.prefixes, size, p=weights / weights.sum())
        order = np.lexsort((at, prefix))
        before = np.full(size, -np.inf)
        same: BoolArray = prefix[order][1:] == prefix[order][:-1]
        before[order[1:][same]] = at[order[:-1][same]]
        time = np.where(at - before <= self.kept_s, 0.08, 0.4) * np.exp(
            0.3 * rng.standard_normal(size)
        )
        inside = at >= 0.0
        window = np.minimum((at[inside] / 60.0).astype(int), self.windows - 1)
        counts = np.bincount(window, minlength=self.windows).astype(np.float64)
        sums = np.bincount(window, weights=time[inside], minlength=self.windows)
        return counts, sums * level
