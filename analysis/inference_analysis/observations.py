"""What was measured: pods x windows, as arrays.

Shapes: P pods, W windows, B bucket edges. ``usable`` is false where a pod was absent, warming up
or its scrape had a gap; counts are 0 there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


QUALITY: Final = "quality"
"""The measure of prompts that do not name one: how good the answer is."""
JUDGE: Final = "judge"
"""The measure of a pairwise judge: the canary's share of wins, stable's being one half."""


class Arm(StrEnum):
    """The two sides of the comparison (Argo's words)."""

    CANARY = "canary"
    STABLE = "stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod: the unit of every test on latency and errors."""

    name: str
    arm: Arm
    node: str = ""
    hardware: str = ""
    """GPU or node class; pods are compared within one class."""
    server: str = ""
    """The pod behind this entry, where one pod has an entry of each arm (two adapters)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """One metric's increments per pod and window."""

    le: FloatArray
    """(B,) finite upper edges, ascending."""
    count: FloatArray
    """(P, W) observations."""
    sum: FloatArray
    """(P, W) sum of the observations."""
    buckets: NDArray[np.int32]
    """(P, W, B + 1) observations per bucket, not cumulated; the last lies above every edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Finished requests and how many of them failed, (P, W) each."""

    total: FloatArray
    errors: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt's scores in [0, 1] on both versions; higher is better."""

    id: str
    canary: tuple[float, ...]
    stable: tuple[float, ...]
    topic: str = ""
    weight: float = 1.0
    measure: str = QUALITY
    """What was scored; a gate compares the prompts of its metric's name."""
    text: str = ""
    """The question, to be shown, as are the answers and why they got their scores."""
    canary_answer: str = ""
    stable_answer: str = ""
    canary_reason: str = ""
    stable_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Everything one look sees."""

    pods: tuple[Pod, ...]
    start_s: FloatArray
    """(W,) start of each window, seconds since the epoch."""
    seconds: FloatArray
    """(W,) length of each window."""
    usable: BoolArray
    """(P, W)."""
    histograms: Mapping[str, Histogram] = field(default_factory=lambda: MappingProxyType({}))
    unequal_edges: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Metrics whose pods use different bucket edges, with what differs."""
    requests: Requests | None = None
    running: FloatArray | None = None
    """(P, W) mean number of requests in a pod; NaN where unknown."""
    cache_hits: FloatArray | None = None
    """(P, W) prompt tokens found in the prefix cache."""
    cache_queries: FloatArray | None = None
    """(P, W) prompt tokens looked up."""
    kv_usage: FloatArray | None = None
    """(P, W) mean share of the KV cache in use; NaN where unknown."""
    preemptions: FloatArray | None = None
    """(P, W) requests thrown out of the KV cache."""
    generated_tokens: FloatArray | None = None
    """(P, W)."""
    covered: FloatArray | None = None
    """(P, W) requests whose answers were watched token by token; others have no latencies."""
    sticky: Observations | None = None
    """The same requests by bucket of users, as if buckets were pods; None where none stick."""
    background: Observations | None = None
    """Stable's requests beside a matched control: no reference, but they tell what pods differ by.
    Its pods are all of stable's; None where the arms are whole versions."""
    diverted: FloatArray | None = None
    """(W,) requests that were drawn for the canary and went to stable, because every server of the
    canary was ejected for its errors."""
    display: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Metrics that are shown and decide nothing, with the reason."""
    prompts: tuple[Prompt, ...] = ()

    @property
    def canary(self) -> BoolArray:
        """(P,) which pods are the canary's."""
        return np.array([pod.arm is Arm.CANARY for pod in self.pods], dtype=np.bool_)

    @property
    def measures(self) -> frozenset[str]:
        """What the prompts were scored on."""
        return frozenset(prompt.measure for prompt in self.prompts)

    @property
    def end_s(self) -> float:
        """End of the last window, or 0 without windows."""
        return float((self.start_s + self.seconds).max()) if self.start_s.size else 0.0

    def between(self, since_s: float, until_s: float) -> Observations:
        """The same without windows that begin before ``since_s`` or end after ``until_s``."""
        # A ledger's times have been through JSON, so they are compared to the millisecond.
        ends = self.start_s + self.seconds
        kept = (self.start_s >= since_s - 1e-3) & (ends <= until_s + 1e-3)
        if kept.all():
            return self
        return self.windows(kept)

    def windows(self, kept: BoolArray) -> Observations:
        """The same with only some windows; ``kept`` is (W,)."""

        def cut(values: FloatArray | None) -> FloatArray | None:
            return None if values is None else values[:, kept]

        return replace(
            self,
            start_s=self.start_s[kept],
            seconds=self.seconds[kept],
            usable=self.usable[:, kept],
            histograms={
                name: Histogram(
                    le=h.le,
                    count=h.count[:, kept],
                    sum=h.sum[:, kept],
                    buckets=h.buckets[:, kept],
                )
                for name, h in self.histograms.items()
            },
            requests=None
            if self.requests is None
            else Requests(total=self.requests.total[:, kept], errors=self.requests.errors[:, kept]),
            running=cut(self.running),
            cache_hits=cut(self.cache_hits),
            cache_queries=cut(self.cache_queries),
            kv_usage=cut(self.kv_usage),
            preemptions=cut(self.preemptions),
            generated_tokens=cut(self.generated_tokens),
            covered=cut(self.covered),
            sticky=None if self.sticky is None else self.sticky.windows(kept),
            background=None if self.background is None else self.background.windows(kept),
            diverted=None if self.diverted is None else self.diverted[kept],
        )
