"""Compares policies on workloads, over seeds: means, quantiles, capacity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from inference_picker.simulation.policies import POLICIES, index_of
from inference_picker.simulation.replay import Result, Setting, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inference_picker.ranking import Profile
    from inference_picker.simulation.traces import TracedRequest
    from inference_picker.simulation.workloads import Workload

WARMUP: Final = 0.25
"""Share of a run in which caches fill; its requests are not counted."""
SLO_SHARE: Final = 0.95
"""Share of the requests that have to meet both limits."""
_STEPS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One policy on one workload, over all seeds. Times in seconds."""

    policy: str
    ttft_mean: float
    ttft_p50: float
    ttft_p99: float
    tpot_mean: float
    tpot_p50: float
    tpot_p99: float
    cached: float
    """Share of the prompt tokens that came from a cache."""
    within: float
    """Share of the requests within the limits of TTFT and TPOT."""
    means: tuple[float, ...] = ()
    """Mean TTFT of each seed."""
    ttft: tuple[float, ...] = ()
    """Quantiles for plots, at `QUANTILES`."""
    tpot: tuple[float, ...] = ()


QUANTILES: Final = (*(n / 100 for n in range(1, 100)), 0.995, 0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request has to meet."""

    ttft_s: float = 1.0
    tpot_s: float = 0.05


def compare(
    runs: Sequence[tuple[Sequence[TracedRequest], Setting]],
    policies: Sequence[str],
    *,
    limits: Limits,
    warmup_s: float,
    profiles: dict[str, Callable[[], Profile]] | None = None,
) -> list[Row]:
    """A row for each policy over the same runs, each a trace and its setting."""
    known = {**POLICIES, **(profiles or {})}
    return [
        summary(
            policy,
            [
                replay(
                    trace,
                    known[policy](),
                    setting,
                    warmup_s=warmup_s,
                    index=index_of(policy),
                )
                for trace, setting in runs
            ],
            limits,
        )
        for policy in policies
    ]


def summary(policy: str, results: Sequence[Result], limits: Limits) -> Row:
    """The row of a policy's runs."""
    ttft = np.concatenate([each.ttft for each in results])
    tpot = np.concatenate([each.tpot for each in results])
    within = [each.meets(ttft_s=limits.ttft_s, tpot_s=limits.tpot_s) for each in results]
    return Row(
        policy=policy,
        ttft_mean=float(ttft.mean()),
        ttft_p50=float(np.quantile(ttft, 0.5)),
        ttft_p99=float(np.quantile(ttft, 0.99)),
        tpot_mean=float(tpot.mean()),
        tpot_p50=float(np.quantile(tpot, 0.5)),
        tpot_p99=float(np.quantile(tpot, 0.99)),
        cached=float(np.mean([each.cached_share for each in results])),
        within=float(np.mean(within)),
        means=tuple(float(each.ttft.mean()) for each in results),
        ttft=tuple(map(float, np.quantile(ttft, QUANTILES))),
        tpot=tuple(map(float, np.quantile(tpot, QUANTILES))),
    )


def runs_of(
    workload: Workload,
    *,
    seeds: int,
    duration_s: float,
    setting: Setting,
    rate: float | None = None,
) -> list[tuple[list[TracedRequest], Setting]]:
    """One run of a workload for each seed."""
    return [
        (
            workload.requests(seed=seed, duration_s=duration_s, rate=rate),
            replace(setting, pods=workload.pods, scrape_s=workload.scrape_s, seed=seed),
        )
        for seed in range(seeds)
    ]


def capacity(
    meets: Callable[[float], float], *, low: float, high: float, share: float = SLO_SHARE
) -> float:
    """The highest rate, by bisection, at which enough requests meet the limits; 0 for none.

    ``meets`` gives the share of the requests that do at a rate.
    """
    if meets(low) < share:
        return 0.0
    while meets(high) >= share:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if meets(middle) >= share:
            low = middle
        else:
            high = middle
    return low
