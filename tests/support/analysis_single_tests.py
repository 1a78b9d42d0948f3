"""Single tests on identical versions: one look, one metric, at a nominal 5 %."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from inference_analysis.comparisons import compare_pods
from inference_analysis.latencies import mean_effects, tail_edge, tail_effects
from support.analysis_judges import judged
from support.analysis_simulation import TTFT, Fleet

NOMINAL = 0.05
BAR = 0.063
"""What each test may reject: .05 and the error of 2,000 runs."""
OWN = ("mean", "tail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Identical versions, one look, one metric: does a single test keep its level?"""

    name: str
    fleet: Fleet

    @property
    def seed(self) -> int:
        """Follows from the name."""
        return zlib.crc32(self.name.encode())


SIZES = {"1v3": (1, 3), "1v9": (1, 9), "2v8": (2, 8)}
SPREADS = {"iid": (0.0, 0.0), "mild": (0.03, 0.05), "typical": (0.05, 0.10)}
LOADS = {"3:1": 3.0, "1:1": 1.0, "1:3": 1 / 3, "1:9": 1 / 9}
SETTINGS = tuple(
    Setting(
        name=f"{size}, {spread}, load {load}",
        fleet=Fleet(
            canary=canary,
            stable=stable,
            requests=60.0,
            canary_load=ratio,
            pod_sd=sd,
            drift_sd=drift,
            metrics={"ttft": TTFT},
        ),
    )
    for size, (canary, stable) in SIZES.items()
    for spread, (sd, drift) in SPREADS.items()
    for load, ratio in LOADS.items()
)


def rejections(setting: Setting, runs: int) -> dict[str, float]:
    """Share of runs in which each way to judge calls an identical canary worse.

    ``mean`` and ``tail`` are this project's single tests at .05; the others are those of
    ``analysis_judges``.
    """
    rng = np.random.default_rng(setting.seed)
    counts: dict[str, int] = {}
    for _ in range(runs):
        data = setting.fleet.observe(rng)
        histogram, strata = data.histograms["ttft"], np.zeros(len(data.pods))
        effects = {"mean": mean_effects(histogram, data.usable, data.canary, strata)}
        edge = tail_edge(histogram, data.usable & ~data.canary[:, None])
        if edge is not None:
            effects["tail"] = tail_effects(histogram, edge, data.usable, data.canary, strata)
        found = dict.fromkeys(OWN, False)
        for name, pods in effects.items():
            comparison = compare_pods(pods)
            found[name] = comparison is not None and comparison.harm_p(0.0) <= NOMINAL
        for name, fails in (found | judged(data, histogram)).items():
            counts[name] = counts.get(name, 0) + fails
    return {name: count / runs for name, count in counts.items()}
