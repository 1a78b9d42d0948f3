"""Every row of the walk against the real controller (docs/plugin.md), as situations.

A pool is written ``(hash in its selector, share in percent, ready pods by hash)``. The revisions
are ``v1``, ``v2`` and so on, in the order in which they were rolled out.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_plugin.hash_pools import PodCount, PoolState, Situation, Step, advance
from inference_plugin.shares import Hashes
from inference_plugin.targets import WaitReason

Pool = tuple[str | None, int, dict[str, int]]
SETTLED = 10.0


def situation(
    first: Pool,
    second: Pool,
    *,
    stable: str,
    canary: str,
    desired: int = 0,
    accepted_for_s: float | None = SETTLED,
    aimed_for_s: tuple[float, float] = (SETTLED, SETTLED),
) -> Situation:
    pools = tuple(
        PoolState(
            name=name,
            aimed_at=aimed_at,
            share=Fraction(share, 100),
            pods={one: PodCount(ready=count, live=max(count, 0)) for one, count in ready.items()},
            aimed_for_s=age,
        )
        for name, (aimed_at, share, ready), age in zip(
            ("a", "b"), (first, second), aimed_for_s, strict=True
        )
    )
    return Situation(
        pools=(pools[0], pools[1]),
        hashes=Hashes(stable=stable, canary=canary),
        desired=desired,
        maximum=100,
        accepted_for_s=accepted_for_s,
        settle_s=2.0,
    )


def pods(**ready: int) -> dict[str, int]:
    return ready


# Each row of plugin-walk's table, and each group of controller-calls.txt that differs from one.
WALK = [
    pytest.param(
        situation((None, 50, pods(v1=2)), (None, 50, pods(v1=2)), stable="v1", canary="v1"),
        Step(aim=(0, "v1")),
        id="first-deploy-the-first-of-two-equal-pools-is-aimed",
    ),
    pytest.param(
        situation((None, 25, pods(v1=2)), (None, 75, pods(v1=2)), stable="v1", canary="v1"),
        Step(aim=(1, "v1")),
        id="first-deploy-the-pool-with-more-traffic-is-aimed",
    ),
    pytest.param(
        situation(("v1", 50, pods(v1=2)), (None, 50, pods(v1=2)), stable="v1", canary="v1"),
        Step(shares=(100, 0), stable=0, canary=0),
        id="first-deploy-equal-hashes-give-everything-not-nothing",
    ),
    pytest.param(
        situation(("v1", 100, pods(v1=2)), (None, 0, pods(v1=2)), stable="v1", canary="v2"),
        Step(shares=(100, 0), stable=0),
        id="canary-loads-the-idle-pool-keeps-its-pods",
    ),
    pytest.param(
        situation(("v1", 100, pods(v1=2)), (None, 0, pods(v1=2, v2=1)), stable="v1", canary="v2"),
        Step(aim=(1, "v2"), stable=0),
        id="first-ready-canary-pod-aims-the-idle-pool",
    ),
    pytest.param(
        situation(
            ("v1", 100, pods(v1=2)), ("v2", 0, pods(v2=1)), stable="v1", canary="v2", desired=10
        ),
        Step(shares=(90, 10), stable=0, canary=1),
        id="step-to-10",
    ),
    pytest.param(
        situation(
            ("v1", 50, pods(v1=2)), ("v2", 50, pods(v2=2)), stable="v1", canary="v2", desired=100
        ),
        Step(shares=(0, 100), stable=0, canary=1),
        id="step-to-100",
    ),
    pytest.param(
        situation(("v1", 0, pods(v1=2)), ("v2", 100, pods(v2=2)), stable="v2", canary="v2"),
        Step(shares=(0, 100), stable=1, canary=1),
        id="promoted-nothing-changes",
    ),
    pytest.param(
        situation(("v1", 0, pods()), ("v2", 100, pods(v2=2)), stable="v2", canary="v2"),
        Step(aim=(0, "v2"), stable=1),
        id="old-revision-gone-its-pool-is-parked-on-stable",
    ),
    pytest.param(
        situation(("v2", 0, pods(v2=2, v3=0)), ("v2", 100, pods(v2=2)), stable="v2", canary="v3"),
        Step(shares=(0, 100), stable=1),
        id="parked-pool-the-one-with-traffic-is-stable",
    ),
    pytest.param(
        situation(("v2", 0, pods(v2=2, v3=1)), ("v2", 100, pods(v2=2)), stable="v2", canary="v3"),
        Step(aim=(0, "v3"), stable=1),
        id="parked-pool-is-aimed-at-the-next-canary",
    ),
    pytest.param(
        situation(("v3", 10, pods(v3=1)), ("v2", 90, pods(v2=2)), stable="v2", canary="v3"),
        Step(shares=(0, 100), stable=1, canary=0),
        id="abort",
    ),
    pytest.param(
        situation(("v3", 10, pods(v3=2)), ("v2", 90, pods(v2=2)), stable="v3", canary="v3"),
        Step(shares=(100, 0), stable=0, canary=0),
        id="promote-full-at-10-jumps-at-once",
    ),
    pytest.param(
        situation(
            ("v3", 100, pods(v3=2)), ("v2", 0, pods(v2=2)), stable="v3", canary="v2", desired=10
        ),
        Step(shares=(90, 10), stable=0, canary=1),
        id="undo-finds-the-old-revision-in-the-idle-pool",
    ),
    pytest.param(
        situation(
            ("v3", 100, pods(v3=2)), ("v2", 0, pods(v2=2)), stable="v3", canary="v2", desired=100
        ),
        Step(shares=(0, 100), stable=0, canary=1),
        id="undo-inside-the-rollback-window-asks-for-100-first",
    ),
    pytest.param(
        situation(
            ("v3", 100, pods(v3=2)),
            ("v3", 0, pods(v3=2, v2=2)),
            stable="v3",
            canary="v2",
            desired=100,
        ),
        Step(aim=(1, "v2"), stable=0),
        id="undo-inside-the-rollback-window-with-a-parked-pool",
    ),
    pytest.param(
        situation(("v4", 50, pods(v4=2)), ("v2", 50, pods(v2=2, v5=0)), stable="v4", canary="v5"),
        Step(shares=(100, 0), stable=0),
        id="v3-while-v2-has-traffic-takes-it-away-first",
    ),
    pytest.param(
        situation(
            ("v4", 50, pods(v4=2)),
            ("v2", 50, pods(v2=2, v1=2)),
            stable="v4",
            canary="v1",
            desired=10,
        ),
        Step(shares=(100, 0), stable=0),
        id="v3-is-an-older-revision-that-still-runs",
    ),
    pytest.param(
        situation(("v4", 100, pods(v4=2)), ("v2", 0, pods()), stable="v4", canary="v5"),
        Step(aim=(1, "v4"), stable=0),
        id="v2-gone-while-v3-loads-the-pool-is-parked",
    ),
    pytest.param(
        situation(("v1", 0, pods()), ("v2", 100, pods(v2=2, v3=2)), stable="v3", canary="v3"),
        Step(wait=None),
        id="promoted-without-a-pool-and-no-ready-pod-in-the-idle-one",
    ),
    pytest.param(
        situation(("v1", 0, pods(v3=2)), ("v2", 100, pods(v2=2)), stable="v3", canary="v3"),
        Step(aim=(0, "v3")),
        id="promoted-without-a-pool-takes-the-idle-one",
    ),
    pytest.param(
        situation(("v1", 40, pods(v3=2)), ("v2", 60, pods(v2=2)), stable="v3", canary="v3"),
        Step(shares=(0, 100)),
        id="promoted-without-a-pool-drains-the-smaller-first",
    ),
]


@pytest.mark.parametrize(("now", "expected"), WALK)
def test_the_walk(now: Situation, expected: Step) -> None:
    step = advance(now)
    assert (step.aim, step.shares, step.stable, step.canary) == (
        expected.aim,
        expected.shares,
        expected.stable,
        expected.canary,
    )


@pytest.mark.parametrize(
    ("accepted_for_s", "reason", "retry_s"),
    [
        pytest.param(None, WaitReason.DRAIN, None, id="gateway-has-not-reported"),
        pytest.param(0.5, WaitReason.SETTLE, 1.5, id="gateway-reported-half-a-second-ago"),
    ],
)
def test_an_idle_pool_is_re_aimed_only_after_the_gateway_took_in_weight_zero(
    accepted_for_s: float | None, reason: WaitReason, retry_s: float | None
) -> None:
    step = advance(
        situation(
            ("v1", 100, pods(v1=2)),
            ("v2", 0, pods(v2=2, v3=2)),
            stable="v1",
            canary="v3",
            desired=10,
            accepted_for_s=accepted_for_s,
        )
    )
    assert step.aim is None
    assert step.shares == (100, 0)
    assert step.wait is not None
    assert (step.wait.reason, step.wait.retry_s) == (reason, retry_s)


def test_a_stable_pool_that_was_just_aimed_settles_before_it_takes_over() -> None:
    step = advance(
        situation(
            ("v3", 0, pods(v3=2)),
            ("v2", 100, pods(v2=2)),
            stable="v3",
            canary="v3",
            aimed_for_s=(0.5, SETTLED),
        )
    )
    assert step.shares is None
    assert step.wait is not None
    assert step.wait.reason is WaitReason.SETTLE


def test_traffic_is_taken_back_at_once_from_a_canary_at_100() -> None:
    """Abort at the last step: the stable pool has weight 0, but was aimed long ago."""
    step = advance(
        situation(("v1", 0, pods(v1=2)), ("v2", 100, pods(v2=2)), stable="v1", canary="v2")
    )
    assert step.shares == (100, 0)


aims = st.sampled_from([None, "v1", "v2", "v3"])
counts = st.fixed_dictionaries({name: st.integers(0, 2) for name in ("v1", "v2", "v3")})


@given(
    first=st.tuples(aims, st.integers(0, 100), counts),
    second=st.tuples(aims, st.integers(0, 100), counts),
    stable=st.sampled_from(["v1", "v2", "v3"]),
    canary=st.sampled_from(["v1", "v2", "v3"]),
    desired=st.integers(0, 100),
    accepted_for_s=st.one_of(st.none(), st.floats(0, 5)),
    ages=st.tuples(st.floats(0, 5), st.floats(0, 5)),
)
def test_no_situation_is_unsafe(
    first: Pool,
    second: Pool,
    stable: str,
    canary: str,
    desired: int,
    accepted_for_s: float | None,
    ages: tuple[float, float],
) -> None:
    now = situation(
        first,
        second,
        stable=stable,
        canary=canary,
        desired=0 if stable == canary else desired,
        accepted_for_s=accepted_for_s,
        aimed_for_s=ages,
    )
    step = advance(now)
    if step.aim is not None:
        index, pod_template_hash = step.aim
        pool = now.pools[index]
        assert pool.aimed_at != pod_template_hash
        if pool.aimed_at is not None:
            # Another revision's pool: only at weight 0, and only when the gateway knows.
            assert pool.share == 0
            assert accepted_for_s is not None
            assert accepted_for_s >= 2.0
        parking = pod_template_hash == stable and step.stable is not None
        assert parking or pool.count(pod_template_hash).ready
    if step.shares is not None:
        assert sum(step.shares) == 100
        if step.canary is not None and stable != canary:
            assert now.pools[step.canary].aimed_at == canary
