"""Matches, filters, host names and their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.gateway import samples
from support.gateway.attachment import shared_hostnames
from support.gateway.matches import duration_s, envoy_match, header_changes, precedence
from support.gateway.translate import translate

if TYPE_CHECKING:
    from support.gateway.snapshot import Object

CONFIG = "demo/gw/8080"


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        pytest.param({}, {"prefix": "/"}, id="everything"),
        pytest.param({"path": {"type": "Exact", "value": "/a/"}}, {"path": "/a/"}, id="exact"),
        # HTTPPathMatch: /abc matches /abc, /abc/ and /abc/def, and not /abcd; a trailing slash of
        # the prefix is ignored.
        pytest.param(
            {"path": {"type": "PathPrefix", "value": "/v1/"}},
            {"path_separated_prefix": "/v1"},
            id="prefix",
        ),
        pytest.param(
            {"path": {"type": "RegularExpression", "value": "/v[12]/.*"}},
            {"safe_regex": {"regex": "/v[12]/.*"}},
            id="regular expression",
        ),
        pytest.param(
            {"headers": [{"name": "X", "value": "1"}, {"name": "x", "value": "2"}]},
            {"prefix": "/", "headers": [{"name": "X", "string_match": {"exact": "1"}}]},
            id="only the first entry of a header counts",
        ),
        pytest.param(
            {"headers": [{"name": "x", "type": "RegularExpression", "value": "a+"}]},
            {
                "prefix": "/",
                "headers": [{"name": "x", "string_match": {"safe_regex": {"regex": "a+"}}}],
            },
            id="header by regular expression",
        ),
        pytest.param(
            {"method": "POST"},
            {"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": "POST"}}]},
            id="method",
        ),
        pytest.param(
            {"queryParams": [{"name": "q", "value": "1"}]},
            {
                "prefix": "/",
                "query_parameters": [{"name": "q", "string_match": {"exact": "1"}}],
            },
            id="query",
        ),
    ],
)
def test_a_match_is_envoys(match: Object, expected: dict[str, Any]) -> None:
    assert envoy_match(match) == expected


def test_more_specific_matches_come_first() -> None:
    def path(kind: str, value: str) -> Object:
        return {"path": {"type": kind, "value": value}}

    # The order of HTTPRouteRule.matches; regular expressions are the implementation's choice.
    ordered = [
        path("Exact", "/v1"),
        path("RegularExpression", "/v.*"),
        path("PathPrefix", "/v1/chat/completions"),
        path("PathPrefix", "/v1") | {"method": "POST"},
        path("PathPrefix", "/v1") | {"headers": [{"name": n, "value": "1"} for n in "ab"]},
        path("PathPrefix", "/v1") | {"headers": [{"name": "a", "value": "1"}]},
        path("PathPrefix", "/v1") | {"queryParams": [{"name": "a", "value": "1"}]},
        path("PathPrefix", "/v1"),
        {},
    ]
    shuffled = ordered[::-1]
    assert sorted(shuffled, key=precedence) == ordered


def test_the_oldest_route_wins_a_tie_and_then_the_first_rule() -> None:
    to_a, to_b = ({"backendRefs": [samples.pool_ref(name)]} for name in "ab")
    old = samples.route(to_a, to_b, name="z-old")
    new = samples.route(to_b, name="a-new")
    new["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    pools = [samples.pool(name, {"v": name}) for name in "ab"]
    config = translate(samples.snapshot(new, old, *pools)).route_configs[CONFIG]
    assert [found["name"] for found in config["virtual_hosts"][0]["routes"]] == [
        "demo/z-old/0",
        "demo/z-old/1",
        "demo/a-new/0",
    ]


@pytest.mark.parametrize(
    ("listener", "route", "expected"),
    [
        pytest.param(None, [], ("*",), id="none"),
        pytest.param("a.example.com", [], ("a.example.com",), id="listener only"),
        pytest.param(None, ["a.example.com"], ("a.example.com",), id="route only"),
        pytest.param("*.example.com", ["a.b.example.com"], ("a.b.example.com",), id="wildcard"),
        pytest.param("a.example.com", ["*.example.com"], ("a.example.com",), id="route wildcard"),
        pytest.param("*.example.com", ["example.com"], (), id="a wildcard needs a label"),
        pytest.param("a.example.com", ["b.example.com"], (), id="disjoint"),
    ],
)
def test_host_names_of_listener_and_route_meet(
    listener: str | None, route: list[str], expected: tuple[str, ...]
) -> None:
    # Examples of Gateway API, HTTPRouteSpec.hostnames.
    assert shared_hostnames(listener, route) == expected


def test_a_narrow_host_name_is_offered_the_routes_of_wider_ones_after_its_own() -> None:
    pools = [samples.pool(name, {"v": name}) for name in "ab"]
    wide = samples.route({"backendRefs": [samples.pool_ref("a")]}, name="wide")
    narrow = samples.route(
        {
            "backendRefs": [samples.pool_ref("b")],
            "matches": [{"path": {"type": "PathPrefix", "value": "/only"}}],
        },
        name="narrow",
        hostnames=["a.example.com"],
    )
    config = translate(samples.snapshot(wide, narrow, *pools)).route_configs[CONFIG]
    assert {
        virtual["domains"][0]: [found["name"] for found in virtual["routes"]]
        for virtual in config["virtual_hosts"]
    } == {"*": ["demo/wide/0"], "a.example.com": ["demo/narrow/0", "demo/wide/0"]}


def test_header_modifiers_set_add_and_remove() -> None:
    change = {
        "set": [{"name": "a", "value": "1"}],
        "add": [{"name": "b", "value": "2"}],
        "remove": ["c"],
    }
    assert header_changes([{"type": "RequestHeaderModifier", "requestHeaderModifier": change}]) == {
        "request_headers_to_add": [
            {"header": {"key": "a", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            {"header": {"key": "b", "value": "2"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"},
        ],
        "request_headers_to_remove": ["c"],
    }


@pytest.mark.parametrize(
    ("mirror", "millionths"),
    [
        pytest.param({}, None, id="all"),
        pytest.param({"percent": 5}, 50_000, id="percent"),
        pytest.param({"percent": 0}, 0, id="none"),
        pytest.param({"fraction": {"numerator": 1, "denominator": 3}}, 333_333, id="fraction"),
    ],
)
def test_mirrors_copy_their_fraction(mirror: Object, millionths: int | None) -> None:
    entry = {"requestMirror": {"backendRef": {"name": "s", "port": 80}, **mirror}}
    rule = {
        "backendRefs": [samples.pool_ref("a")],
        "filters": [{"type": "RequestMirror", **entry}],
    }
    objects = samples.pool("a", {"v": "a"}), samples.service("s", {"v": "s"})
    config = translate(samples.snapshot(samples.route(rule), *objects)).route_configs[CONFIG]
    (policy,) = config["virtual_hosts"][0]["routes"][0]["route"]["request_mirror_policies"]
    assert policy["cluster"] == "service/demo/s/80"
    fraction = policy.get("runtime_fraction", {}).get("default_value")
    wanted = {"numerator": millionths, "denominator": "MILLION"}
    assert fraction == (None if millionths is None else wanted)


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [({}, "0s"), ({"request": "1h30m"}, "5400s"), ({"request": "0s"}, "0s")],
)
def test_a_route_times_out_only_when_asked_to(timeouts: Object, expected: str) -> None:
    rule = {"backendRefs": [samples.pool_ref("a")], "timeouts": timeouts}
    found = translate(samples.snapshot(samples.route(rule), samples.pool("a", {"v": "a"})))
    route = found.route_configs[CONFIG]["virtual_hosts"][0]["routes"][0]
    assert route["route"]["timeout"] == expected


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", "0.5s"), ("10s", "10s"), ("1h1m1s1ms", "3661.001s")]
)
def test_durations_are_those_of_gep_2257(text: str, seconds: str) -> None:
    assert duration_s(text) == seconds
