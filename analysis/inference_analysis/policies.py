"""What is asked of a canary: gates, margins, error budgets."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from inference_analysis.observations import JUDGE, QUALITY

if TYPE_CHECKING:
    from collections.abc import Mapping


class Mode(StrEnum):
    """What an undecided comparison leads to."""

    GUARD = "guard"
    """Go on unless harm is shown; too little data is weak evidence."""
    PROVE = "prove"
    """Go on only when "not worse" is shown; too little data pauses."""


class Statistic(StrEnum):
    """What is compared."""

    MEAN = "mean"
    """Ratio of means, exact from ``_sum`` and ``_count``."""
    TAIL = "tail"
    """Ratio of the shares above one bucket edge."""
    RATE = "rate"
    """Failed requests: difference of shares."""
    SCORE = "score"
    """Answer quality: difference of mean scores on the same prompts."""


class Role(StrEnum):
    """Which part of the error budget a gate draws from, and whether a PASS needs it."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


DEFAULT_MARGINS = MappingProxyType(
    {Statistic.MEAN: 0.10, Statistic.TAIL: 0.10, Statistic.RATE: 0.005, Statistic.SCORE: 0.05}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One comparison that can stop a canary."""

    metric: str
    statistic: Statistic
    role: Role = Role.PRIMARY
    margin: float
    """Tolerated worsening: a share of the latency (0.1 = 10 %) for mean and tail, a difference
    of shares for rate and score."""
    harm_margin: float = 0.0
    """A worsening up to here is not called harm, however certain it is; same unit."""

    @property
    def name(self) -> str:
        """The gate's name in reports and ledgers."""
        return f"{self.metric}/{self.statistic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Between-pod standard deviation of one metric's log beyond sampling noise, from history."""

    sd: float
    pods: int
    """Distinct pods it was learnt from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """An absolute promise: at most ``share`` of the requests take longer than ``seconds``."""

    metric: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All settings of one analysis. The defaults follow docs/statistics.md."""

    mode: Mode = Mode.GUARD
    gates: tuple[Gate, ...] = ()
    """Empty: the default gates of those metrics that the file has."""
    family_alpha: float = 0.04
    """Chance of a false FAIL of all gates together, over all looks."""
    primary_alpha: float = 0.03
    """The primary gates' part of ``family_alpha`` when there are secondary ones."""
    pass_alpha: float = 0.05
    """Chance of a false PASS of a canary exactly at the margin."""
    reserve: float = 0.2
    """Part of each budget that is held for looks outside the plan."""
    step_confidence: float = 0.90
    step_factor: float = 2.0
    """Before the last look a gate opens when its one-sided bound lies below factor x margin."""
    gross_ratio: float = 1.5
    gross_alpha: float = 0.005
    gross_requests: int = 50
    gross_metrics: tuple[str, ...] = ("ttft", "itl", "e2e")
    gross_error_ratio: float = 2.0
    gross_error_alpha: float = 0.005
    error_limit: float = 0.25
    """Share of failed requests that is gross harm whatever the ratio."""
    limits: tuple[Limit, ...] = ()
    priors: Mapping[str, Prior] = field(default_factory=lambda: MappingProxyType({}))
    tail_edges: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Metric → bucket edge of its tail gate; else the edge nearest 2 % of stable's requests."""
    confirm_single_pod: bool = False
    """With one canary pod, ask for a second one before a FAIL that is not gross counts."""
    pool_bias: float = 0.15
    """By how much the time to first token may differ only because busy pools differ in size."""
    load_low: float = 0.7
    load_high: float = 1.4
    """Band of canary load per pod / stable load per pod in which latencies compare."""

    def alpha(self, gate: Gate) -> float:
        """The gate's own part of the FAIL budget: weighted Bonferroni.

        Source: research of the design, one budget of .05 = gross .01 + family .04; the primary
        gates share .03, the others .01; where all gates have one role they share all of .04.
        """
        same = sum(other.role is gate.role for other in self.gates)
        if same == len(self.gates):
            return self.family_alpha / same
        if gate.role is Role.PRIMARY:
            return self.primary_alpha / same
        return (self.family_alpha - self.primary_alpha) / same


def default_gates(
    histograms: frozenset[str], *, requests: bool, measures: frozenset[str]
) -> tuple[Gate, ...]:
    """The gates for the metrics at hand.

    Three primary ones, and quality where prompts were sent: what must be shown for a PASS. The
    secondary ones only stop a canary.
    """
    wanted = [
        ("ttft", Statistic.MEAN, Role.PRIMARY, "ttft" in histograms),
        ("tpot", Statistic.MEAN, Role.PRIMARY, "tpot" in histograms),
        ("itl", Statistic.MEAN, Role.PRIMARY, "itl" in histograms and "tpot" not in histograms),
        ("errors", Statistic.RATE, Role.PRIMARY, requests),
        (QUALITY, Statistic.SCORE, Role.PRIMARY, QUALITY in measures),
        (JUDGE, Statistic.SCORE, Role.PRIMARY, JUDGE in measures),
        ("e2e", Statistic.MEAN, Role.SECONDARY, "e2e" in histograms),
        ("ttft", Statistic.TAIL, Role.SECONDARY, "ttft" in histograms),
    ]
    return tuple(
        Gate(metric=metric, statistic=statistic, role=role, margin=DEFAULT_MARGINS[statistic])
        for metric, statistic, role, present in wanted
        if present
    )
