"""What the unit of a comparison is: a pod, a pod that two adapters share, or a batch of windows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from inference_analysis.comparisons import compare_pods
from inference_analysis.latencies import (
    mean_effects,
    shares_above,
    squared_variation,
    tail_effects,
)
from inference_analysis.matched import compare_matched, spread_of
from inference_analysis.pairs import LEAST_PAIRS, compare_pairs

if TYPE_CHECKING:
    from inference_analysis.comparisons import TComparison
    from inference_analysis.matched import Spread
    from inference_analysis.observations import FloatArray, Histogram, Observations
    from inference_analysis.policies import Prior
    from inference_analysis.standardisation import PodEffects


class Kind(Enum):
    """The unit of latency tests."""

    PODS = "pod"
    PAIRS = "pod x adapter"
    WINDOWS = "batch of windows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """How the arms of one look are set against each other."""

    kind: Kind
    strata: FloatArray
    """(P,) within which pods are compared: hardware classes, or the pod that entries share."""

    @property
    def paired(self) -> bool:
        """Whether canary and reference share their pods."""
        return self.kind is not Kind.PODS

    @property
    def needed(self) -> str:
        """What is needed for a comparison at all."""
        return {
            Kind.PODS: "1 and 3 are needed",
            Kind.PAIRS: f"{LEAST_PAIRS} pods that serve both adapters are needed",
            Kind.WINDOWS: f"on fewer than {LEAST_PAIRS} shared pods at least 60 windows are "
            "needed, and ones that do not follow each other closely",
        }[self.kind]

    def mean(
        self, histogram: Histogram, observations: Observations, *, of_pods: bool = False
    ) -> PodEffects:
        """Effects of the mean; ``of_pods`` gives those of pods whatever the unit is."""
        return mean_effects(
            histogram,
            observations.usable,
            observations.canary,
            self.strata,
            seconds=None if of_pods else self._seconds(observations),
        )

    def tail(self, histogram: Histogram, edge: int, observations: Observations) -> PodEffects:
        """Effects of the share above edge number ``edge``."""
        return tail_effects(
            histogram,
            edge,
            observations.usable,
            observations.canary,
            self.strata,
            seconds=self._seconds(observations),
        )

    def _seconds(self, observations: Observations) -> float | None:
        if self.kind is not Kind.WINDOWS or not observations.seconds.size:
            return None
        return float(np.median(observations.seconds))

    def spread(
        self, metric: str, observations: Observations, edge: int | None = None
    ) -> Spread | None:
        """What stable's pods differ by, where a control is matched; None where none is."""
        background = observations.background
        if background is None or self.kind is not Kind.PODS:
            return None
        histogram, main = background.histograms.get(metric), observations.histograms.get(metric)
        if histogram is None or main is None or not np.array_equal(histogram.le, main.le):
            return None
        outcome = histogram.sum if edge is None else histogram.buckets[:, :, edge + 1 :].sum(axis=2)
        counts = np.where(background.usable, histogram.count, 0.0)
        cells = background.usable
        variation = squared_variation(histogram, cells)
        if edge is not None:
            share = float(shares_above(histogram, cells)[edge])
            variation = (1.0 - share) / max(share, 1e-6)
        served = np.where(observations.usable, main.count, 0.0).sum(axis=1)
        return spread_of(
            np.where(background.usable, outcome, 0.0),
            counts,
            served[~observations.canary],
            variation=variation,
            added=0.0 if edge is None else 0.5,
        )

    def compare(
        self,
        effects: PodEffects,
        *,
        prior: Prior | None = None,
        added_variance: float = 0.0,
        spread: Spread | None = None,
    ) -> TComparison | None:
        """The t test that fits the unit; a prior on pods says nothing about windows."""
        if spread is not None:
            return compare_matched(effects, spread, prior=prior, added_variance=added_variance)
        match self.kind:
            case Kind.PODS:
                return compare_pods(effects, prior=prior, added_variance=added_variance)
            case Kind.PAIRS:
                return compare_pairs(effects, prior=prior, added_variance=added_variance)
            case Kind.WINDOWS:
                return compare_pairs(
                    effects, added_variance=added_variance, unit=Kind.WINDOWS.value
                )

    def compare_gross(
        self, effects: PodEffects, prior: Prior, spread: Spread | None = None
    ) -> TComparison | None:
        """The test of gross harm, which a strong prior lets a single pair take."""
        if spread is not None:
            return compare_matched(effects, spread, prior=prior)
        if self.paired:
            return compare_pairs(effects, prior=prior, least=1)
        return compare_pods(effects, prior=prior)


def units_of(observations: Observations) -> Units:
    """The units that the observations allow."""
    servers = [pod.server for pod in observations.pods]
    if any(servers):
        _, position = np.unique(servers, return_inverse=True)
        arms = [
            {s for s, pod in zip(servers, observations.pods, strict=True) if pod.arm == arm}
            for arm in ("canary", "stable")
        ]
        kind = Kind.PAIRS if len(arms[0] & arms[1]) >= LEAST_PAIRS else Kind.WINDOWS
        return Units(kind=kind, strata=position.astype(np.float64))
    _, position = np.unique([pod.hardware for pod in observations.pods], return_inverse=True)
    return Units(kind=Kind.PODS, strata=position.astype(np.float64))
