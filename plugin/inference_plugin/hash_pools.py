"""Two pools of one Rollout that are addressed by pod-template-hash: the machine behind them.

The pool whose selector holds the stable hash is stable; the other is re-aimed at the canary, but
only at weight 0 and only once the gateway has taken that in. Nothing is remembered: where the
machine is follows from the two selectors, the weights, the route's status and the pods, so that
it resumes after any interruption. After a promotion nothing has to be written: the pool that
holds the new hash has all the traffic already, and its picker stays warm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_plugin.targets import Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from inference_plugin.shares import Hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCount:
    """Pods of one revision that a pool would hold: ready ones, and all that are not going away."""

    ready: int = 0
    live: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """One pool: the hash in its selector (None: it has no such key), its share of the traffic.

    ``pods`` counts, by hash, the pods that match the rest of its selector. ``aimed_for_s`` is the
    time since this plugin changed the selector. ``routed``: a header route or a mirror sends there.
    """

    name: str
    aimed_at: str | None
    share: Fraction
    pods: Mapping[str, PodCount]
    aimed_for_s: float = float("inf")
    routed: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing sends there."""
        return not self.share and not self.routed

    def count(self, pod_template_hash: str | None) -> PodCount:
        """The pods of one revision."""
        return self.pods.get(pod_template_hash or "", PodCount())


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that decides the next step.

    ``desired`` is the canary's weight out of ``maximum``; ``accepted_for_s`` the time since the
    gateways accepted the routes as they are now, None while they have not.
    """

    pools: tuple[PoolState, PoolState]
    hashes: Hashes
    desired: int
    maximum: int
    accepted_for_s: float | None
    settle_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next step: aim a pool first, else give the pools these shares, else only wait.

    ``aim`` is (pool index, hash). ``shares`` are per pool, out of the maximum; None means that
    the weights stay as they are. ``stable`` and ``canary`` are the indexes of the pools that hold
    the two revisions, None while none does.
    """

    aim: tuple[int, str] | None = None
    shares: tuple[int, int] | None = None
    stable: int | None = None
    canary: int | None = None
    wait: Wait | None = None


def advance(now: Situation) -> Step:
    """The next step from a situation. Total: every situation has one."""
    stable = _holder(now, now.hashes.stable)
    if stable is None:
        return _find_home(now)
    other = 1 - stable
    if now.hashes.canary == now.hashes.stable:
        return _promoted(now, stable, other)
    if now.pools[other].aimed_at == now.hashes.canary:
        canary_share = now.desired
        return Step(
            shares=_pair(stable, now.maximum - canary_share, canary_share),
            stable=stable,
            canary=other,
        )
    return _place_canary(now, stable, other)


def _holder(now: Situation, pod_template_hash: str) -> int | None:
    """The pool aimed at the hash; of two the one with more traffic, then the first."""
    found = [at for at, pool in enumerate(now.pools) if pool.aimed_at == pod_template_hash]
    return max(found, key=lambda at: (now.pools[at].share, -at), default=None)


def _promoted(now: Situation, stable: int, other: int) -> Step:
    """All traffic to the stable pool; the other is parked once its revision has no pods."""
    freshly = _fresh(now, stable)
    if freshly is not None:
        return Step(stable=stable, wait=freshly)
    if now.pools[other].is_idle and _may_park(now, other):
        return Step(aim=(other, now.hashes.stable), stable=stable)
    return Step(shares=_pair(stable, now.maximum, 0), stable=stable, canary=stable)


