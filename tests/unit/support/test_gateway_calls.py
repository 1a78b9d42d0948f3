"""GRPCRoutes: matches in Envoy's words, their precedence, and clusters that speak HTTP/2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.gateway import samples
from support.gateway.calls import envoy_match, precedence
from support.gateway.translate import translate

if TYPE_CHECKING:
    from support.gateway.snapshot import Object

SAY = {"service": "llm.Chat", "method": "Say"}


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        pytest.param({}, {"prefix": "/"}, id="every-call"),
        pytest.param({"method": SAY}, {"path": "/llm.Chat/Say"}, id="a-method"),
        pytest.param({"method": {"service": "llm.Chat"}}, {"prefix": "/llm.Chat/"}, id="a-service"),
        pytest.param(
            {"method": {"method": "Say"}},
            {"safe_regex": {"regex": "/[^/]+/Say"}},
            id="a-method-of-any-service",
        ),
        pytest.param(
            {"method": SAY | {"type": "RegularExpression", "service": "llm[.].*"}},
            {"safe_regex": {"regex": "/llm[.].*/Say"}},
            id="a-regular-expression",
        ),
    ],
)
def test_a_call_is_matched_by_its_path(match: Object, expected: dict[str, Any]) -> None:
    assert envoy_match(match) == {"grpc": {}} | expected


def test_headers_of_a_call_are_matched_too() -> None:
    match = {"headers": [{"name": "x-beta", "value": "yes"}]}
    assert envoy_match(match)["headers"] == [{"name": "x-beta", "string_match": {"exact": "yes"}}]


def test_the_longest_service_then_method_then_the_most_headers_come_first() -> None:
    """GRPCRouteRule.matches (gateway-api v1.6 apis/v1/grpcroute_types.go)."""
    ordered: list[Object] = [
        {"method": {"service": "llm.Chat", "method": "Say"}},
        {"method": {"service": "llm.Chat"}, "headers": [{"name": "a", "value": "1"}]},
        {"method": {"service": "llm.Chat"}},
        {"method": {"method": "Say"}},
        {},
    ]
    ordered.reverse()
    assert sorted(ordered, key=precedence) == ordered[::-1]


def test_an_unknown_match_type_is_refused() -> None:
    rule = {"matches": [{"method": SAY | {"type": "Prefix"}}], "backendRefs": []}
    found = translate(samples.snapshot(samples.grpc_route(rule)))
    [status] = [each for each in found.statuses if each.kind == "GRPCRoute"]
    [parent] = status.status["parents"]
    accepted = parent["conditions"][0]
    assert (accepted["reason"], accepted["status"]) == ("UnsupportedValue", "False")
    assert "method match type Prefix" in accepted["message"]


def test_an_http_route_and_a_grpc_route_of_one_name_share_no_cluster() -> None:
    rule = {"backendRefs": [samples.pool_ref("a", 100)]}
    found = translate(
        samples.snapshot(
            samples.route(rule),
            samples.grpc_route(rule),
            samples.pool("a", {"n": "1"}),
            samples.pod("pod-1", {"n": "1"}, "127.99.1.1"),
        )
    )
    http2 = {name: upstream.http2 for name, upstream in found.upstreams.items()}
    pool = "pool/inference.networking.k8s.io/demo/a"
    assert http2 == {pool: False, f"grpc/{pool}": True}
    assert sorted(each.kind for each in found.statuses if each.kind.endswith("Route")) == [
        "GRPCRoute",
        "HTTPRoute",
    ]
