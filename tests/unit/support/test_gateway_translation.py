"""A snapshot of objects -> what Envoy gets."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.gateway import samples
from support.gateway.resources import EXT_PROC, FAULT, NO_BACKEND_CLUSTER
from support.gateway.snapshot import POOL_GROUP, POOL_GROUP_X, Snapshot
from support.gateway.translate import allocate, translate

if TYPE_CHECKING:
    from support.gateway.snapshot import Object

CONFIG = "demo/gw/8080"
POOL_A = f"pool/{POOL_GROUP}/demo/a"
POOL_B = f"pool/{POOL_GROUP}/demo/b"


def rule(*refs: Object, **more: Any) -> Object:
    return {"backendRefs": list(refs), **more}


def routes(*objects: Object, host: str = "*") -> list[dict[str, Any]]:
    """Envoy's routes of one host name on the sample gateway."""
    config = translate(samples.snapshot(*objects)).route_configs[CONFIG]
    found: list[dict[str, Any]] = next(
        virtual["routes"] for virtual in config["virtual_hosts"] if host in virtual["domains"]
    )
    return found


def weighted(route: dict[str, Any]) -> dict[str, int]:
    """Weights of a route's clusters by name."""
    clusters = route["route"]["weighted_clusters"]["clusters"]
    return {cluster["name"]: cluster["weight"] for cluster in clusters}


POOLS = (samples.pool("a", {"v": "a"}), samples.pool("b", {"v": "b"}))


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        pytest.param(
            [samples.pool_ref("a", 90), samples.pool_ref("b", 10)],
            {POOL_A: 90, POOL_B: 10},
            id="as they are",
        ),
        pytest.param(
            [samples.pool_ref("a"), samples.pool_ref("b")],
            {POOL_A: 1, POOL_B: 1},
            id="absent is one",
        ),
        pytest.param(
            [samples.pool_ref("a", 100), samples.pool_ref("b", 0)], {POOL_A: 100}, id="zero is none"
        ),
        pytest.param(
            [samples.pool_ref("a", 1, port=4711)], {POOL_A: 1}, id="a pool's port is ignored"
        ),
        pytest.param(
            [samples.pool_ref("a", 1), samples.pool_ref("x", 3, group=POOL_GROUP_X)],
            {POOL_A: 1, f"pool/{POOL_GROUP_X}/demo/x": 3},
            id="both groups",
        ),
        pytest.param(
            [samples.pool_ref("a", 3), samples.service_ref("s", 2)],
            {POOL_A: 3, "service/demo/s/80": 2},
            id="pool and service",
        ),
        pytest.param(
            [samples.pool_ref("a", 3), samples.pool_ref("absent", 2)],
            {POOL_A: 3, NO_BACKEND_CLUSTER: 2},
            id="an invalid reference keeps its share",
        ),
    ],
)
def test_backend_refs_become_weighted_clusters(
    refs: list[Object], expected: dict[str, int]
) -> None:
    others = (samples.pool_x("x", {"v": "x"}), samples.service("s", {"v": "s"}))
    (route,) = routes(samples.route(rule(*refs)), *POOLS, *others)
    assert weighted(route) == expected


@given(st.lists(st.none() | st.integers(0, 1_000_000), min_size=1, max_size=16))
def test_shares_of_envoy_are_the_shares_of_the_object(weights: list[int | None]) -> None:
    refs = [samples.pool_ref(f"p{index}", weight) for index, weight in enumerate(weights)]
    pools = [samples.pool(f"p{index}", {"v": str(index)}) for index in range(len(weights))]
    (route,) = routes(samples.route(rule(*refs)), *pools)
    # HTTPRouteRule.backendRefs: weight / sum of weights, absent counts as 1.
    values = [1 if weight is None else weight for weight in weights]
    wanted = {
        f"pool/{POOL_GROUP}/demo/p{index}": Fraction(value, sum(values))
        for index, value in enumerate(values)
        if value
    }
    if not wanted:
        assert route["direct_response"] == {"status": 500}
        return
    served = weighted(route)
    total = sum(served.values())
    assert {name: Fraction(weight, total) for name, weight in served.items()} == wanted


