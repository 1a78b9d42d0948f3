"""Observed over expected per pod, where "expected" is what stable did in the same windows.

Comparing raw totals confounds a canary's weight ramp with the load's trend: in simulation 54 % of
identical canaries fail that way (docs/statistics.md). Indirect standardisation removes it: a pod's
expectation applies the concurrent rate of the stable pods to the pod's own request counts; a
stable pod's leaves the pod itself out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from inference_analysis.observations import BoolArray, FloatArray

LEAST_REQUESTS = 5
"""A window in which an arm has fewer is merged with its neighbours."""
LONGEST_MERGE = 5
"""Windows that are merged at most; a longer stretch without traffic compares nothing."""
LEAST_POD_REQUESTS = 20
"""A pod with fewer says nothing about itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEffects:
    """One log ratio a pod, for the pods that took part; (N,) each."""

    index: FloatArray
    """Position of the pod among all pods."""
    effect: FloatArray
    """log(observed / expected); a stable pod's is shrunk for its leave-one-out reference."""
    sampling_variance: FloatArray
    """What the pod's own finite number of requests adds to the effect's variance."""
    live: FloatArray
    """Share of the compared time that the pod took part in, in (0, 1]."""
    canary: BoolArray
    stratum: FloatArray
    """Number of the hardware class."""
    requests: FloatArray


def merged_windows(canary: FloatArray, stable: FloatArray) -> FloatArray:
    """(W, G) matrix of 0 and 1 that sums windows into groups in which both arms have requests.

    ``canary`` and ``stable`` are the arms' request counts, (W,). A window without requests of one
    arm belongs to no group. Only counts decide, never outcomes.
    """
    both = np.minimum(canary, stable)
    if both.size and both.min() >= LEAST_REQUESTS:
        return np.eye(len(both))
    groups: list[list[int]] = []
    open_group: list[int] = []
    sums = np.zeros(2)
    for window in np.flatnonzero((canary > 0) & (stable > 0)):
        if open_group and window - open_group[0] >= LONGEST_MERGE:
            open_group, sums = [], np.zeros(2)
        open_group.append(int(window))
        sums += (canary[window], stable[window])
        if sums.min() >= LEAST_REQUESTS:
            groups.append(open_group)
            open_group, sums = [], np.zeros(2)
    matrix = np.zeros((len(canary), len(groups)))
    for column, group in enumerate(groups):
        matrix[group, column] = 1.0
    return matrix


def expectations(
    outcome: FloatArray, requests: FloatArray, canary: BoolArray, strata: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Observed, expected and compared requests per pod, (P,) each.

    ``outcome`` and ``requests`` are (P, G); strata without a stable pod left compare nothing.
    E_i = sum over g of n_ig * (S_g - own S_ig) / (n_g - own n_ig), S and n over stable pods.
    """
    observed = np.zeros(len(canary))
    expected = np.zeros(len(canary))
    compared = np.zeros(len(canary))
    for stratum in np.unique(strata):
        members = strata == stratum
        reference = members & ~canary
        own = (~canary[members])[:, None]
        rest = outcome[reference].sum(axis=0) - own * outcome[members]
        rest_requests = requests[reference].sum(axis=0) - own * requests[members]
        held = rest_requests > 0
        rate = np.divide(rest, rest_requests, out=np.zeros_like(rest), where=held)
        observed[members] = (outcome[members] * held).sum(axis=1)
        expected[members] = (requests[members] * rate).sum(axis=1)
        compared[members] = (requests[members] * held).sum(axis=1)
    return observed, expected, compared


def pod_effects(
    outcome: FloatArray,
    requests: FloatArray,
    canary: BoolArray,
    strata: FloatArray,
    *,
    variation: tuple[float, float],
    added: float = 0.0,
) -> PodEffects:
    """Each pod's log(observed / expected).

    ``outcome`` is (P, W): sums of seconds, or requests above an edge (then ``added`` = .5 keeps
    log 0 away). ``variation`` is the squared coefficient of variation of one request's outcome,
    stable's and the canary's.
    """
    matrix = merged_windows(requests[canary].sum(axis=0), requests[~canary].sum(axis=0))
    if not matrix.shape[1]:
        nothing = np.zeros(0)
        return PodEffects(
            index=nothing,
            effect=nothing,
            sampling_variance=nothing,
            live=nothing,
            canary=nothing.astype(np.bool_),
            stratum=nothing,
            requests=nothing,
        )
    counts = requests @ matrix
    observed, expected, compared = expectations(outcome @ matrix, counts, canary, strata)
    taking_part = (compared >= LEAST_POD_REQUESTS) & (expected + added > 0) & (observed + added > 0)
    effect = np.zeros(len(canary))
    effect[taking_part] = np.log((observed[taking_part] + added) / (expected[taking_part] + added))
    for stratum in np.unique(strata):
        members = taking_part & ~canary & (strata == stratum)
        size = members.sum()
        effect[members] *= (size - 1) / max(size, 1)
    squared_cv = np.where(canary, variation[1], variation[0])
    first = np.argmax(counts > 0, axis=1)
    last = counts.shape[1] - np.argmax(counts[:, ::-1] > 0, axis=1)
    live = (last - first) / counts.shape[1]
    kept = np.flatnonzero(taking_part)
    return PodEffects(
        index=kept.astype(np.float64),
        effect=effect[kept],
        sampling_variance=squared_cv[kept] / compared[kept],
        live=np.clip(live[kept], 1e-3, 1.0),
        canary=canary[kept],
        stratum=strata[kept],
        requests=compared[kept],
    )
