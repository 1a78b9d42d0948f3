"""Pools of unequal size, whose first tokens do not come equally fast whatever the version.

A request that may choose among more pods finds an idle one more often. So with the same requests
for each pod, and the same version, the smaller pool is slower to its first token once pods are
busy: with simulated model servers at 60 % load, 2 pods were .5 to 14 % slower than 4 (docs/adr/
0017-pools-of-unequal-size.md). No test on pods can tell that from a slower version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from inference_analysis.confounders import Finding, Weight
from inference_analysis.units import Kind

if TYPE_CHECKING:
    from inference_analysis.observations import Observations
    from inference_analysis.policies import Policy
    from inference_analysis.units import Units

METRIC: Final = "ttft"
"""Only the wait for a place is shared out; once it has one, a request runs as fast as its pod."""
CODE: Final = "pools"
LEAST_RUNNING: Final = 0.25
"""Requests at one time in a stable pod below which nearly all find it idle in either pool."""


def check_pools(observations: Observations, units: Units, policy: Policy) -> list[Finding]:
    """A finding where the arms' pools differ in size and their pods are known to be busy.

    One pool that both arms share (adapters, a matched control) gives both the same choice.
    """
    if units.kind is not Kind.PODS or observations.background is not None or not policy.pool_bias:
        return []
    if METRIC not in observations.histograms or not _busy(observations):
        return []
    canary = int(observations.canary.sum())
    stable = len(observations.pods) - canary
    if canary == stable:
        return []
    smaller = canary < stable
    return [
        Finding(
            code=CODE,
            weight=Weight.NOTE if smaller else Weight.BLOCKS_PASS,
            text=f"{canary} canary and {stable} stable pods are busy: a request finds an idle pod "
            f"more often among more pods, so up to {policy.pool_bias:+.0%} of the canary's time to "
            f"first token would be no {'harm' if smaller else 'gain'} of its version",
            remedy="give both versions as many pods (setCanaryScale), or one pool with a matched "
            "control",
        )
    ]


def _busy(observations: Observations) -> bool:
    """Whether a stable pod has a request most of the time that one comes in."""
    if observations.running is None:
        return False
    known = observations.usable & ~observations.canary[:, None] & ~np.isnan(observations.running)
    return bool(known.any() and observations.running[known].mean() >= LEAST_RUNNING)