@pytest.mark.parametrize(
    "refs",
    [
        pytest.param([samples.pool_ref("absent")], id="not found"),
        pytest.param([samples.pool_ref("a", 0), samples.pool_ref("b", 0)], id="all zero"),
        pytest.param([samples.pool_ref("a", 0), samples.pool_ref("absent", 1)], id="both"),
        pytest.param([], id="no reference"),
        pytest.param([samples.pool_ref("a", namespace="other")], id="another namespace"),
        pytest.param([{"group": "g", "kind": "K", "name": "n"}], id="unknown kind"),
        pytest.param([samples.service_ref("s", port=81)], id="no such port"),
    ],
)
def test_a_rule_that_can_serve_nothing_answers_500(refs: list[Object]) -> None:
    (route,) = routes(samples.route(rule(*refs)), *POOLS, samples.service("s", {"v": "s"}))
    assert route["direct_response"] == {"status": 500}


def test_the_share_of_an_invalid_reference_is_aborted_with_500() -> None:
    (route,) = routes(
        samples.route(rule(samples.pool_ref("absent"), samples.pool_ref("a"))), *POOLS
    )
    invalid, valid = route["route"]["weighted_clusters"]["clusters"]
    assert invalid["typed_per_filter_config"][FAULT]["abort"]["http_status"] == 500
    assert "typed_per_filter_config" not in valid


def pickers(*numbers: int) -> list[Object]:
    return [
        samples.service(f"picker-{number}", {"picker": str(number)}, port=9002, target=9002)
        for number in numbers
    ]


@pytest.mark.parametrize("failure_mode", ["FailClose", "FailOpen"])
def test_each_weighted_pool_has_its_own_picker(failure_mode: str) -> None:
    pools = [
        samples.pool("a", {"v": "a"}, picker="picker-1", failure_mode=failure_mode),
        samples.pool("b", {"v": "b"}, picker="picker-2", failure_mode=failure_mode),
    ]
    route = samples.route(rule(samples.pool_ref("a", 90), samples.pool_ref("b", 10)))
    (found,) = routes(route, *pools, *pickers(1, 2))
    overrides = [
        cluster["typed_per_filter_config"][EXT_PROC]["overrides"]
        for cluster in found["route"]["weighted_clusters"]["clusters"]
    ]
    assert [each["grpc_service"]["envoy_grpc"]["cluster_name"] for each in overrides] == [
        "picker/demo/picker-1/9002",
        "picker/demo/picker-2/9002",
    ]
    assert [each["failure_mode_allow"] for each in overrides] == [failure_mode == "FailOpen"] * 2


def test_the_default_port_of_an_extension_ref_is_9002() -> None:
    # InferencePool v1alpha2, spec.extensionRef.portNumber.
    pool = samples.pool_x("x", {"v": "x"}, picker="picker-1")
    route = samples.route(rule(samples.pool_ref("x", group=POOL_GROUP_X)))
    found = translate(samples.snapshot(route, pool, *pickers(1)))
    assert "picker/demo/picker-1/9002" in found.upstreams


def test_an_unresolved_picker_is_a_picker_without_endpoints_not_none() -> None:
    """FailClose must fail while the picker's Service is missing."""
    pool = samples.pool("a", {"v": "a"}, picker="absent")
    found = translate(samples.snapshot(samples.route(rule(samples.pool_ref("a"))), pool))
    name = f"picker/{POOL_GROUP}/demo/a/unresolved"
    assert found.upstreams[name].endpoints == ()
    assert found.upstreams[POOL_A].picked


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param({}, [("127.99.0.7", 8000)], id="ready"),
        pytest.param({"ready": False}, [], id="not ready"),
        pytest.param({"terminating": True}, [], id="terminating, though still ready"),
        pytest.param({"ip": ""}, [], id="without address"),
    ],
)
def test_only_ready_pods_get_requests(pod: dict[str, Any], expected: list[tuple[str, int]]) -> None:
    options = {"ip": "127.99.0.7"} | pod
    found = translate(
        samples.snapshot(
            samples.route(rule(samples.pool_ref("a"))),
            samples.pool("a", {"v": "a"}),
            samples.pod("pod", {"v": "a", "more": "yes"}, **options),
            samples.pod("other", {"v": "b"}, "127.99.0.8"),
        )
    )
    assert list(found.upstreams[POOL_A].endpoints) == expected


