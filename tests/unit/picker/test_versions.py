"""Versions inside one pool: exact shares, sticky users, a matched control arm."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_common.names import PROBE_HEADER
from inference_common.shares import PoolShares
from inference_picker.messages import Sample
from inference_picker.places import BUCKETS
from inference_picker.pool import Endpoint
from inference_picker.versions import Divider, Division, control_endpoints, key_of

SALT = "llm/chat/h2"


def shares(canary: int, of: int = 100, **more: int) -> PoolShares:
    return PoolShares(
        rollout="llm/chat",
        uid="u",
        counter=1,
        stable="h1",
        weights={"h1": of - canary - sum(more.values()), "h2": canary, **more},
    )


def pods(stable: int = 7, canary: int = 1) -> list[Endpoint]:
    return [
        Endpoint(address=f"127.0.{at}.{number}:8000", pod=f"{version}-{number}", version=version)
        for at, (version, count) in enumerate((("h1", stable), ("h2", canary)))
        for number in range(count)
    ]


def divide(
    divider: Divider,
    canary: int,
    endpoints: list[Endpoint] | None = None,
    *,
    key: str | None = None,
    full: frozenset[str] = frozenset(),
) -> Division:
    return divider.divide(
        shares(canary),
        pods() if endpoints is None else endpoints,
        key=key,
        is_full=lambda endpoint: endpoint.pod in full,
    )


@pytest.mark.parametrize("start", [0, 1 << 63, 12345])
@pytest.mark.parametrize("canary", [1, 5, 25, 50, 95])
def test_the_share_of_2000_requests_is_within_a_third_of_a_point(canary: int, start: int) -> None:
    divider = Divider(start)
    drawn = Counter(divide(divider, canary).version for _ in range(2000))
    assert drawn["h2"] / 2000 == pytest.approx(canary / 100, abs=0.003)


def test_the_control_arm_gets_as_many_requests_as_the_canary() -> None:
    divider = Divider()
    samples = Counter(divide(divider, 10).sample for _ in range(2000))
    assert samples[Sample.CONTROL] == pytest.approx(samples[Sample.CANARY], abs=6)
    assert samples[Sample.BACKGROUND] == pytest.approx(1600, abs=12)


def test_a_canary_with_most_of_the_traffic_is_compared_with_all_that_is_left() -> None:
    divider = Divider()
    samples = Counter(divide(divider, 80).sample for _ in range(2000))
    assert samples[Sample.BACKGROUND] == 0
    # A quarter of the canary's requests: their latencies are not comparable.
    assert samples[Sample.CONTROL] == 0
    assert samples[Sample.UNMATCHED] == pytest.approx(400, abs=6)


@given(st.text(), st.integers(0, 99), st.integers(0, 99))
def test_a_rising_share_moves_users_one_way_only(key: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    first, second = (divide(Divider(), share, key=key) for share in (low, high))
    assert second.version == "h2" or first.version == "h1"
    assert first.bucket == second.bucket
    assert 0 <= int(first.bucket) < BUCKETS


def test_users_are_sticky_across_pickers_and_restarts() -> None:
    keys = [f"user-{number}" for number in range(200)]
    one, other = ([divide(Divider(start), 30, key=key).version for key in keys] for start in (0, 7))
    assert one == other


def test_users_and_buckets_are_spread_as_the_share_says() -> None:
    found = [divide(Divider(), 25, key=f"user-{number}") for number in range(8000)]
    canary = [each for each in found if each.sample is Sample.CANARY]
    control = [each for each in found if each.sample is Sample.CONTROL]
    # Binomial with p = .25: the standard deviation of 8,000 draws is half a point.
    assert len(canary) / 8000 == pytest.approx(0.25, abs=0.02)
    assert len(control) / 8000 == pytest.approx(0.25, abs=0.02)
    assert len({each.bucket for each in canary}) == BUCKETS
    assert len({each.bucket for each in control}) == BUCKETS


def test_another_release_goes_to_other_users_first() -> None:
    keys = [f"user-{number}" for number in range(2000)]

    def early(canary: str) -> set[str]:
        wanted = PoolShares(
            rollout="llm/chat", uid="u", counter=1, stable="h1", weights={"h1": 90, canary: 10}
        )
        return {
            key
            for key in keys
            if Divider().divide(wanted, pods(), key=key, is_full=lambda _: False).wanted != "h1"
        }

    first, second = early("h2"), early("h3")
    # By chance a tenth of the first ones are among the second.
    assert len(first & second) < len(first) / 3


def test_control_requests_have_pods_of_their_own_as_many_as_the_canary_has() -> None:
    divider = Divider()
    found = [divide(divider, 25, pods(6, 2)) for _ in range(500)]
    control = {each.pod for one in found if one.sample is Sample.CONTROL for each in one.endpoints}
    rest = {each.pod for one in found if one.sample is Sample.BACKGROUND for each in one.endpoints}
    assert (len(control), len(rest)) == (2, 4)
    assert not control & rest


def test_a_small_canary_on_many_pods_does_not_crowd_the_rest_of_stable_together() -> None:
    """10 % on one pod of three: with a control pod of its own 80 % would be left for one."""
    divider = Divider()
    found = [divide(divider, 10, pods(2, 1)) for _ in range(200)]
    stable = [each for each in found if each.version == "h1"]
    assert {len(each.endpoints) for each in stable} == {2}
    assert {each.sample for each in stable} == {Sample.UNMATCHED, Sample.BACKGROUND}


@pytest.mark.parametrize(
    ("canary", "stable", "canaries", "matched"),
    [
        (5, 8, 1, True),
        (5, 5, 1, True),
        (5, 4, 1, False),
        (10, 8, 1, True),
        (25, 8, 2, True),
        (25, 3, 1, True),
        (25, 2, 2, False),
        (50, 4, 4, True),
        (50, 3, 4, False),
        (60, 8, 5, False),
    ],
)
def test_a_control_arm_that_is_not_comparable_is_marked(
    canary: int,
    stable: int,
    canaries: int,
    matched: bool,
) -> None:
    """5 % on one of four pods: the other three would get 26 % more than without a control arm."""
    divider = Divider()
    found = [divide(divider, canary, pods(stable, canaries)) for _ in range(400)]
    arms = {each.sample: each.endpoints for each in found if each.version == "h1"}

    assert (Sample.CONTROL in arms) is matched
    assert (Sample.UNMATCHED in arms) is not matched
    if matched:
        assert len(arms[Sample.CONTROL]) == canaries
        assert not set(arms[Sample.CONTROL]) & set(arms.get(Sample.BACKGROUND, ()))


@pytest.mark.parametrize("start", [0, 12345])
def test_without_keys_a_rising_share_takes_every_request_from_stable_and_none_from_the_canary(
    start: int,
) -> None:
    """The n-th request of two pickers that differ in the share alone."""
    five, ten = (
        [divide(divider, share).version for _ in range(2000)]
        for divider, share in ((Divider(start), 5), (Divider(start), 10))
    )
    moved = Counter(zip(five, ten, strict=True))
    assert moved["h2", "h1"] == 0
    assert moved["h1", "h2"] == pytest.approx(100, abs=6)


def test_background_requests_use_the_control_pods_before_they_overrun_the_others() -> None:
    endpoints = pods(4, 1)
    [control] = control_endpoints(endpoints[:4], 1, SALT)
    full = frozenset(each.pod for each in endpoints[:4] if each != control)
    divider = Divider()
    found = [divide(divider, 20, endpoints, full=full) for _ in range(50)]
    background = [each for each in found if each.sample is Sample.BACKGROUND]
    assert all(control in each.endpoints for each in background)


def control_pods(stable: list[Endpoint], count: int, salt: str = SALT) -> set[str]:
    return {each.pod for each in control_endpoints(stable, count, salt)}


def test_the_control_pods_are_the_same_for_all_pickers_and_steps_of_a_release() -> None:
    divider = Divider()
    found = [
        {
            each.endpoints
            for each in (divide(divider, share, pods(8, 1)) for _ in range(200))
            if each.sample is Sample.CONTROL
        }
        for share in (5, 10, 12)
    ]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 1
    assert control_pods(pods(8, 0)[::-1], 2) == control_pods(pods(8, 0), 2)


def test_another_release_has_other_control_pods() -> None:
    drawn = [control_pods(pods(8, 0), 2, f"llm/chat/h{number}") for number in range(2, 22)]
    # By chance each pod is in a quarter of them.
    assert set.union(*drawn) == {each.pod for each in pods(8, 0)}


@given(st.integers(1, 12), st.integers(0, 12), st.text(max_size=3))
def test_more_control_pods_keep_the_ones_there_are(total: int, count: int, salt: str) -> None:
    stable = pods(total, 0)
    fewer, more = control_pods(stable, count, salt), control_pods(stable, count + 1, salt)
    assert fewer <= more
    assert len(fewer) == min(count, total)
    # A pod that comes takes one place at most.
    assert len(control_pods(pods(total + 1, 0), count, salt) - fewer) <= 1


def test_every_port_of_a_control_pod_is_of_the_control_arm() -> None:
    stable = [
        Endpoint(address=f"127.0.0.{pod}:{port}", pod=f"p{pod}", version="h1")
        for pod in range(3)
        for port in (8000, 8001)
    ]
    assert (
        Counter(each.pod for each in control_endpoints(stable, 1, SALT)).most_common(1)[0][1] == 2
    )


@pytest.mark.parametrize("canary", [pods(3, 0), pods(3, 1)], ids=["gone", "full"])
def test_what_a_canary_can_not_take_goes_to_stable_and_is_told(canary: list[Endpoint]) -> None:
    divider = Divider()
    found = [divide(divider, 50, canary, full=frozenset({"h2-0"})) for _ in range(20)]
    assert {each.version for each in found} == {"h1"}
    assert {each.wanted for each in found} == {"h1", "h2"}
    assert all(each.endpoints for each in found)


def test_a_full_control_arm_sends_on_what_it_can_not_take_as_a_full_canary_does() -> None:
    # A canary is never overrun. A control that was looked a hundred times slower in simulation.
    endpoints = pods(4, 1)
    [control] = control_endpoints(endpoints[:4], 1, SALT)
    divider = Divider()

    found = [divide(divider, 20, endpoints, full=frozenset({control.pod})) for _ in range(100)]

    stable = [each for each in found if each.version == "h1"]
    assert {each.sample for each in stable} == {Sample.BACKGROUND}
    assert not any(control in each.endpoints for each in stable)


def test_without_stable_pods_its_requests_go_nowhere() -> None:
    divider = Divider()
    found = [divide(divider, 10, pods(0, 2)) for _ in range(200)]
    served = [each for each in found if each.endpoints]
    assert {each.version for each in served} == {"h2"}
    assert len(served) / 200 == pytest.approx(0.1, abs=0.02)


def test_a_version_that_is_not_listed_gets_nothing() -> None:
    stray = Endpoint(address="127.0.9.9:8000", pod="h9-0", version="h9")
    divider = Divider()
    assert not any(stray in divide(divider, 50, [*pods(), stray]).endpoints for _ in range(100))


def test_without_a_canary_share_there_is_no_control_arm() -> None:
    divider = Divider()
    found = [divide(divider, 0) for _ in range(50)]
    assert {(each.sample, len(each.endpoints)) for each in found} == {(Sample.BACKGROUND, 7)}


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 100), min_size=1).filter(
        lambda weights: any(weights.values())
    ),
    st.lists(st.sampled_from("abcde"), max_size=12),
    st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=20),
    st.sets(st.integers(0, 11)),
)
def test_no_request_goes_to_a_version_without_a_share(
    weights: dict[str, int], versions: list[str], keys: list[str | None], full: set[int]
) -> None:
    wanted = PoolShares(rollout="n/r", uid="u", counter=0, stable="a", weights=weights)
    endpoints = [
        Endpoint(address=f"127.0.0.{at}:80", pod=str(at), version=version)
        for at, version in enumerate(versions)
    ]
    divider = Divider()
    for key in keys:
        found = divider.divide(
            wanted, endpoints, key=key, is_full=lambda each: int(each.pod) in full
        )
        assert {each.version for each in found.endpoints} <= {found.version}
        assert found.version == "a" or weights.get(found.version, 0)


@pytest.mark.parametrize(
    ("headers", "content", "expected"),
    [
        ({"x-session-id": "s"}, {"user": "u"}, "s"),
        ({"x-llm-d-inference-fairness-id": "f"}, None, "f"),
        ({"x-session-id": ""}, {"user": "u"}, "u"),
        ({}, {"user": 3}, None),
        ({}, {"prompt_cache_key": "c", "user": "u"}, "c"),
        ({}, None, None),
        ({PROBE_HEADER: "quality", "x-session-id": "s"}, {"user": "u"}, None),
    ],
    ids=["header", "fairness", "empty", "no-text", "order", "none", "probe"],
)
def test_a_user_is_told_by_header_or_body(
    headers: dict[str, str], content: dict[str, object] | None, expected: str | None
) -> None:
    assert key_of(headers, content) == expected
