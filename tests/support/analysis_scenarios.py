"""A situation in which the analysis is measured, and how often it ends how."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from inference_analysis.verdicts import Outcome
from support.analysis_judges import OTHERS, bucket_quantile, judged
from support.analysis_simulation import Plan, play

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_analysis.policies import Policy
    from support.analysis_simulation import Run, Source

ERRORS = 2.6
"""Standard errors by which a rate may miss its bar by chance: once in 200 rows at the bar."""
FIVE_LOOKS = Plan()
NOMINAL = 0.05
STILL = 0.01
"""A quantile that moves by less has not moved."""
_READ = (0.5, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet, how it is judged, and what share of runs may or must end how."""

    name: str
    fleet: Source
    policy: Policy
    plan: Plan = FIVE_LOOKS
    counts: Literal[
        "fail", "pass", "gross", "suspect", "first", "harm at .05", "pass at .05", "quantiles stay"
    ] = "fail"
    stop: bool = True
    """Whether a PASS ends the run, as it ends a rollout; else all looks are taken."""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def seed(self) -> int:
        """Follows from the name, so that a new row changes no other."""
        return zlib.crc32(self.name.encode())

    def hit(self, run: Run) -> bool:  # noqa: PLR0911 - one for each way to count
        """Whether a run counts."""
        match self.counts:
            case "fail":
                return run.failed_at > 0
            case "first":
                return run.failed_at == 1
            case "pass":
                return run.passed
            case "gross":
                return any(check.fired for e in run.evaluations for check in e.gross)
            case "suspect":
                return any(r.outcome is Outcome.SUSPECT for r in run.last.results)
            case "harm at .05":
                tested = run.last.results[0].comparison
                return tested is not None and tested.harm_p(0.0) <= NOMINAL
            case "pass at .05":
                first = run.last.results[0]
                tested = first.comparison
                return tested is not None and tested.upper(NOMINAL) < first.margin
            case "quantiles stay":
                histogram, canary = run.data.histograms["tpot"], run.data.canary
                both = [
                    [
                        bucket_quantile(histogram, run.data.usable & arm[:, None], q)
                        for q in (0.5, 0.99)
                    ]
                    for arm in (canary, ~canary)
                ]
                return bool(np.allclose(both[0], both[1], rtol=STILL))

    @property
    def bar(self) -> str:
        """The bar, as tables show it."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Shares of a scenario's runs."""

    rate: float
    """Those that count."""
    others: Mapping[str, float]
    """Those that each other rule fails on TTFT at the planned end; empty without TTFT."""


def measure(scenario: Scenario, runs: int) -> Measured:
    """The scenario's rate, and what other rules say of the very same runs."""
    rng = np.random.default_rng(scenario.seed)
    hits, others = 0, dict.fromkeys(OTHERS, 0)
    compared = True
    for _ in range(runs):
        run = play(scenario.fleet, scenario.policy, scenario.plan, rng, stop=scenario.stop)
        hits += scenario.hit(run)
        compared = "ttft" in run.data.histograms
        if compared:
            planned = run.data.windows(np.arange(run.data.start_s.size) < scenario.fleet.windows)
            for name, fails in judged(planned, planned.histograms["ttft"]).items():
                others[name] += fails
    shares = {name: count / runs for name, count in others.items()} if compared else {}
    return Measured(rate=hits / runs, others=shares)


def rate(scenario: Scenario, runs: int) -> float:
    """Share of the runs that count."""
    return measure(scenario, runs).rate


def keeps_bar(scenario: Scenario, found: float, runs: int) -> bool | None:
    """Whether the rate keeps its bar but for chance; None without a bar."""
    if scenario.at_most is not None:
        bar = scenario.at_most
        return found <= bar + ERRORS * float(np.sqrt(bar * (1.0 - bar) / runs))
    if scenario.at_least is not None:
        bar = scenario.at_least
        return found >= bar - ERRORS * float(np.sqrt(bar * (1.0 - bar) / runs))
    return None