def test_every_target_port_of_a_pool_is_an_endpoint() -> None:
    pool = samples.pool("a", {"v": "a"})
    pool["spec"]["targetPorts"] = [{"number": 8000}, {"number": 8001}]
    pods = [samples.pod(f"p{n}", {"v": "a"}, f"127.99.0.{n}") for n in (2, 1)]
    found = translate(samples.snapshot(samples.route(rule(samples.pool_ref("a"))), pool, *pods))
    assert found.upstreams[POOL_A].endpoints == (
        ("127.99.0.1", 8000),
        ("127.99.0.1", 8001),
        ("127.99.0.2", 8000),
        ("127.99.0.2", 8001),
    )


def test_a_named_target_port_is_what_each_pod_calls_by_that_name() -> None:
    pods = [
        samples.pod("p1", {"v": "s"}, "127.99.0.1", ports={"http": 8000}),
        samples.pod("p2", {"v": "s"}, "127.99.0.2", ports={"http": 9000}),
        samples.pod("p3", {"v": "s"}, "127.99.0.3"),
    ]
    service = samples.service("s", {"v": "s"}, target="http")
    route = samples.route(rule(samples.service_ref("s")))
    found = translate(samples.snapshot(route, service, *pods))
    assert found.upstreams["service/demo/s/80"].endpoints == (
        ("127.99.0.1", 8000),
        ("127.99.0.2", 9000),
    )


def test_a_backend_of_weight_zero_is_known_to_envoy() -> None:
    route = samples.route(rule(samples.pool_ref("a", 1), samples.pool_ref("b", 0)))
    assert translate(samples.snapshot(route, *POOLS)).upstreams.keys() == {POOL_A, POOL_B}


def test_equal_snapshots_give_equal_translations_in_any_order_of_objects() -> None:
    objects = [
        samples.gateway_class(),
        samples.gateway(),
        samples.route(rule(samples.pool_ref("a"), samples.pool_ref("b", 3))),
        *POOLS,
        *(samples.pod(f"p{n}", {"v": "a"}, f"127.99.0.{n}") for n in range(1, 4)),
    ]
    forward = translate(Snapshot.of(samples.NETWORK, objects))
    backward = translate(Snapshot.of(samples.NETWORK, objects[::-1]))
    assert forward.route_configs == backward.route_configs
    assert forward.upstreams == backward.upstreams
    assert forward.listeners == backward.listeners


def test_gateways_get_the_lowest_free_address_and_keep_it() -> None:
    kept = samples.gateway("kept") | {"status": {"addresses": [{"value": "127.99.255.2"}]}}
    foreign = samples.gateway("foreign") | {"status": {"addresses": [{"value": "127.98.255.9"}]}}
    gateways = [samples.gateway("new"), kept, foreign]
    assert allocate(samples.NETWORK, gateways) == {
        ("demo", "new"): "127.99.255.1",
        ("demo", "kept"): "127.99.255.2",
        ("demo", "foreign"): "127.99.255.3",
    }


def test_no_two_gateways_share_an_address() -> None:
    same = {"status": {"addresses": [{"value": "127.99.255.1"}]}}
    gateways = [samples.gateway(name) | same for name in ("a", "b", "c")]
    assert len(set(allocate(samples.NETWORK, gateways).values())) == 3


def test_gateways_of_other_controllers_are_left_alone() -> None:
    objects = [samples.gateway_class("example.com/other"), samples.gateway(), samples.route(rule())]
    found = translate(Snapshot.of(samples.NETWORK, objects))
    assert (found.listeners, found.statuses) == ((), ())
