"""Statuses: what is written, for whom, and when it is left alone."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from support.gateway import samples
from support.gateway.snapshot import CONTROLLER_NAME, POOL_GROUP_X, Snapshot
from support.gateway.statuses import merged
from support.gateway.translate import translate

if TYPE_CHECKING:
    from support.gateway.snapshot import Object
    from support.gateway.statuses import Desired

NOW = "2026-02-03T04:05:06Z"
LATER = "2026-02-03T05:00:00Z"


def desired(kind: str, *objects: Object) -> Desired:
    """What is desired for the only object of a kind."""
    (found,) = [
        each for each in translate(samples.snapshot(*objects)).statuses if each.kind == kind
    ]
    return found


def written(kind: str, *objects: Object) -> dict[str, Any]:
    status = merged(desired(kind, *objects), NOW)
    assert status is not None
    return status


def conditions(entry: Object) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in entry["conditions"]}


def rule(*refs: Object) -> Object:
    return {"backendRefs": list(refs)}


def test_a_route_that_envoy_serves_is_accepted_at_its_generation() -> None:
    pool = samples.pool("a", {"v": "a"})
    (parent,) = written("HTTPRoute", samples.route(rule(samples.pool_ref("a"))), pool)["parents"]
    assert parent["controllerName"] == CONTROLLER_NAME
    assert parent["parentRef"] == {"name": "gw"}
    assert conditions(parent) == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }
    assert {each["observedGeneration"] for each in parent["conditions"]} == {3}
    assert {each["lastTransitionTime"] for each in parent["conditions"]} == {NOW}


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        pytest.param(samples.pool_ref("absent"), "BackendNotFound", id="no such pool"),
        pytest.param(samples.service_ref("absent"), "BackendNotFound", id="no such service"),
        pytest.param(samples.service_ref("s", port=81), "BackendNotFound", id="no such port"),
        pytest.param({"group": "g", "kind": "K", "name": "n"}, "InvalidKind", id="unknown kind"),
        pytest.param({"group": "g", "name": "s", "port": 80}, "InvalidKind", id="unknown group"),
        pytest.param(
            samples.pool_ref("a", namespace="other"), "RefNotPermitted", id="another namespace"
        ),
    ],
)
def test_a_reference_that_does_not_resolve_gives_its_reason(ref: Object, reason: str) -> None:
    objects = samples.pool("a", {"v": "a"}), samples.service("s", {"v": "s"})
    (parent,) = written("HTTPRoute", samples.route(rule(ref)), *objects)["parents"]
    assert conditions(parent) == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("False", reason),
    }


def https(name: str) -> Object:
    return {"name": name, "protocol": "HTTPS", "port": 8443}


@pytest.mark.parametrize(
    ("spec", "gateway", "reason"),
    [
        pytest.param(
            {"parentRefs": [{"name": "gw", "sectionName": "absent"}]},
            samples.gateway(),
            "NoMatchingParent",
            id="no such section",
        ),
        pytest.param(
            {"hostnames": ["b.example.com"]},
            samples.gateway(
                "gw",
                {"name": "h", "protocol": "HTTP", "port": 80, "hostname": "a.example.com"},
            ),
            "NoMatchingListenerHostname",
            id="host name",
        ),
        pytest.param({}, samples.gateway("gw", https("x")), "NotAllowedByListeners", id="https"),
    ],
)
def test_a_route_without_a_listener_is_not_accepted(
    spec: dict[str, Any], gateway: Object, reason: str
) -> None:
    route = samples.route(rule(samples.pool_ref("a")), **spec)
    objects = [samples.gateway_class(), gateway, route, samples.pool("a", {"v": "a"})]
    found = translate(Snapshot.of(samples.NETWORK, objects))
    (status,) = [each for each in found.statuses if each.kind == "HTTPRoute"]
    assert conditions(status.status["parents"][0])["Accepted"] == ("False", reason)
    assert status.after == frozenset()


@pytest.mark.parametrize(("source", "accepted"), [("Same", "False"), ("All", "True")])
def test_routes_of_other_namespaces_need_a_listener_that_allows_them(
    source: str, accepted: str
) -> None:
    listener = {
        "name": "http",
        "protocol": "HTTP",
        "port": 8080,
        "allowedRoutes": {"namespaces": {"from": source}},
    }
    route = samples.route(namespace="team", parentRefs=[{"name": "gw", "namespace": "demo"}])
    objects = [samples.gateway_class(), samples.gateway("gw", listener), route]
    found = translate(Snapshot.of(samples.NETWORK, objects))
    (status,) = [each for each in found.statuses if each.kind == "HTTPRoute"]
    assert conditions(status.status["parents"][0])["Accepted"][0] == accepted


def test_what_is_not_supported_is_refused_and_named() -> None:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}}
    route = samples.route({"filters": [redirect]})
    (parent,) = written("HTTPRoute", route)["parents"]
    accepted = parent["conditions"][0]
    assert (accepted["status"], accepted["reason"]) == ("False", "UnsupportedValue")
    assert "RequestRedirect" in accepted["message"]


def test_a_status_waits_for_the_configurations_it_speaks_of() -> None:
    route = samples.route(rule(samples.pool_ref("a")))
    found = translate(samples.snapshot(route, samples.pool("a", {"v": "a"}))).statuses
    assert {each.kind: each.after for each in found} == {
        "GatewayClass": frozenset(),
        "Gateway": {"demo/gw/8080"},
        "HTTPRoute": {"demo/gw/8080"},
        "InferencePool": {"demo/gw/8080"},
    }


def test_a_status_that_is_true_already_is_not_written_again() -> None:
    route, pool = samples.route(rule(samples.pool_ref("a"))), samples.pool("a", {"v": "a"})
    snapshot = samples.snapshot(route, pool)
    for each in translate(snapshot).statuses:
        each.obj["status"] = merged(each, NOW)
    assert [merged(each, LATER) for each in translate(snapshot).statuses] == [None] * 4


def test_times_move_only_with_the_status_of_a_condition() -> None:
    route = samples.route(rule(samples.pool_ref("a")))
    route["status"] = written("HTTPRoute", route)
    assert route["status"]["parents"][0]["conditions"][1]["status"] == "False"
    route["metadata"]["generation"] = 4
    status = merged(desired("HTTPRoute", route, samples.pool("a", {"v": "a"})), LATER)
    assert status is not None
    accepted, resolved = status["parents"][0]["conditions"]
    assert (accepted["lastTransitionTime"], accepted["observedGeneration"]) == (NOW, 4)
    assert (resolved["lastTransitionTime"], resolved["observedGeneration"]) == (LATER, 4)


def test_entries_of_other_controllers_stay() -> None:
    route = samples.route(rule())
    foreign = {"parentRef": {"name": "else"}, "controllerName": "example.com/x", "conditions": []}
    route["status"] = {"parents": [copy.deepcopy(foreign)]}
    parents = written("HTTPRoute", route)["parents"]
    assert parents[0] == foreign
    assert [each["controllerName"] for each in parents] == ["example.com/x", CONTROLLER_NAME]


def test_an_entry_goes_with_its_parent_ref() -> None:
    route = samples.route(rule(), parentRefs=[])
    route["status"] = {
        "parents": [{"parentRef": {"name": "gw"}, "controllerName": CONTROLLER_NAME}]
    }
    assert written("HTTPRoute", route)["parents"] == []


def test_a_gateway_has_its_address_and_counts_its_routes() -> None:
    listeners = [
        {"name": "http", "protocol": "HTTP", "port": 8080},
        {"name": "https", "protocol": "HTTPS", "port": 8443},
    ]
    objects = [samples.gateway_class(), samples.gateway("gw", *listeners), samples.route(rule())]
    found = translate(Snapshot.of(samples.NETWORK, objects))
    (gateway,) = [each for each in found.statuses if each.kind == "Gateway"]
    status = merged(gateway, NOW)
    assert status is not None
    assert status["addresses"] == [{"type": "IPAddress", "value": samples.GATEWAY_ADDRESS}]
    assert conditions(status) == {
        "Accepted": ("True", "ListenersNotValid"),
        "Programmed": ("True", "Programmed"),
    }
    served, refused = status["listeners"]
    assert (served["attachedRoutes"], refused["attachedRoutes"]) == (1, 0)
    assert conditions(served)["Accepted"] == ("True", "Accepted")
    assert conditions(refused)["Accepted"] == ("False", "UnsupportedProtocol")
    assert [listener.port for listener in found.listeners] == [8080]


@pytest.mark.parametrize(
    ("picker", "expected"),
    [
        pytest.param(None, ("True", "ResolvedRefs"), id="no picker"),
        pytest.param("here", ("True", "ResolvedRefs"), id="picker"),
        pytest.param("absent", ("False", "InvalidExtensionRef"), id="picker not found"),
    ],
)
def test_a_pool_says_through_which_gateway_it_is_served(
    picker: str | None, expected: tuple[str, str]
) -> None:
    service = samples.service("here", {"p": "1"}, port=9002)
    pool = samples.pool("a", {"v": "a"}, picker=picker)
    route = samples.route(rule(samples.pool_ref("a")))
    (entry,) = written("InferencePool", route, pool, service)["parents"]
    assert entry["controllerName"] == CONTROLLER_NAME
    assert entry["parentRef"] == {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "namespace": "demo",
        "name": "gw",
    }
    assert conditions(entry) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": expected}


def test_the_old_pool_api_has_parent_and_loses_its_default_entry() -> None:
    pool = samples.pool_x("x", {"v": "x"})
    # The default of the v1alpha2 CRD's status.
    pool["status"] = {"parent": [{"parentRef": {"kind": "Status", "name": "default"}}]}
    route = samples.route(rule(samples.pool_ref("x", group=POOL_GROUP_X)))
    status = written("InferencePool", route, pool)
    assert [entry["parentRef"]["name"] for entry in status["parent"]] == ["gw"]
    assert "controllerName" not in status["parent"][0]


def test_a_pool_that_no_route_uses_is_left_alone() -> None:
    pools = samples.pool("a", {"v": "a"}), samples.pool_x("x", {"v": "x"})
    pools[1]["status"] = {"parent": [{"parentRef": {"kind": "Status", "name": "default"}}]}
    found = translate(samples.snapshot(*pools))
    assert [each.kind for each in found.statuses] == ["GatewayClass", "Gateway"]


def test_a_pool_loses_the_entry_of_a_route_that_left_it() -> None:
    pool = samples.pool("a", {"v": "a"})
    pool["status"] = written("InferencePool", samples.route(rule(samples.pool_ref("a"))), pool)
    assert written("InferencePool", samples.route(rule()), pool) == {"parents": []}