def _place_canary(now: Situation, stable: int, other: int) -> Step:
    """Bring the other pool to the canary's revision, with all traffic on the stable one."""
    all_stable = _pair(stable, now.maximum, 0)
    freshly = _fresh(now, stable)
    if freshly is not None:
        return Step(stable=stable, wait=freshly)
    pool = now.pools[other]
    if not pool.is_idle:
        return Step(shares=all_stable, stable=stable, wait=_drain(now, other))
    waiting = _not_idle(now, other)
    if waiting is not None:
        return Step(shares=all_stable, stable=stable, wait=waiting)
    if pool.count(now.hashes.canary).ready:
        return Step(aim=(other, now.hashes.canary), stable=stable)
    if _may_park(now, other):
        return Step(aim=(other, now.hashes.stable), stable=stable)
    wait = Wait(
        reason=WaitReason.READY_PODS,
        message=f"InferencePool {pool.name} is not aimed at the canary {now.hashes.canary} yet: "
        "that revision has no ready pod that matches the pool's selector.",
        quiet=not now.desired,
    )
    return Step(shares=all_stable, stable=stable, wait=wait)


def _find_home(now: Situation) -> Step:
    """No pool holds the stable revision: give it one without leaving the traffic alone.

    A pool without a hash key holds pods of every revision, so narrowing it to a revision with
    ready pods is safe at any weight. A pool of another revision is re-aimed only when it is idle.
    """
    stable = now.hashes.stable
    larger = 0 if now.pools[0].share >= now.pools[1].share else 1
    smaller = 1 - larger
    if now.pools[larger].aimed_at is None:
        if now.pools[larger].count(stable).ready:
            return Step(aim=(larger, stable))
        return Step(wait=_no_stable_pods(now, larger))
    if not now.pools[smaller].is_idle:
        return Step(shares=_pair(larger, now.maximum, 0), wait=_drain(now, smaller))
    waiting = _not_idle(now, smaller)
    if waiting is not None:
        return Step(wait=waiting)
    if now.pools[smaller].count(stable).ready:
        return Step(aim=(smaller, stable))
    return Step(wait=_no_stable_pods(now, smaller))


def _fresh(now: Situation, stable: int) -> Wait | None:
    """A stable pool that was idle and re-aimed a moment ago must settle before it takes over.

    Only here does traffic on its way to stable wait: it is served by the other pool meanwhile.
    """
    pool = now.pools[stable]
    if pool.share or pool.aimed_for_s >= now.settle_s:
        return None
    return Wait(
        reason=WaitReason.SETTLE,
        message=f"InferencePool {pool.name} was aimed at the stable revision "
        f"{pool.aimed_for_s:.1f} s ago.",
        retry_s=now.settle_s - pool.aimed_for_s,
        quiet=True,
    )


def _may_park(now: Situation, at: int) -> bool:
    """Whether an idle pool's revision has gone, so that it would stay empty.

    An empty member of a rule takes the whole rule down on some gateways (istio#61594).
    """
    pool = now.pools[at]
    return (
        pool.aimed_at not in {None, now.hashes.stable}
        and not pool.count(pool.aimed_at).live
        and _not_idle(now, at) is None
    )


def _not_idle(now: Situation, at: int) -> Wait | None:
    """What keeps a pool of weight 0 from being re-aimed: the gateway may still send to it."""
    if now.accepted_for_s is None:
        return _drain(now, at)
    if now.accepted_for_s < now.settle_s:
        return Wait(
            reason=WaitReason.SETTLE,
            message=f"InferencePool {now.pools[at].name} has weight 0 for "
            f"{now.accepted_for_s:.1f} s.",
            retry_s=now.settle_s - now.accepted_for_s,
            quiet=True,
        )
    return None


def _drain(now: Situation, at: int) -> Wait:
    return Wait(
        reason=WaitReason.DRAIN,
        message=f"InferencePool {now.pools[at].name} is re-aimed once the gateway has accepted "
        "its weight 0.",
        quiet=True,
    )


def _no_stable_pods(now: Situation, at: int) -> Wait:
    return Wait(
        reason=WaitReason.STABLE,
        message=f"InferencePool {now.pools[at].name} is not aimed at the stable revision "
        f"{now.hashes.stable} yet: it has no ready pod that matches the pool's selector.",
    )


def _pair(first: int, share: int, rest: int) -> tuple[int, int]:
    """The shares in the pools' order."""
    return (share, rest) if first == 0 else (rest, share)
